"""Fuzzing of the whole way through the sidecar: however the bytes are cut, both ends understand the same, and nothing breaks."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.http.path import EscapedSlashes
from sidecar.config import HttpFilter, UnderscoreAction
from tests.unit.sidecar.pipeline import OK, Outcome, at_random, bytewise, run, whole

pytestmark = pytest.mark.unit

PLAIN = HttpFilter(route_table="t", generate_request_id=False)
STRICT = HttpFilter(
    route_table="t",
    generate_request_id=False,
    use_remote_address=True,
    normalize_path=True,
    merge_slashes=True,
    escaped_slashes=EscapedSlashes.UNESCAPE_AND_FORWARD,
    underscores=UnderscoreAction.DROP,
    via="me",
    max_requests_per_connection=3,
)

_HEADERS = st.lists(
    st.sampled_from(
        [b"X: y", b"Connection: close", b"Connection: keep-alive", b"Connection: x", b"TE: trailers", b"Expect: 100-continue",
         b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"tracestate: a=1,,b=2", b"a_b: c",
         b"X-Forwarded-For: 1.2.3.4", b"Upgrade: h2c", b"Cookie: a=b", b"X-Request-Id: r"]
    ),
    max_size=3,
)  # fmt: skip
_TARGETS = st.sampled_from([b"/", b"/a?b=c", b"/a/../b", b"/a%2fb", b"//x", b"http://b.example/c", b"/%00"])
_BODIES = st.sampled_from(
    [(b"GET", b"", b""), (b"HEAD", b"", b""), (b"OPTIONS", b"", b""), (b"POST", b"Content-Length: 3\r\n", b"abc"),
     (b"PUT", b"Content-Length: 0\r\n", b""), (b"POST", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n"),
     (b"POST", b"Transfer-Encoding: chunked\r\n", b"2\r\nab\r\n0\r\nT: 1\r\n\r\n"), (b"GET", b"Content-Length: 4\r\n", b"GET ")]
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method, framing, body = draw(_BODIES)
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    lines = b"".join(line + b"\r\n" for line in draw(_HEADERS))
    return method + b" " + draw(_TARGETS) + b" HTTP/" + version + b"\r\nHost: a\r\n" + framing + lines + b"\r\n" + body


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Pipelined requests, in one of two cases with a few bytes broken."""
    data = bytearray(b"".join(draw(st.lists(requests(), min_size=1, max_size=4))))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 3]))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b"5", b"a"])
        )
    return bytes(data)


ANSWERS = st.lists(
    st.sampled_from(
        [OK, OK, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n",
         b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil close",
         b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 200 OK\nX: y\n\n", b"SSH-2.0\r\n\r\n",
         b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc"]
    ),
    max_size=4,
)  # fmt: skip


_HEAD = re.compile(rb"((?:HTTP/1\.1 |[^\r\n]* HTTP/1\.1)[^\r\n]*\r\n)((?:[^\r\n:]+:[^\r\n]*\r\n)*)\r\n")
_REFUSAL = re.compile(
    rb"HTTP/1\.1 [45]\d\d [^\r]+\r\nserver: meshwork\r\n((?:(?:via|connection): [^\r]+\r\n)*)content-length: \d+\r\n"
    rb"content-type: text/plain; charset=utf-8\r\n((?:connection: [a-z-]+\r\n)?)\r\n(?:(?!HTTP/1)[^\n]*\n)?"
)


def _with_plain_heads(data: bytes, count: int = 0) -> bytes:
    def plain(head: re.Match[bytes]) -> bytes:
        return head[1] + b"\r\n".join([*sorted(head[2].lower().split(b"\r\n")[:-1]), b"", b""])

    return _HEAD.sub(plain, data, count=count)


def comparable(outcome: Outcome) -> tuple[bytes, bool, list[bytes]]:
    """Chunk boundaries may fall anywhere, what is in the chunks may not. Of several things that are wrong any may be named.

    Header lines may be spelled as they came or anew, and stand in any order.
    """
    to_client = _REFUSAL.sub(rb"(refused \1\2)", outcome.to_client)
    to_client = _with_plain_heads(to_client)
    parts = []
    while (start := re.search(rb"transfer-encoding: chunked\r\n(?:[^\r]+\r\n)*\r\n", to_client)) is not None:
        parts.append(to_client[: start.end()])
        to_client = to_client[start.end() :]
        while (line := re.match(rb"([0-9a-f]+)\r\n", to_client)) is not None and line[1] != b"0":
            size = int(line[1], 16)
            parts.append(to_client[line.end() : line.end() + size])
            to_client = to_client[line.end() + size + 2 :]
    requests = [_with_plain_heads(request, count=1) for request in outcome.requests]
    return b"".join(parts) + to_client, outcome.is_over, requests


@settings(deadline=None, max_examples=150)
@given(data=streams(), answers=ANSWERS, seed=st.integers(0, 999), is_strict=st.booleans())
def test_any_cut_of_both_streams_comes_to_the_same(
    data: bytes, answers: list[bytes], seed: int, is_strict: bool
) -> None:
    http = STRICT if is_strict else PLAIN
    want = comparable(run([data], answers, http=http, cut=whole))
    assert comparable(run(bytewise(data), answers, http=http, cut=bytewise)) == want
    assert comparable(run(at_random(seed)(data), answers, http=http, cut=at_random(seed + 1))) == want


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=200), answer=st.binary(max_size=200))
def test_no_bytes_break_the_connections(data: bytes, answer: bytes) -> None:
    run(whole(data), [], http=PLAIN, cut=whole)
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for cut in (whole, bytewise):
        run([request, request], [answer, b"HTTP/1.1 200 OK\r\n" + answer], http=PLAIN, cut=cut)
