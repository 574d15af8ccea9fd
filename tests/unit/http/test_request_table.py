"""What becomes of unusual but legal request heads: the contract of the parser, case by case."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.errors import HttpSyntaxError
from mesh.http.limits import HeadLimits
from mesh.http.request import RequestHead, find_request_head, parse_request_head

pytestmark = pytest.mark.unit


def parse(text: bytes) -> RequestHead:
    end = find_request_head(text)
    assert end == len(text)
    return parse_request_head(text)


@dataclass(frozen=True)
class Want:
    """A head, and those of its fields that matter."""

    name: str
    head: bytes
    fields: dict[str, object] = field(default_factory=dict)


def _line(line: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([line, *(headers or (b"Host: a",))]) + b"\r\n\r\n"


def _get(*headers: bytes) -> bytes:
    return _line(b"GET / HTTP/1.1", b"Host: a", *headers)


LINES = [
    Want("method of its own", _line(b"M-SEARCH /x HTTP/1.1"), {"method": b"M-SEARCH", "path": b"/x"}),
    Want("method in lower case", _line(b"get / HTTP/1.1"), {"method": b"get"}),
    Want("higher minor version", _line(b"GET / HTTP/1.7"), {"minor": 1, "keep_alive": True}),
    Want("1.0", _line(b"GET / HTTP/1.0"), {"minor": 0, "keep_alive": False}),
    Want("1.0 without host", b"GET / HTTP/1.0\r\n\r\n", {"authority": b""}),
    Want("asterisk", _line(b"OPTIONS * HTTP/1.1"), {"target": b"*", "path": b"*", "query": None}),
    Want("empty query", _line(b"GET /a? HTTP/1.1"), {"target": b"/a?", "path": b"/a", "query": b""}),
    Want("query with ?", _line(b"GET /a?b?c HTTP/1.1"), {"path": b"/a", "query": b"b?c"}),
    Want("double slash", _line(b"GET //a HTTP/1.1"), {"target": b"//a", "authority": b"a"}),
    Want("escapes stay", _line(b"GET /%2e%2E/%00 HTTP/1.1"), {"target": b"/%2e%2E/%00"}),
    Want("absolute with ipv6", _line(b"GET http://[::1]:80/x HTTP/1.1"), {"authority": b"[::1]:80", "target": b"/x"}),
    Want("absolute https", _line(b"GET https://B/x HTTP/1.1"), {"authority": b"b", "target": b"/x"}),
    Want("absolute, slash in query", _line(b"GET http://b?x=/y HTTP/1.1"), {"authority": b"b", "target": b"/?x=/y"}),
    Want("absolute, empty host field", _line(b"GET http://b/ HTTP/1.1", b"Host:"), {"authority": b"b"}),
    Want("absolute in 1.0", b"GET http://b/x HTTP/1.0\r\n\r\n", {"authority": b"b", "target": b"/x"}),
    Want("connect", _line(b"CONNECT B:443 HTTP/1.1"),
         {"method": b"CONNECT", "target": b"B:443", "authority": b"b:443", "path": b"", "query": None}),
    Want("connect ipv6", _line(b"CONNECT [::1]:443 HTTP/1.1"), {"authority": b"[::1]:443"}),
    Want("empty host", _line(b"GET / HTTP/1.1", b"Host:"), {"authority": b""}),
    Want("host with tabs around", _line(b"GET / HTTP/1.1", b"Host:\t A.B \t"), {"authority": b"a.b"}),
    Want("host with sub-delimiters", _line(b"GET / HTTP/1.1", b"Host: a!$&'()*+,;=b"), {"authority": b"a!$&'()*+,;=b"}),
]  # fmt: skip

HEADERS = [
    Want("empty value", _get(b"X:"), {"kept_lines": [b"X:"]}),
    Want("obs-text", _get(b"X: \xe4\xff"), {"kept_lines": [b"X: \xe4\xff"]}),
    Want("tab inside", _get(b"X: a\tb"), {"kept_lines": [b"X: a\tb"]}),
    Want("colon in value", _get(b"X: a:b"), {"kept_lines": [b"X: a:b"]}),
    Want("every token character", _get(b"!#$%&'*+-.^_`|~09azAZ: v"), {"kept_lines": [b"!#$%&'*+-.^_`|~09azAZ: v"]}),
    Want("order and repetition", _get(b"B: 1", b"A: 2", b"b: 3"), {"kept_lines": [b"B: 1", b"A: 2", b"b: 3"]}),
    Want("length zero", _get(b"Content-Length: 0"), {"content_length": 0, "has_body": False, "chunked": False}),
    Want("length with zeros", _get(b"Content-Length: 0012"), {"content_length": 12}),
    Want("length with spaces around", _get(b"Content-Length: \t7 "), {"content_length": 7}),
    Want("longest length", _get(b"content-length: 999999999999999999"), {"content_length": 10**18 - 1}),
    Want("chunked behind a tab", _get(b"Transfer-Encoding:\tchunked"), {"chunked": True, "content_length": -1}),
    Want("connection empty", _get(b"Connection:"), {"keep_alive": True, "kept_lines": []}),
    Want("connection list with holes", _get(b"Connection: , ,x-a,", b"X-A: 1", b"X-B: 2"), {"kept_lines": [b"X-B: 2"]}),
    Want("connection twice", _get(b"Connection: x-a", b"Connection: x-b", b"X-A: 1", b"X-B: 1", b"C: 1"), {"kept_lines": [b"C: 1"]}),
    Want("close wins in any order", _get(b"Connection: close", b"Connection: keep-alive"), {"keep_alive": False}),
    Want("connection names what is for everybody",
         _get(b"Connection: authorization, cookie, content-type, x-forwarded-for, idempotency-key", b"Authorization: a",
              b"Cookie: c", b"Content-Type: t", b"X-Forwarded-For: 1.1.1.1", b"Idempotency-Key: k"),
         {"kept_lines": [b"Authorization: a", b"Cookie: c", b"Content-Type: t", b"Idempotency-Key: k"],
          "forwarded_for": b"1.1.1.1", "has_idempotency_key": True}),
    Want("connection names framing and host", _get(b"Connection: host, content-length", b"Content-Length: 5"),
         {"authority": b"a", "content_length": 5}),
    Want("connection names trace and id", _get(b"Connection: traceparent, x-request-id", b"traceparent: t", b"X-Request-Id: i"),
         {"traceparent": b"t", "request_id": b"i"}),
    Want("te trailers", _get(b"TE: Trailers"), {"kept_lines": [b"TE: Trailers"]}),
    Want("te of a coding", _get(b"TE: gzip"), {"kept_lines": []}),
    Want("te of a coding and trailers", _get(b"TE: gzip, trailers"), {"kept_lines": []}),
    Want("orders to a proxy", _get(b"X-Envoy-Max-Retries: 9", b"x-envoy-internal: true", b"x-envoy-attempt-count: 1"),
         {"kept_lines": [b"x-envoy-attempt-count: 1"]}),
    Want("hop-by-hop", _get(b"Keep-Alive: 5", b"Proxy-Connection: x", b"HTTP2-Settings: x", b"A: b"), {"kept_lines": [b"A: b"]}),
    Want("for a proxy further on", _get(b"Proxy-Authorization: Basic x"), {"kept_lines": [b"Proxy-Authorization: Basic x"]}),
    Want("identity", _get(b"X-Forwarded-Client-Cert: x", b"x-envoy-peer-metadata: y", b"X-Envoy-Peer-Metadata-Id: z"), {"kept_lines": []}),
    Want("expect", _get(b"Expect: 100-Continue"), {"expects_continue": True, "kept_lines": []}),
    Want("expect in 1.0", _line(b"GET / HTTP/1.0", b"Expect: 100-continue"), {"expects_continue": False}),
    Want("upgrade in 1.0", _line(b"GET / HTTP/1.0", b"Connection: upgrade", b"Upgrade: x"), {"upgrade": b"", "kept_lines": []}),
    Want("upgrade without a name", _get(b"Connection: upgrade"), {"upgrade": b""}),
    Want("forwarded-for twice", _get(b"X-Forwarded-For: a", b"x-forwarded-for: b"), {"forwarded_for": b"a, b", "kept_lines": []}),
    Want("forwarded-proto twice", _get(b"X-Forwarded-Proto: http", b"X-Forwarded-Proto: https"), {"forwarded_proto": b"http,https"}),
    Want("request id twice", _get(b"X-Request-Id: a", b"X-Request-Id: b"), {"request_id": b"a,b"}),
    Want("tracestate twice", _get(b"tracestate: a=1", b"TraceState: b=2"), {"tracestate": b"a=1,b=2"}),
    Want("traceparent twice", _get(b"traceparent: x", b"traceparent: x"), {"traceparent": b""}),
    Want("idempotency key", _get(b"Idempotency-Key: k"), {"has_idempotency_key": True, "kept_lines": [b"Idempotency-Key: k"]}),
]  # fmt: skip


@pytest.mark.parametrize("want", [*LINES, *HEADERS], ids=lambda want: want.name)
def test_legal_head(want: Want) -> None:
    head = parse(want.head)
    assert {name: getattr(head, name) for name in want.fields} == want.fields
    assert head.size_bytes == len(want.head)


REFUSED = [
    ("CONNECT / HTTP/1.1", 400, "bad-target"),
    ("CONNECT a HTTP/1.1", 400, "bad-target"),
    ("CONNECT :443 HTTP/1.1", 400, "bad-target"),
    ("CONNECT a:x HTTP/1.1", 400, "bad-target"),
    ("CONNECT http://a:1 HTTP/1.1", 400, "bad-host"),
    ("CONNECT u@a:1 HTTP/1.1", 400, "bad-host"),
    ("GET * HTTP/1.1", 400, "bad-target"),
    ("GET http://u@b/ HTTP/1.1", 400, "bad-host"),
    ("GET http:/b HTTP/1.1", 400, "bad-target"),
    ("GET http://?x HTTP/1.1", 400, "bad-host"),
    ("GET / HTTP/3.0", 505, "bad-version"),
    ("GET / HTTP/0.9", 505, "bad-version"),
    ("GET / HTTP/1.", 400, "bad-version"),
    ("GET / HTTP/1.10", 400, "bad-version"),
    ("GET / HTTP/01.1", 400, "bad-version"),
    ("GET / HTTP/1,1", 400, "bad-version"),
    ("GET / HTTP/a.1", 400, "bad-version"),
    ("GET / HTTP", 400, "bad-version"),
    ("GET  HTTP/1.1", 400, "bad-target"),
    (" / HTTP/1.1", 400, "bad-method"),
    ("GET,POST / HTTP/1.1", 400, "bad-method"),
]


@pytest.mark.parametrize(("line", "status", "reason"), REFUSED, ids=[case[0] for case in REFUSED])
def test_refused_line(line: str, status: int, reason: str) -> None:
    with pytest.raises(HttpSyntaxError) as caught:
        parse_request_head(_line(line.encode()))
    assert (caught.value.status, caught.value.reason) == (status, reason)


@pytest.mark.parametrize("byte", [bytes((n,)) for n in (*range(9), 11, 12, *range(14, 32), 127)])
def test_no_control_character_anywhere(byte: bytes) -> None:
    for text in (_line(b"GET /a" + byte + b"b HTTP/1.1"), _get(b"X: a" + byte), _get(b"X" + byte + b": a"), _get(byte)):
        with pytest.raises(HttpSyntaxError):
            parse_request_head(text)


@pytest.mark.parametrize("byte", [bytes((n,)) for n in b' "(),/:;<=>?@[\\]{}\x80\xff'])
def test_no_delimiter_in_a_name(byte: bytes) -> None:
    with pytest.raises(HttpSyntaxError):
        parse_request_head(_get(byte + b"X: a") if byte != b":" else _get(b": a"))


@pytest.mark.parametrize("header", [b"Content-Length: 1", b"Transfer-Encoding: chunked"])
def test_connect_has_no_body(header: bytes) -> None:
    with pytest.raises(HttpSyntaxError) as caught:
        parse_request_head(_line(b"CONNECT a:1 HTTP/1.1", b"Host: a:1", header))
    assert caught.value.reason == "body-of-connect"


@pytest.mark.parametrize(
    "line",
    [
        b"Transfer-Encoding: CHUNKED",
        b"Transfer-Encoding:chunked",
        b"Transfer-Encoding:\tchunked",
        b"transfer-encoding: chunked ",
    ],
)
def test_coding_that_is_spelled_oddly_is_not_sent_on_as_it_came(line: bytes) -> None:
    assert parse(_get(b"transfer-encoding: chunked")).is_verbatim
    assert not parse(_get(line)).is_verbatim


def test_limits_are_exact() -> None:
    line = b"GET /" + b"a" * 20 + b" HTTP/1.1"
    head = line + b"\r\nHost: a\r\n\r\n"
    at = HeadLimits(max_line_bytes=len(line), max_head_bytes=len(head), max_header_count=1)
    assert find_request_head(head, at) == len(head)
    parse_request_head(head, at)
    for limits, status in (
        (HeadLimits(max_line_bytes=len(line) - 1), 414),
        (HeadLimits(max_head_bytes=len(head) - 1), 431),
    ):
        for data in (head, head + b"next"):
            with pytest.raises(HttpSyntaxError) as caught:
                find_request_head(data, limits)
            assert caught.value.status == status
    with pytest.raises(HttpSyntaxError) as caught:
        parse_request_head(head, HeadLimits(max_header_count=0))
    assert caught.value.status == 431


_PARTS = st.sampled_from(
    [b"GET ", b"POST ", b"CONNECT ", b"/", b"*", b"http://a", b"?", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b"Host: a",
     b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Connection: close", b"Expect: 100-continue", b": ", b" ", b"\t", b"X", b"\0"]
)  # fmt: skip


@given(parts=st.lists(_PARTS, max_size=14), data=st.data())
def test_whole_and_in_pieces_are_one(parts: list[bytes], data: st.DataObject) -> None:
    """A head that is taken whole is taken in pieces, at the same place; one that is refused in pieces is never taken whole."""
    text = b"".join(parts)
    whole = _outcome(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    for size in [*cuts, len(text)]:
        grown = _outcome(text[:size])
        if grown != "more":
            assert (grown == whole) or (grown == "refused" and whole == "refused")
            break
    byte_by_byte = next((found for n in range(len(text) + 1) if (found := _outcome(text[:n])) != "more"), "more")
    assert byte_by_byte == whole


def _outcome(text: bytes) -> object:
    try:
        end = find_request_head(text)
        if end < 0:
            return "more"
        head = parse_request_head(text[:end])
    except HttpSyntaxError:
        return "refused"
    return end, head.method, head.target, head.kept_lines, head.content_length
