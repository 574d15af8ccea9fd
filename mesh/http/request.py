"""Request heads: strict parsing into what a proxy needs, with the other header lines left as bytes."""

from mesh.http.errors import HttpSyntaxError
from mesh.http.limits import DEFAULT_LIMITS, HeadLimits
from mesh.http.syntax import (
    AUTHORITIES,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    HOP_BY_HOP,
    HOST,
    IDEMPOTENCY_KEY,
    IDENTITY,
    NAMES,
    ORDINARY,
    REQUEST_ID,
    TOKEN_BYTES,
    TRACEPARENT,
    TRACESTATE,
    TRANSFER_ENCODING,
    UPGRADE,
    ConnectionOptions,
    check_authority,
    connection_options,
    parse_content_length,
    split_head,
    without,
)

_VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_KNOWN_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE"})


class RequestHead:
    """A request's head, checked. Written by `parse_request_head` only; read-only afterwards (it may be cached and shared).

    Byte strings hold what was on the wire without surrounding white space; None means absent.
    """

    __slots__ = (
        "authority",
        "chunked",
        "content_length",
        "expects_continue",
        "forwarded_for",
        "forwarded_proto",
        "has_idempotency_key",
        "header_lines",
        "keep_alive",
        "kept_lines",
        "method",
        "minor",
        "path",
        "query",
        "request_id",
        "size_bytes",
        "target",
        "traceparent",
        "tracestate",
        "upgrade",
    )
    method: bytes
    target: bytes
    """Origin form, `/path?query`, or `*`. An absolute target has been split into `authority` and this."""
    path: bytes
    """The target up to the `?`."""
    query: bytes | None
    authority: bytes
    """Lower case, with its port if it was given; empty for an HTTP/1.0 request without Host."""
    minor: int
    """The minor version: 0 or 1."""
    content_length: int
    """Body length; 0 when there is none, -1 when `chunked`."""
    chunked: bool
    keep_alive: bool
    """What the client asks for (RFC 9112 s9.3)."""
    expects_continue: bool
    upgrade: bytes
    """The protocol to switch to, lower case; empty unless Connection names it too."""
    request_id: bytes | None
    traceparent: bytes | None
    tracestate: bytes | None
    forwarded_for: bytes | None
    forwarded_proto: bytes | None
    has_idempotency_key: bool
    header_lines: list[bytes]
    """Every header line, in order."""
    kept_lines: list[bytes]
    """The lines that a proxy forwards as they are: not Host, framing, hop-by-hop, identity, or one of the fields
    above that a proxy writes itself (request id, trace, forwarded)."""
    size_bytes: int
    """Of the head on the wire."""

    @property
    def has_body(self) -> bool:
        return self.content_length != 0

    def header(self, name: bytes) -> bytes | None:
        """The values of a header (lower-case `name`) joined with a comma; None if it does not occur."""
        size = len(name)
        values = [
            line[size + 1 :].strip(b" \t")
            for line in self.header_lines
            if line[size : size + 1] == b":" and line[:size].lower() == name
        ]
        return b",".join(values) if values else None


def find_request_head(buffer: bytes | bytearray, limits: HeadLimits = DEFAULT_LIMITS) -> int:
    """Where the head at the start of `buffer` ends (just after its empty line), or -1 when more bytes are needed.

    Raises HttpSyntaxError as soon as the bytes so far can no longer become an acceptable head.
    """
    end = buffer.find(b"\r\n\r\n")
    if 0 <= end <= limits.max_line_bytes - 4 and end + 4 <= limits.max_head_bytes:
        return end + 4
    first_line_end = buffer.find(b"\r\n")
    if (first_line_end if first_line_end >= 0 else len(buffer)) > limits.max_line_bytes:
        raise HttpSyntaxError(414, "line-too-long", f"the request line is longer than {limits.max_line_bytes} bytes")
    if (end + 4 if end >= 0 else len(buffer)) > limits.max_head_bytes:
        raise HttpSyntaxError(431, "head-too-large", f"the header block is larger than {limits.max_head_bytes} bytes")
    if end >= 0:
        return end + 4
    if buffer and buffer[0] not in TOKEN_BYTES and buffer[:1] != b"\r":
        raise HttpSyntaxError(400, "bad-method", "the connection does not start with an HTTP method")
    if buffer.count(b"\n") != buffer.count(b"\r\n"):
        raise HttpSyntaxError(400, "bare-lf", "a line ends in LF without CR")
    return -1


def parse_request_head(block: bytes, limits: HeadLimits = DEFAULT_LIMITS) -> RequestHead:
    """Parse a head that ends in its empty line, as found by `find_request_head`.

    Raises HttpSyntaxError for anything that two parsers could read differently. Source: RFC 9112.
    """
    lines = split_head(block)
    head = RequestHead()
    head.size_bytes = len(block)
    _parse_request_line(lines[0], head)
    del lines[0]
    if len(lines) > limits.max_header_count:
        raise HttpSyntaxError(431, "too-many-headers", f"more than {limits.max_header_count} header lines")
    _parse_header_lines(lines, head)
    return head


def _parse_request_line(line: bytes, head: RequestHead) -> None:
    parts = line.split(b" ")
    if len(parts) != 3:
        raise HttpSyntaxError(400, "bad-request-line", "the request line is not METHOD SP TARGET SP VERSION")
    method, target, version = parts
    minor = _VERSIONS.get(version)
    if method not in _KNOWN_METHODS:
        _check_method(method, minor is not None)
    if minor is None:
        raise _bad_version(version)
    if not target.isascii() or b"\t" in target or b"#" in target:
        raise HttpSyntaxError(400, "bad-target", "the request target holds a character that is not allowed")
    head.method = method
    head.minor = minor
    head.authority = b""
    if target[:1] != b"/":
        target = _other_target_forms(target, head)
    head.target = target
    if b"?" in target:
        head.path, _, head.query = target.partition(b"?")
    else:
        head.path = target
        head.query = None


