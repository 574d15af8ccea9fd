"""Response heads: framing by status and method, and what is refused."""

import pytest

from mesh.http.errors import HttpSyntaxError
from mesh.http.response import BodyKind, find_response_head, parse_response_head

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("method", "status", "headers", "kind"),
    [
        (b"GET", b"200", b"Content-Length: 5\r\n", BodyKind.LENGTH),
        (b"GET", b"200", b"Content-Length: 0\r\n", BodyKind.NONE),
        (b"GET", b"200", b"Transfer-Encoding: chunked\r\n", BodyKind.CHUNKED),
        (b"GET", b"200", b"", BodyKind.UNTIL_CLOSE),
        (b"HEAD", b"200", b"Content-Length: 5\r\n", BodyKind.NONE),
        (b"HEAD", b"200", b"Transfer-Encoding: chunked\r\n", BodyKind.NONE),
        (b"GET", b"204", b"", BodyKind.NONE),
        (b"GET", b"304", b"Content-Length: 5\r\n", BodyKind.NONE),
        (b"GET", b"100", b"", BodyKind.NONE),
    ],
)
def test_body_kind(method: bytes, status: bytes, headers: bytes, kind: BodyKind) -> None:
    head = parse_response_head(b"HTTP/1.1 " + status + b" X\r\n" + headers + b"\r\n")
    assert head.body_kind(method) is kind


def test_head_is_taken_apart() -> None:
    head = parse_response_head(
        b"HTTP/1.1 200 All Good\r\nServer: s\r\nDate: d\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nA: b\r\n\r\n"
    )
    assert (head.status, head.reason, head.keep_alive, head.has_server, head.has_date) == (
        200,
        b"All Good",
        False,
        True,
        True,
    )
    assert head.kept_lines == [b"Server: s", b"Date: d", b"A: b"]
    assert parse_response_head(b"HTTP/1.0 200\r\n\r\n").keep_alive is False


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\tA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
    ],
)
def test_broken_heads_are_refused(text: bytes) -> None:
    with pytest.raises(HttpSyntaxError):
        parse_response_head(text[: find_response_head(text)])


def test_an_answer_that_is_not_http_is_refused_before_it_is_complete() -> None:
    assert find_response_head(b"HTT") == -1
    with pytest.raises(HttpSyntaxError):
        find_response_head(b"SSH-2.0")
    with pytest.raises(HttpSyntaxError):
        find_response_head(b"HTTP/1.1 200 OK\nA: b\n")
    with pytest.raises(HttpSyntaxError):
        find_response_head(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 11000)
