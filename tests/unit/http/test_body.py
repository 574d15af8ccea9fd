"""Body readers, fed whole, byte by byte and with the next message behind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.body import BodyReader, ChunkedReader, LengthReader, UntilCloseReader, chunk, last_chunk
from mesh.http.errors import HttpSyntaxError

pytestmark = pytest.mark.unit


def read(reader: BodyReader, data: bytes, step: int) -> tuple[bytes, bytes]:
    """The payload, and what the reader did not take."""
    payload = b""
    at = 0
    while at < len(data) and not reader.done:
        pieces, taken = reader.feed(data[at : at + step])
        payload += b"".join(pieces)
        at += taken
    return payload, data[at:]


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_length_body_ends_where_it_says(step: int) -> None:
    reader = LengthReader(5)
    assert read(reader, b"helloGET /", step) == (b"hello", b"GET /")
    assert reader.done


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_chunked_body_with_extensions_and_trailers(step: int) -> None:
    reader = ChunkedReader()
    wire = b"5;a=b\r\nhello\r\n1 \r\n!\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nCookie: c\r\n\r\nnext"
    assert read(reader, wire, step) == (b"hello!", b"next")
    assert reader.trailers == [b"X-Sum: 1"]


BAD_CHUNKS = [
    b"\r\n",
    b"g\r\n",
    b"-1\r\n",
    b"0x5\r\n",
    b" 5\r\n",
    b"5\nhello\r\n",
    b"5\r\nhello!\r\n0\r\n\r\n",
    b"5\r\nhelloX\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5;a\rb\r\nhello",
    b"5;a\x00b\r\nhello",
    b"1000000000000000\r\n",
    b"5" + b";" + b"a" * 300 + b"\r\n",
    b"0\r\nbad trailer\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
]


@pytest.mark.parametrize("wire", BAD_CHUNKS, ids=range(len(BAD_CHUNKS)))
@pytest.mark.parametrize("step", [1, 100000])
def test_bad_chunks_are_refused(wire: bytes, step: int) -> None:
    with pytest.raises(HttpSyntaxError):
        read(ChunkedReader(), wire, step)


def test_a_partial_line_is_bounded() -> None:
    with pytest.raises(HttpSyntaxError):
        read(ChunkedReader(), b"1" * 1000, 1)


def test_until_close_takes_everything() -> None:
    reader = UntilCloseReader()
    assert reader.feed(b"abc", 1) == ([b"bc"], 3)
    assert not reader.done


@given(pieces=st.lists(st.binary(max_size=40), max_size=8), step=st.integers(1, 50), tail=st.binary(max_size=10))
def test_what_is_chunked_is_read_back(pieces: list[bytes], step: int, tail: bytes) -> None:
    wire = b"".join(chunk([piece]) for piece in pieces) + last_chunk([b"a: b"])
    reader = ChunkedReader()
    assert read(reader, wire + tail, step) == (b"".join(pieces), tail)
    assert reader.done
    assert reader.trailers == [b"a: b"]


_CHUNK_PARTS = st.sampled_from(
    [b"0", b"1", b"3", b"a", b"F", b"\r\n", b"\r", b"\n", b";x=y", b";", b" ", b"abc", b"x", b"X-Sum: 1", b"Host: a", b":", b"\0",
     b"0\r\n\r\n"]
)  # fmt: skip


@given(parts=st.lists(_CHUNK_PARTS, max_size=16), steps=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_chunked_bytes_come_to_the_same_however_they_are_cut(parts: list[bytes], steps: list[int]) -> None:
    data = b"".join(parts)
    whole = _outcome(data, [len(data) or 1])
    assert _outcome(data, [1]) == whole
    assert _outcome(data, steps) == whole


def _outcome(data: bytes, steps: list[int]) -> object:
    reader = ChunkedReader()
    payload, at, turn = b"", 0, 0
    try:
        while at < len(data) and not reader.done:
            pieces, taken = reader.feed(data[at : at + steps[turn % len(steps)]])
            payload += b"".join(pieces)
            at += taken
            turn += 1
    except HttpSyntaxError:
        return "refused"
    return payload, reader.done, reader.trailers, at if reader.done else 0
