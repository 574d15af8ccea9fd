"""Watch lines: cut right however the bytes arrive, bounded, typed errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.client.errors import GoneError, UnavailableError
from mesh.client.watch import EventType, LineSplitter, parse_event

pytestmark = pytest.mark.unit


@given(st.lists(st.binary(min_size=1).filter(lambda b: b"\n" not in b and b.strip())), st.integers(1, 7))
def test_lines_come_out_whole_whatever_the_chunks(lines: list[bytes], step: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter()
    out = [line for at in range(0, len(stream), step) for line in splitter.feed(stream[at : at + step])]
    assert out == lines


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_line_over_the_limit_is_refused(step: int) -> None:
    splitter = LineSplitter(limit=100)
    chunks = [b"x" * min(step, 200 - at) for at in range(0, 200, step)]
    with pytest.raises(UnavailableError, match="longer than 100"):
        _feed_all(splitter, chunks)


def test_event_is_read() -> None:
    event = parse_event(b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"}}}', request="watch")
    assert (event.type, event.resource_version) == (EventType.ADDED, "7")


def test_expired_version_is_a_gone_error() -> None:
    line = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'
    with pytest.raises(GoneError, match="too old"):
        parse_event(line, request="watch /api/v1/pods")


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"type":"ADDED"}', b'{"type":"NEW","object":{}}', b"null"])
def test_garbage_is_an_unavailable_error(line: bytes) -> None:
    with pytest.raises(UnavailableError, match="not a watch event"):
        parse_event(line, request="watch")


def _feed_all(splitter: LineSplitter, chunks: list[bytes]) -> list[bytes]:
    return [line for chunk in chunks for line in splitter.feed(chunk)]
