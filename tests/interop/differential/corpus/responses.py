"""What the upstream answers, from good to broken."""

from tests.interop.differential.case import OK, Case, case, get, post


def _answer(first: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([first, b"X-Up: 1", *lines]) + b"\r\n\r\n" + body


_200 = b"HTTP/1.1 200 OK"
_CHUNKED = b"Transfer-Encoding: chunked"


def _chunked(body: bytes, *lines: bytes) -> bytes:
    return _answer(_200, _CHUNKED, *lines, body=body)


RESPONSES: tuple[Case, ...] = (
    case("answer length", get(), answer=_answer(_200, b"Content-Length: 3", body=b"abc")),
    case("answer length zero", get(), answer=_answer(_200, b"Content-Length: 0")),
    case("answer chunked", get(), answer=_chunked(b"3\r\nabc\r\n0\r\n\r\n")),
    case("answer chunked with extensions", get(), answer=_chunked(b"3;x=y\r\nabc\r\n0\r\n\r\n")),
    case("answer chunked with trailers", get(b"TE: trailers"), answer=_chunked(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", b"Trailer: X-Sum")),
    case("answer chunked with a bad chunk", get(), answer=_chunked(b"zz\r\nabc\r\n0\r\n\r\n")),
    case("answer chunked cut off", get(), answer=_chunked(b"3\r\nabc\r\n"), closes=True),
    case("answer until close", get(), answer=_answer(_200, body=b"abc"), closes=True),
    case("answer until close of http 1.0", get(), answer=_answer(b"HTTP/1.0 200 OK", body=b"abc"), closes=True),
    case("answer http 1.0 with a length", get(), answer=_answer(b"HTTP/1.0 200 OK", b"Content-Length: 3", body=b"abc")),
    case("answer http 1.0 chunked", get(), answer=_answer(b"HTTP/1.0 200 OK", _CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"), closes=True),
    case("answer length too short", get(), answer=_answer(_200, b"Content-Length: 2", body=b"abc")),
    case("answer length too long", get(), answer=_answer(_200, b"Content-Length: 5", body=b"abc"), closes=True),
    case("answer length twice", get(), answer=_answer(_200, b"Content-Length: 3", b"Content-Length: 3", body=b"abc")),
    case("answer length twice different", get(), answer=_answer(_200, b"Content-Length: 3", b"Content-Length: 2", body=b"abc")),
    case("answer length negative", get(), answer=_answer(_200, b"Content-Length: -3", body=b"abc")),
    case("answer length and chunked", get(), answer=_answer(_200, b"Content-Length: 3", _CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n")),
    case("answer coding gzip", get(), answer=_answer(_200, b"Transfer-Encoding: gzip", body=b"abc"), closes=True),
    case("answer head", get(method=b"HEAD"), answer=_answer(_200, b"Content-Length: 3")),
    case("answer head chunked", get(method=b"HEAD"), answer=_answer(_200, _CHUNKED)),
    case("answer head with a body", get(method=b"HEAD"), answer=_answer(_200, b"Content-Length: 3", body=b"abc")),
    case("answer head without length", get(method=b"HEAD"), answer=_answer(_200)),
    case("answer 204", get(), answer=_answer(b"HTTP/1.1 204 No Content")),
    case("answer 204 with length zero", get(), answer=_answer(b"HTTP/1.1 204 No Content", b"Content-Length: 0")),
    case("answer 204 with length", get(), answer=_answer(b"HTTP/1.1 204 No Content", b"Content-Length: 3", body=b"abc")),
    case("answer 204 chunked", get(), answer=_answer(b"HTTP/1.1 204 No Content", _CHUNKED, body=b"0\r\n\r\n")),
    case("answer 205", get(), answer=_answer(b"HTTP/1.1 205 Reset Content", b"Content-Length: 0")),
    case("answer 304", get(), answer=_answer(b"HTTP/1.1 304 Not Modified")),
    case("answer 304 with length", get(), answer=_answer(b"HTTP/1.1 304 Not Modified", b"Content-Length: 3")),
    case("answer 304 with a body", get(), answer=_answer(b"HTTP/1.1 304 Not Modified", b"Content-Length: 3", body=b"abc")),
    case("answer 100 then 200", post(b"Content-Length: 2", body=b"hi"), answer=b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    case("answer 102 then 200", get(), answer=b"HTTP/1.1 102 Processing\r\n\r\n" + OK),
    case("answer 103 then 200", get(), answer=b"HTTP/1.1 103 Early Hints\r\nX-Up: 1\r\nLink: </a>\r\n\r\n" + OK),
    case("answer 103 with a length", get(), answer=b"HTTP/1.1 103 Early Hints\r\nX-Up: 1\r\nContent-Length: 2\r\n\r\n" + OK),
    case("answer 103 to http 1.0", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", answer=b"HTTP/1.1 103 Early Hints\r\nX-Up: 1\r\n\r\n" + OK),
    case("answer 100 forty times", get(), answer=b"HTTP/1.1 100 Continue\r\n\r\n" * 40 + OK),
    case("answer two", get(), answer=OK + OK),
    case("answer with bytes behind", get(), answer=OK + b"junk"),
    case("answer closes", get(), answer=_answer(_200, b"Connection: close", b"Content-Length: 3", body=b"abc"), closes=True),
    case("answer hop-by-hop", get(), answer=_answer(_200, b"Connection: x-hop, keep-alive", b"X-Hop: 1", b"Keep-Alive: 5",
         b"Proxy-Authenticate: x", b"Upgrade: h2c", b"Content-Length: 3", body=b"abc")),
    case("answer connection names content-type", get(), answer=_answer(_200, b"Connection: content-type", b"Content-Type: t",
         b"Content-Length: 3", body=b"abc")),
    case("answer status 99", get(), answer=_answer(b"HTTP/1.1 99 Low", b"Content-Length: 0")),
    case("answer status 600", get(), answer=_answer(b"HTTP/1.1 600 High", b"Content-Length: 0")),
    case("answer status 999", get(), answer=_answer(b"HTTP/1.1 999 High", b"Content-Length: 0")),
    case("answer status of two digits", get(), answer=_answer(b"HTTP/1.1 20 OK", b"Content-Length: 0")),
    case("answer status not a number", get(), answer=_answer(b"HTTP/1.1 abc OK", b"Content-Length: 0")),
    case("answer without reason", get(), answer=_answer(b"HTTP/1.1 200", b"Content-Length: 0")),
    case("answer empty reason", get(), answer=_answer(b"HTTP/1.1 200 ", b"Content-Length: 0")),
    case("answer own reason", get(), answer=_answer(b"HTTP/1.1 200 Fine by me", b"Content-Length: 0")),
    case("answer reason with latin-1", get(), answer=_answer(b"HTTP/1.1 200 \xe4", b"Content-Length: 0")),
    case("answer version 2.0", get(), answer=_answer(b"HTTP/2.0 200 OK", b"Content-Length: 0")),
    case("answer version 1.2", get(), answer=_answer(b"HTTP/1.2 200 OK", b"Content-Length: 0")),
    case("answer not http", get(), answer=b"SSH-2.0-OpenSSH_9\r\n", closes=True),
    case("answer nothing", get(), answer=b"", closes=True),
    case("answer half a head", get(), answer=b"HTTP/1.1 200 OK\r\nX-U", closes=True),
    case("answer empty line first", get(), answer=b"\r\n" + OK),
    case("answer with LF", get(), answer=b"HTTP/1.1 200 OK\nX-Up: 1\nContent-Length: 0\n\n"),
    case("answer header folded", get(), answer=_answer(_200, b"X: a", b" b", b"Content-Length: 0")),
    case("answer header with NUL", get(), answer=_answer(_200, b"X: a\0b", b"Content-Length: 0")),
    case("answer header with a space before colon", get(), answer=_answer(_200, b"X : a", b"Content-Length: 0")),
    case("answer header without colon", get(), answer=_answer(_200, b"nocolon", b"Content-Length: 0")),
    case("answer header with utf-8", get(), answer=_answer(_200, "X: ä".encode(), b"Content-Length: 0")),
    case("answer headers 101", get(), answer=_answer(_200, *[b"X-%d: v" % n for n in range(100)], b"Content-Length: 0")),
    case("answer header of 50000 bytes", get(), answer=_answer(_200, b"X: " + b"v" * 50000, b"Content-Length: 0")),
    case("answer header of 70000 bytes", get(), answer=_answer(_200, b"X: " + b"v" * 70000, b"Content-Length: 0")),
    case("answer set-cookie twice", get(), answer=_answer(_200, b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"Content-Length: 0")),
    case("answer server and date", get(), answer=_answer(_200, b"Server: mine", b"Date: mine", b"Content-Length: 0")),
    case("answer via", get(), answer=_answer(_200, b"Via: 1.1 other", b"Content-Length: 0"), listener="via"),
    case("answer 500", get(), answer=_answer(b"HTTP/1.1 500 Oops", b"Content-Length: 3", body=b"abc")),
    case("answer 503 to POST", post(b"Content-Length: 2", body=b"hi"), answer=_answer(b"HTTP/1.1 503 Busy", b"Content-Length: 0")),
    case("answer 200 with upgrade header", get(), answer=_answer(_200, b"Upgrade: websocket", b"Content-Length: 0")),
    case("answer 413 early and closes", post(b"Content-Length: 100000", body=b"x" * 50000), answers_early=True, closes=True,
         answer=_answer(b"HTTP/1.1 413 Too Large", b"Connection: close", b"Content-Length: 3", body=b"abc")),
)  # fmt: skip
