"""Request heads: what is taken, what is refused and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.errors import HttpSyntaxError
from mesh.http.limits import HeadLimits
from mesh.http.request import RequestHead, find_request_head, parse_request_head

pytestmark = pytest.mark.unit


def parse(text: bytes) -> RequestHead:
    end = find_request_head(text)
    assert end > 0
    return parse_request_head(text[:end])


def parse_growing(text: bytes) -> None:
    """As a connection sees it that gets one byte at a time."""
    for size in range(1, len(text) + 1):
        end = find_request_head(text[:size])
        if end > 0:
            parse_request_head(text[:end])


def test_plain_request_is_taken_apart() -> None:
    head = parse(b"GET /a/b?x=1 HTTP/1.1\r\nHost: Shop.Example:80\r\nAccept: */*\r\nX-Tag:  a b \r\n\r\nrest")
    assert (head.method, head.target, head.path, head.query) == (b"GET", b"/a/b?x=1", b"/a/b", b"x=1")
    assert head.authority == b"shop.example:80"
    assert head.keep_alive
    assert not head.has_body
    assert head.kept_lines == [b"Accept: */*", b"X-Tag:  a b "]
    assert head.header(b"x-tag") == b"a b"
    assert head.header(b"absent") is None


def test_repeated_headers_join_with_comma() -> None:
    assert parse(b"GET / HTTP/1.1\r\nhost: a\r\nX: 1\r\nx: 2\r\n\r\n").header(b"x") == b"1,2"


@pytest.mark.parametrize(
    ("target", "authority", "origin"),
    [
        (b"http://a.example/x?y", b"a.example", b"/x?y"),
        (b"HTTP://a.example:81", b"a.example:81", b"/"),
        (b"http://a.example?q=1", b"a.example", b"/?q=1"),
    ],
)
def test_absolute_target_replaces_the_host(target: bytes, authority: bytes, origin: bytes) -> None:
    head = parse(b"GET " + target + b" HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (head.authority, head.target) == (authority, origin)


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Keep-Alive, Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
    ],
)
def test_keep_alive_follows_version_and_connection(version: bytes, connection: bytes, keeps: bool) -> None:
    assert parse(b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + connection + b"\r\n").keep_alive is keeps


def test_hop_by_hop_and_nominated_headers_are_not_kept() -> None:
    head = parse(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-secret, keep-alive\r\nX-Secret: 1\r\nTE: gzip\r\n"
        b"Proxy-Connection: close\r\nKeep-Alive: timeout=5\r\nX-Forwarded-Client-Cert: By=spiffe://evil\r\nA: b\r\n\r\n"
    )
    assert head.kept_lines == [b"A: b"]


def test_upgrade_needs_connection_to_name_it() -> None:
    assert parse(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n").upgrade == b""
    named = parse(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n")
    assert named.upgrade == b"websocket"


def test_body_framing() -> None:
    assert parse(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n").content_length == 12
    chunked = parse(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n")
    assert chunked.chunked
    assert chunked.content_length == -1


REFUSED = [
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "length-and-chunked"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "conflicting-content-length"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, "conflicting-content-length"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400, "bad-content-length"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400, "bad-content-length"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400, "bad-content-length"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400, "bad-content-length"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", 400, "bad-content-length"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "bad-transfer-encoding"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501,
     "bad-transfer-encoding"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501, "bad-transfer-encoding"),
    (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "chunked-in-1.0"),
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bare-lf"),
    (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400, "bare-lf"),
    (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, "bare-cr"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n", 400, "bad-header-line"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\tX: b\r\n\r\n", 400, "obs-fold"),
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "space-before-colon"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, "bad-header-name"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n", 400, "bad-header-name"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, "control-character"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", 400, "control-character"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", 400, "bad-header-line"),
    (b"GET / HTTP/1.1\r\n\r\n", 400, "bad-host"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "bad-host"),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad-host"),
    (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, "bad-host"),
    (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-method"),
    (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "control-character"),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request-line"),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "bad-request-line"),
    (b"GET /\r\nHost: a\r\n\r\n", 400, "bad-request-line"),
    (b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
    (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
    (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
    (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
    (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-host"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "bad-version"),
    (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400, "bad-version"),
    (b"PRI * HTTP/2.0\r\n\r\n", 505, "bad-version"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417, "bad-expect"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "status", "reason"), REFUSED, ids=[f"{n}-{case[2]}" for n, case in enumerate(REFUSED)]
)
def test_ambiguous_or_broken_heads_are_refused(text: bytes, status: int, reason: str) -> None:
    with pytest.raises(HttpSyntaxError) as caught:
        parse(text)
    assert (caught.value.status, caught.value.reason) == (status, reason)


@pytest.mark.parametrize(
    ("text", "status", "reason"), REFUSED, ids=[f"{n}-{case[2]}" for n, case in enumerate(REFUSED)]
)
def test_refused_heads_are_refused_byte_by_byte_too(text: bytes, status: int, reason: str) -> None:
    with pytest.raises(HttpSyntaxError):
        parse_growing(text)


def test_long_request_line_is_414() -> None:
    for text in (b"GET /" + b"a" * 8200, b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\nHost: a\r\n\r\n"):
        with pytest.raises(HttpSyntaxError) as caught:
            find_request_head(text)
        assert caught.value.status == 414


def test_large_head_is_431_before_it_is_complete() -> None:
    with pytest.raises(HttpSyntaxError) as caught:
        find_request_head(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 11000)
    assert caught.value.status == 431


def test_too_many_headers_are_431() -> None:
    text = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 4 + b"\r\n"
    parse_request_head(text, HeadLimits(max_header_count=5))
    with pytest.raises(HttpSyntaxError) as caught:
        parse_request_head(text, HeadLimits(max_header_count=4))
    assert caught.value.status == 431


def test_bare_lf_head_is_refused_at_once_not_waited_for() -> None:
    with pytest.raises(HttpSyntaxError):
        find_request_head(b"GET / HTTP/1.1\nHost: a\n\n")


_NAMES = st.text("abcdefgXYZ-_.!#", min_size=1, max_size=12).map(str.encode)
_VALUES = st.binary(max_size=30).map(lambda value: bytes(c for c in value if c in range(0x20, 0x7F)).strip())


@given(headers=st.lists(st.tuples(_NAMES, _VALUES), max_size=10), tail=st.binary(max_size=20))
def test_any_legal_headers_survive_and_trailing_bytes_do_not_matter(
    headers: list[tuple[bytes, bytes]], tail: bytes
) -> None:
    text = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(n + b": " + v + b"\r\n" for n, v in headers) + b"\r\n"
    end = find_request_head(text + tail)
    assert end == len(text)
    head = parse_request_head(text[:end])
    for name, _ in headers:
        want = b",".join(v for n, v in headers if n.lower() == name.lower())
        assert head.header(name.lower()) == want


@given(text=st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_otherwise(text: bytes) -> None:
    try:
        end = find_request_head(text)
        if end > 0:
            parse_request_head(text[:end])
    except HttpSyntaxError:
        pass
