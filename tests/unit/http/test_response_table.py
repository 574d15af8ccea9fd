"""Response heads, case by case: what is taken, how long the body is, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.errors import HttpSyntaxError
from mesh.http.limits import HeadLimits
from mesh.http.response import BodyKind, ResponseHead, find_response_head, parse_response_head

pytestmark = pytest.mark.unit


def _head(first: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([first, *lines]) + b"\r\n\r\n"


def _200(*lines: bytes) -> bytes:
    return _head(b"HTTP/1.1 200 OK", *lines)


TAKEN = [
    ("no reason", _head(b"HTTP/1.1 200"), {"status": 200, "reason": b""}),
    ("empty reason", _head(b"HTTP/1.1 200 "), {"status": 200, "reason": b""}),
    ("reason with spaces", _head(b"HTTP/1.1 418 I'm a  teapot"), {"reason": b"I'm a  teapot"}),
    ("reason with latin-1", _head(b"HTTP/1.1 200 \xe4"), {"reason": b"\xe4"}),
    ("unknown status", _head(b"HTTP/1.1 599 X"), {"status": 599}),
    ("1.0", _head(b"HTTP/1.0 200 OK"), {"minor": 0, "keep_alive": False}),
    ("higher minor version", _head(b"HTTP/1.2 200 OK"), {"minor": 1, "keep_alive": True, "status": 200}),
    ("1.0 keep-alive", _head(b"HTTP/1.0 200 OK", b"Connection: Keep-Alive"), {"keep_alive": True}),
    ("close", _200(b"Connection: close"), {"keep_alive": False}),
    ("length", _200(b"Content-Length: 3"), {"content_length": 3, "chunked": False, "kept_lines": []}),
    ("no length", _200(), {"content_length": -1}),
    ("chunked", _200(b"Transfer-Encoding: Chunked"), {"chunked": True, "content_length": -1}),
    ("204 with length zero", _head(b"HTTP/1.1 204 X", b"Content-Length: 0"), {"content_length": 0}),
    ("304 with a length", _head(b"HTTP/1.1 304 X", b"Content-Length: 9"), {"content_length": 9}),
    ("hop-by-hop", _200(b"Keep-Alive: 5", b"Upgrade: h2c", b"TE: x", b"A: b"), {"kept_lines": [b"A: b"], "upgrade": b"h2c"}),
    ("nominated", _200(b"Connection: x-hop, content-type", b"X-Hop: 1", b"Content-Type: t"), {"kept_lines": [b"Content-Type: t"]}),
    ("for a proxy further on", _200(b"Proxy-Authenticate: Basic"), {"kept_lines": [b"Proxy-Authenticate: Basic"]}),
    ("trailer is announced", _200(b"Trailer: X-Sum"), {"kept_lines": [b"Trailer: X-Sum"]}),
    ("server and date", _200(b"Server: s", b"DATE: d"), {"has_server": True, "has_date": True, "kept_lines": [b"Server: s", b"DATE: d"]}),
    ("repeated", _200(b"Set-Cookie: a", b"Set-Cookie: b"), {"kept_lines": [b"Set-Cookie: a", b"Set-Cookie: b"]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "fields"), TAKEN, ids=[case[0] for case in TAKEN])
def test_legal_head(name: str, text: bytes, fields: dict[str, object]) -> None:
    assert find_response_head(text) == len(text)
    head = parse_response_head(text)
    assert {field: getattr(head, field) for field in fields} == fields


REFUSED = [
    (_head(b"HTTP/1.1  200 OK"), "bad-status-line"),
    (_head(b"HTTP/1.1 200OK"), "bad-status-line"),
    (_head(b"HTTP/1.1 600 X"), "bad-status-line"),
    (_head(b"HTTP/1.1 +20 X"), "bad-status-line"),
    (_head(b"HTTP/1.x 200 OK"), "bad-status-line"),
    (_head(b"HTTP/1.10 200 OK"), "bad-status-line"),
    (_head(b"http/1.1 200 OK"), "bad-status-line"),
    (_head(b"HTTP/1.1 204 X", b"Content-Length: 3"), "body-not-allowed"),
    (_head(b"HTTP/1.1 204 X", b"Transfer-Encoding: chunked"), "body-not-allowed"),
    (_head(b"HTTP/1.1 103 X", b"Content-Length: 3"), "body-not-allowed"),
    (_head(b"HTTP/1.1 100 X", b"Transfer-Encoding: chunked"), "body-not-allowed"),
    (_200(b"Content-Length: 3", b"Content-Length: 3"), "conflicting-content-length"),
    (_200(b"Content-Length: 3, 3"), "bad-content-length"),
    (_200(b"Content-Length: -3"), "bad-content-length"),
    (_200(b"Content-Length: 3", b"Transfer-Encoding: chunked"), "length-and-chunked"),
    (_200(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), "bad-transfer-encoding"),
    (_200(b"Transfer-Encoding: chunked, gzip"), "bad-transfer-encoding"),
    (_200(b"X: a", b" folded: b"), "obs-fold"),
    (_200(b"X: a\rb"), "bare-cr"),
    (_200(b": a"), "bad-header-name"),
    (_200(b"nocolon"), "bad-header-line"),
    (_200(*[b"X: y"] * 101), "too-many-headers"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=[f"{n}-{case[1]}" for n, case in enumerate(REFUSED)])
def test_refused_head(text: bytes, reason: str) -> None:
    with pytest.raises(HttpSyntaxError) as caught:
        parse_response_head(text)
    assert caught.value.reason == reason


def _parsed(status: bytes, *lines: bytes) -> ResponseHead:
    return parse_response_head(_head(b"HTTP/1.1 " + status, *lines))


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
@pytest.mark.parametrize("status", [b"200", b"204", b"304", b"404", b"500"])
def test_body_kind_by_method_and_status(method: bytes, status: bytes) -> None:
    bodiless = method == b"HEAD" or status in (b"204", b"304")
    assert _parsed(status, b"Content-Length: 0").body_kind(method) is BodyKind.NONE
    assert _parsed(status).body_kind(method) is (BodyKind.NONE if bodiless else BodyKind.UNTIL_CLOSE)
    if status != b"204":
        kind = BodyKind.NONE if bodiless else BodyKind.LENGTH
        assert _parsed(status, b"Content-Length: 7").body_kind(method) is kind
        kind = BodyKind.NONE if bodiless else BodyKind.CHUNKED
        assert _parsed(status, b"Transfer-Encoding: chunked").body_kind(method) is kind


def test_head_limit_is_exact() -> None:
    text = _200(b"X: y")
    assert find_response_head(text, HeadLimits(max_head_bytes=len(text))) == len(text)
    for data in (text, text + b"body", text[:-1]):
        with pytest.raises(HttpSyntaxError):
            find_response_head(data, HeadLimits(max_head_bytes=len(text) - 2))


_PARTS = st.sampled_from(
    [b"HTTP/1.1 ", b"HTTP/1.0 ", b"200", b"204", b"100", b" OK", b"\r\n", b"\n", b"\r", b"Content-Length: 3", b"X: y", b": ", b" ",
     b"Transfer-Encoding: chunked", b"Connection: close", b"\0"]
)  # fmt: skip


@given(parts=st.lists(_PARTS, max_size=12))
def test_whole_and_byte_by_byte_are_one(parts: list[bytes]) -> None:
    text = b"".join(parts)
    byte_by_byte = next((found for n in range(len(text) + 1) if (found := _outcome(text[:n])) != "more"), "more")
    assert byte_by_byte == _outcome(text)


def _outcome(text: bytes) -> object:
    try:
        end = find_response_head(text)
        if end < 0:
            return "more"
        head = parse_response_head(text[:end])
    except HttpSyntaxError:
        return "refused"
    return end, head.status, head.kept_lines, head.content_length


@given(text=st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_otherwise(text: bytes) -> None:
    _outcome(text)
    _outcome(b"HTTP/1.1 200 OK\r\n" + text + b"\r\n\r\n")