def _check_method(method: bytes, is_http: bool) -> None:
    if not method or method.translate(None, TOKEN_BYTES):
        raise HttpSyntaxError(400, "bad-method", "the method is not a token")
    if method == b"CONNECT" and is_http:
        raise HttpSyntaxError(405, "connect-refused", "CONNECT is not offered here: connect to the host itself")


def _bad_version(version: bytes) -> HttpSyntaxError:
    if len(version) == 8 and version.startswith(b"HTTP/") and version[5:6].isdigit() and version[6:7] == b".":
        if version[5:6] == b"1" and version[7:8].isdigit():
            return HttpSyntaxError(505, "bad-version", "this HTTP/1 minor version is not spoken here; use HTTP/1.1")
        return HttpSyntaxError(505, "bad-version", "this HTTP version is not spoken here; use HTTP/1.1")
    return HttpSyntaxError(400, "bad-version", "the request line does not end in an HTTP version")


def _other_target_forms(target: bytes, head: RequestHead) -> bytes:
    """Absolute form (to a proxy) and `*`. Returns the origin form."""
    if target == b"*" and head.method == b"OPTIONS":
        return target
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        raise HttpSyntaxError(400, "bad-target", "the request target is neither a path nor an http URL")
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    head.authority = check_authority(rest[:cut])
    origin = rest[cut:]
    return origin if origin[:1] == b"/" else b"/" + origin


def _parse_header_lines(lines: list[bytes], head: RequestHead) -> None:
    head.content_length = 0
    head.chunked = head.expects_continue = head.has_idempotency_key = False
    head.keep_alive = head.minor == 1
    head.upgrade = b""
    head.request_id = head.traceparent = head.tracestate = None
    head.forwarded_for = head.forwarded_proto = None
    head.header_lines = lines
    kept: list[bytes] = []
    seen_host: bytes | None = None
    options: ConnectionOptions | None = None
    upgrade = b""
    has_length = False
    kinds = NAMES.kinds
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise HttpSyntaxError(400, "bad-header-line", "a header line without a colon")
        kind = kinds.get(name)
        if kind is None:
            kind = NAMES.learn(name)
        if kind == ORDINARY:
            kept.append(line)
            continue
        value = value.strip(b" \t")
        if kind == HOST:
            if seen_host is not None:
                raise HttpSyntaxError(400, "bad-host", "more than one Host header")
            seen_host = value
        elif kind == REQUEST_ID:
            head.request_id = value
        elif kind == TRACEPARENT:
            # More than one is as good as none (Trace Context s3.2).
            head.traceparent = value if head.traceparent is None else b""
        elif kind == CONTENT_LENGTH:
            if has_length:
                raise HttpSyntaxError(400, "conflicting-content-length", "more than one Content-Length header")
            has_length = True
            head.content_length = parse_content_length(value)
        elif kind == TRANSFER_ENCODING:
            if head.chunked or value.lower() != b"chunked":
                raise HttpSyntaxError(501, "bad-transfer-encoding", "the only transfer coding spoken here is chunked")
            head.chunked = True
        elif kind == CONNECTION:
            found = connection_options(value)
            options = found if options is None else options | found
        elif kind == EXPECT:
            if value.lower() != b"100-continue":
                raise HttpSyntaxError(417, "bad-expect", "an expectation other than 100-continue")
            head.expects_continue = head.minor == 1
        elif kind == UPGRADE:
            upgrade = value.lower()
        elif kind == TRACESTATE:
            head.tracestate = value if head.tracestate is None else head.tracestate + b"," + value
        elif kind == FORWARDED_FOR:
            head.forwarded_for = value if head.forwarded_for is None else head.forwarded_for + b", " + value
        elif kind == FORWARDED_PROTO:
            head.forwarded_proto = value
        elif kind != HOP_BY_HOP and kind != IDENTITY:
            head.has_idempotency_key = head.has_idempotency_key or kind == IDEMPOTENCY_KEY
            kept.append(line)
    if head.chunked:
        if has_length:
            raise HttpSyntaxError(400, "length-and-chunked", "both Content-Length and Transfer-Encoding")
        if head.minor == 0:
            raise HttpSyntaxError(400, "chunked-in-1.0", "Transfer-Encoding in an HTTP/1.0 request")
        head.content_length = -1
    if seen_host is not None:
        # An absolute target's authority replaces the Host (RFC 9112 s3.2.2); an empty Host is a legal "no authority".
        authority = AUTHORITIES.get(seen_host) or (check_authority(seen_host) if seen_host else b"")
        if not head.authority:
            head.authority = authority
    elif head.minor == 1:
        raise HttpSyntaxError(400, "bad-host", "an HTTP/1.1 request without Host")
    head.kept_lines = kept
    if options is not None:
        _apply_connection(options, upgrade, head)


def _apply_connection(options: ConnectionOptions, upgrade: bytes, head: RequestHead) -> None:
    if options.closes:
        head.keep_alive = False
    elif options.keeps_alive:
        head.keep_alive = True
    if options.upgrades and upgrade and head.minor == 1:
        head.upgrade = upgrade
    if options.nominated:
        head.kept_lines = without(head.kept_lines, options.nominated)
