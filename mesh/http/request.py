"""Request heads: strict parsing into what a proxy needs, with the other header lines left as bytes."""

from collections.abc import Sequence
from typing import Any

from mesh.http.errors import HttpSyntaxError
from mesh.http.limits import DEFAULT_LIMITS, HeadLimits
from mesh.http.lines import LINES, Entry, bad_line, nominated_lines
from mesh.http.syntax import (
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    HOP_BY_HOP,
    HOST,
    IDEMPOTENCY_KEY,
    LINE_BYTES,
    PASSING,
    REQUEST_ID,
    TARGET_BYTES,
    TARGET_MARKS,
    TOKEN_BYTES,
    TRACEPARENT,
    TRACESTATE,
    TRANSFER_ENCODING,
    UPGRADE,
    ConnectionOptions,
    check_authority,
)

_KNOWN_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE"})


class RequestHead:
    """A request's head, checked. Written by `parse_request_head` only; read-only afterwards (it may be cached and shared).

    Byte strings hold what was on the wire without surrounding white space; None means absent.
    """

    __slots__ = (
        "_options",
        "_values",
        "authority",
        "block",
        "chunked",
        "content_length",
        "expects_continue",
        "forwarded_for",
        "forwarded_proto",
        "has_idempotency_key",
        "header_lines",
        "is_verbatim",
        "keep_alive",
        "kinds",
        "method",
        "minor",
        "path",
        "query",
        "request_id",
        "size_bytes",
        "special",
        "target",
        "traceparent",
        "tracestate",
        "upgrade",
    )
    _options: ConnectionOptions | None
    _values: dict[bytes, bytes] | None
    method: bytes
    target: bytes
    """Origin form, `/path?query`, or `*`. An absolute target has been split into `authority` and this.
    CONNECT's is `host:port`, which is the authority too."""
    path: bytes
    """The target up to the `?`; empty for CONNECT."""
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
    block: bytes
    """The head as it came."""
    header_lines: list[bytes]
    """Every header line, in order."""
    special: list[Entry]
    """The lines that are not ORDINARY, in order; those that Connection nominates follow as HOP_BY_HOP."""
    kinds: int
    """The kinds of `special`, or-ed."""
    is_verbatim: bool
    """An HTTP/1.1 head with an origin-form target: `block` may be sent on but for lines in `special`."""
    size_bytes: int
    """Of the head on the wire."""

    @property
    def kept_lines(self) -> list[bytes]:
        """The lines that a proxy forwards as they are: not Host, framing, hop-by-hop, identity, or one of the fields
        above that a proxy writes itself (request id, trace, forwarded)."""
        gone = {entry[1] for entry in self.special if not entry[0] & PASSING}
        return [line for line in self.header_lines if line not in gone]

    @property
    def has_body(self) -> bool:
        return self.content_length != 0

    @property
    def scheme(self) -> bytes:
        """What the client began with, as the proxy before us says it; our own listeners are plain."""
        return b"https" if (self.forwarded_proto or b"").lower() == b"https" else b"http"

    def header(self, name: bytes) -> bytes | None:
        """The values of a header (lower-case `name`) joined with a comma; None if it does not occur."""
        values = self._values
        if values is None:
            values = self._values = {}
            for line in self.header_lines:
                key, _, value = line.partition(b":")
                key, value = key.lower(), value.strip(b" \t")
                known = values.get(key)
                values[key] = value if known is None else known + b"," + value
        return values.get(name)

    def header_values(self, name: bytes) -> Sequence[bytes]:
        """The values of a header (lower-case `name`), one per line."""
        joined = self.header(name)
        if joined is None:
            return ()
        if b"," not in joined:
            return (joined,)
        size = len(name)
        return [
            line[size + 1 :].strip(b" \t")
            for line in self.header_lines
            if line[size : size + 1] == b":" and line[:size].lower() == name
        ]


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

    Raises HttpSyntaxError for anything that two parsers could read differently. Source: RFC 9112. Flat on purpose: it runs for every
    request whose head is new, and calls were a third of its time.
    """
    lines = block[:-4].split(b"\r\n")
    if len(lines) > limits.max_header_count + 1:
        raise HttpSyntaxError(431, "too-many-headers", f"more than {limits.max_header_count} header lines")
    head = RequestHead()
    head.block = block
    head.size_bytes = len(block)
    head._values = head._options = None
    head.authority = b""
    parts = lines[0].split(b" ")
    if (
        len(parts) == 3
        and parts[2] == b"HTTP/1.1"
        and parts[0] in _KNOWN_METHODS
        and parts[1][:1] == b"/"
        and 0 not in parts[1].translate(TARGET_MARKS)
    ):
        head.method = parts[0]
        head.target = target = parts[1]
        head.minor = 1
        head.keep_alive = head.is_verbatim = True
    else:
        target = _parse_request_line(lines[0], head)
    if b"?" in target:
        head.path, _, head.query = target.partition(b"?")
    else:
        head.path = target
        head.query = None
    del lines[0]
    head.header_lines = lines
    head.content_length = 0
    head.chunked = head.expects_continue = head.has_idempotency_key = False
    head.upgrade = b""
    head.request_id = head.traceparent = head.tracestate = head.forwarded_for = head.forwarded_proto = None
    special: list[Entry] = []
    head.special = special
    kinds = 0
    has_new = False
    known = LINES.entries.get
    for line in lines:
        entry = known(line)
        if entry is None:
            has_new = True
            entry = LINES.learn(line)
        if not entry:
            continue
        special.append(entry)
        kind = entry[0]
        if kind == HOST:
            if kinds & HOST:
                raise HttpSyntaxError(400, "bad-host", "more than one Host header")
            # An absolute target's authority replaces the Host (RFC 9112 s3.2.2).
            head.authority = head.authority or entry[2]
        elif kind == REQUEST_ID:
            head.request_id = entry[2] if head.request_id is None else head.request_id + b"," + entry[2]
        elif kind != HOP_BY_HOP:
            _take_special(kind, entry[2], kinds, head)
        kinds |= kind
    head.kinds = kinds
    if has_new:
        LINES.remember(lines)
    if not kinds & HOST and head.minor == 1:
        raise HttpSyntaxError(400, "bad-host", "an HTTP/1.1 request without Host")
    if kinds & _FRAMING:
        _check_framing(head)
    return head


_FRAMING = TRANSFER_ENCODING | CONNECTION | UPGRADE


def _check_framing(head: RequestHead) -> None:
    if head.chunked:
        _check_chunked(head)
    if head._options is not None:
        _apply_connection(head._options, head)
    elif head.upgrade:
        head.upgrade = b""  # nobody was told that it is for this hop (RFC 9110 s7.8)


def _parse_request_line(line: bytes, head: RequestHead) -> bytes:
    """A request line that is not the usual one. Returns the target in origin form, or nothing for CONNECT, which has no path."""
    if line.translate(None, LINE_BYTES):
        raise bad_line(line)
    parts = line.split(b" ")
    if len(parts) != 3:
        raise HttpSyntaxError(400, "bad-request-line", "the request line is not METHOD SP TARGET SP VERSION")
    method, target, version = parts
    is_connect = method not in _KNOWN_METHODS and _is_connect(method)
    head.minor = 1 if version == b"HTTP/1.1" else _other_version(version)
    if target.translate(None, TARGET_BYTES):
        raise HttpSyntaxError(400, "bad-target", "the request target holds a character that is not allowed")
    head.keep_alive = head.minor == 1
    head.is_verbatim = version == b"HTTP/1.1"
    head.method = method
    if is_connect:
        _take_connect_target(target, head)
        return b""
    if target[:1] != b"/":
        target = _other_target_forms(target, head)
        head.is_verbatim = False
    head.target = target
    return target


def _is_connect(method: bytes) -> bool:
    """Whether an unusual method, which must be a token, is CONNECT."""
    if not method or method.translate(None, TOKEN_BYTES):
        raise HttpSyntaxError(400, "bad-method", "the method is not a token")
    return method == b"CONNECT"


def _take_connect_target(target: bytes, head: RequestHead) -> None:
    """The authority form (RFC 9112 s3.2.3)."""
    host, colon, port = target.rpartition(b":")
    if not (host and colon and port.isdigit()):
        raise HttpSyntaxError(400, "bad-target", "CONNECT wants HOST:PORT")
    head.authority = check_authority(target)
    head.target = target
    head.is_verbatim = False


def _other_version(version: bytes) -> int:
    """The minor version to take for one that is not 1.1: a higher minor is understood as 1.1 (RFC 9110 s6.2)."""
    if len(version) == 8 and version.startswith(b"HTTP/") and version[6:7] == b"." and version[5:8:2].isdigit():
        if version[5:6] == b"1":
            return int(version[7:8] != b"0")
        raise HttpSyntaxError(505, "bad-version", "this HTTP version is not spoken here; use HTTP/1.1")
    raise HttpSyntaxError(400, "bad-version", "the request line does not end in an HTTP version")


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


def _take_special(kind: int, value: Any, before: int, head: RequestHead) -> None:
    """Note what a line says that somebody looks at. `before`: the kinds of the lines before it."""
    if kind == CONTENT_LENGTH:
        if before & CONTENT_LENGTH:
            raise HttpSyntaxError(400, "conflicting-content-length", "more than one Content-Length header")
        if value and not head.path:
            raise HttpSyntaxError(400, "body-of-connect", "a CONNECT request with a body")
        head.content_length = value
    elif kind == TRACEPARENT:
        # More than one is as good as none (Trace Context s3.2).
        head.traceparent = value if head.traceparent is None else b""
    elif kind == TRACESTATE:
        head.tracestate = value if head.tracestate is None else head.tracestate + b"," + value
    elif kind == CONNECTION:
        head._options = value if head._options is None else head._options | value
    elif kind == UPGRADE:
        head.upgrade = value.lower()
    elif kind == TRANSFER_ENCODING:
        if before & TRANSFER_ENCODING or value.lower() != b"chunked":
            raise HttpSyntaxError(501, "bad-transfer-encoding", "the only transfer coding spoken here is chunked")
        if not head.path:
            raise HttpSyntaxError(400, "body-of-connect", "a CONNECT request with a body")
        head.chunked = True
    elif kind == EXPECT:
        if value.lower() != b"100-continue":
            raise HttpSyntaxError(417, "bad-expect", "an expectation other than 100-continue")
        head.expects_continue = head.minor == 1
    elif kind == FORWARDED_FOR:
        head.forwarded_for = value if head.forwarded_for is None else head.forwarded_for + b", " + value
    elif kind == FORWARDED_PROTO:
        head.forwarded_proto = value if head.forwarded_proto is None else head.forwarded_proto + b"," + value
    elif kind == IDEMPOTENCY_KEY:
        head.has_idempotency_key = True


def _check_chunked(head: RequestHead) -> None:
    if head.kinds & CONTENT_LENGTH:
        raise HttpSyntaxError(400, "length-and-chunked", "both Content-Length and Transfer-Encoding")
    if head.minor == 0:
        raise HttpSyntaxError(400, "chunked-in-1.0", "Transfer-Encoding in an HTTP/1.0 request")
    head.content_length = -1
    for kind, line, _ in head.special:
        if kind == TRANSFER_ENCODING and not line.endswith(b": chunked"):
            head.is_verbatim = False  # what is spelled oddly may be read as nothing by the server


def _apply_connection(options: ConnectionOptions, head: RequestHead) -> None:
    if options.closes:
        head.keep_alive = False
    elif options.keeps_alive:
        head.keep_alive = True
    if not options.upgrades or head.minor == 0:
        head.upgrade = b""
    if options.nominated:
        hop_lines = nominated_lines(options.nominated, head.header_lines, head.special)
        head.special += [(HOP_BY_HOP, line, b"") for line in hop_lines]
        head.kinds |= HOP_BY_HOP
