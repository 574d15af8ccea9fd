"""Response heads from an upstream: strict parsing, and how long the body is."""

import enum

from mesh.http.errors import HttpSyntaxError
from mesh.http.limits import DEFAULT_LIMITS, HeadLimits
from mesh.http.syntax import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    HOP_BY_HOP,
    IDENTITY,
    NAMES,
    ORDINARY,
    SERVER,
    TRANSFER_ENCODING,
    UPGRADE,
    ConnectionOptions,
    connection_options,
    parse_content_length,
    remember,
    split_head,
    without,
)


class BodyKind(enum.Enum):
    """How a response's body ends. Source: RFC 9112 s6.3."""

    NONE = enum.auto()
    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    UNTIL_CLOSE = enum.auto()


class ResponseHead:
    """A response's head, checked. Written by `parse_response_head` only; read-only afterwards."""

    __slots__ = (
        "chunked",
        "content_length",
        "has_date",
        "has_server",
        "keep_alive",
        "kept_lines",
        "minor",
        "reason",
        "size_bytes",
        "status",
        "upgrade",
    )
    status: int
    """100 to 599."""
    reason: bytes
    minor: int
    content_length: int
    """-1: the head does not say."""
    chunked: bool
    keep_alive: bool
    """Whether the upstream keeps the connection open."""
    upgrade: bytes
    """The Upgrade header's value; empty if absent."""
    has_date: bool
    has_server: bool
    kept_lines: list[bytes]
    """The lines a proxy forwards as they are: no framing, no hop-by-hop."""
    size_bytes: int

    def body_kind(self, method: bytes) -> BodyKind:
        """How the body of this response to a `method` request ends."""
        status = self.status
        if method == b"HEAD" or status in (204, 304) or status < 200:
            return BodyKind.NONE
        if self.chunked:
            return BodyKind.CHUNKED
        if self.content_length >= 0:
            return BodyKind.LENGTH if self.content_length else BodyKind.NONE
        return BodyKind.UNTIL_CLOSE


def find_response_head(buffer: bytes | bytearray, limits: HeadLimits = DEFAULT_LIMITS) -> int:
    """Where the head at the start of `buffer` ends, or -1 when more bytes are needed. Raises HttpSyntaxError."""
    end = buffer.find(b"\r\n\r\n")
    if (end + 4 if end >= 0 else len(buffer)) > limits.max_head_bytes:
        raise HttpSyntaxError(431, "head-too-large", f"the header block is larger than {limits.max_head_bytes} bytes")
    if end >= 0:
        return end + 4
    if not b"HTTP/1.".startswith(bytes(buffer[:7])):
        raise HttpSyntaxError(400, "bad-status-line", "the answer is not HTTP/1")
    if buffer.count(b"\n") != buffer.count(b"\r\n"):
        raise HttpSyntaxError(400, "bare-lf", "a line ends in LF without CR")
    return -1


def parse_response_head(block: bytes, limits: HeadLimits = DEFAULT_LIMITS) -> ResponseHead:
    """Parse a head that ends in its empty line. Raises HttpSyntaxError for anything ambiguous."""
    lines = split_head(block)
    head = ResponseHead()
    head.size_bytes = len(block)
    first = lines[0]
    known = _STATUS_LINES.get(first)
    if known is None:
        known = _parse_status_line(first)
        if len(first) <= 64:
            remember(_STATUS_LINES, first, known)
    head.minor, head.status, head.reason = known
    if len(lines) > limits.max_header_count + 1:
        raise HttpSyntaxError(431, "too-many-headers", f"more than {limits.max_header_count} header lines")
    del lines[0]
    _parse_header_lines(lines, head)
    return head


_STATUS_LINES: dict[bytes, tuple[int, int, bytes]] = {}
"""Status lines seen before."""


def _parse_status_line(line: bytes) -> tuple[int, int, bytes]:
    """Minor version, status, reason."""
    version, status, reason = line[:9], line[9:12], line[12:]
    if version not in (b"HTTP/1.1 ", b"HTTP/1.0 ") or (reason and reason[:1] != b" "):
        raise HttpSyntaxError(400, "bad-status-line", "the status line is not VERSION SP STATUS SP REASON")
    if not status.isdigit() or len(status) != 3 or not 100 <= int(status) <= 599:
        raise HttpSyntaxError(400, "bad-status-line", "the status is not a number from 100 to 599")
    return 1 if version[7] == 0x31 else 0, int(status), reason[1:]


def _parse_header_lines(lines: list[bytes], head: ResponseHead) -> None:
    length = -1
    chunked = has_date = has_server = False
    head.keep_alive = head.minor == 1
    head.upgrade = b""
    kept: list[bytes] = []
    options: ConnectionOptions | None = None
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
        elif kind == DATE:
            has_date = True
            kept.append(line)
        elif kind == SERVER:
            has_server = True
            kept.append(line)
        elif kind == CONTENT_LENGTH:
            if length >= 0:
                raise HttpSyntaxError(400, "conflicting-content-length", "more than one Content-Length header")
            length = parse_content_length(value.strip(b" \t"))
        elif kind == CONNECTION:
            found = connection_options(value)
            options = found if options is None else options | found
        elif kind == TRANSFER_ENCODING:
            if chunked or value.strip(b" \t").lower() != b"chunked":
                raise HttpSyntaxError(501, "bad-transfer-encoding", "the only transfer coding spoken here is chunked")
            chunked = True
        elif kind == UPGRADE:
            head.upgrade = value.strip(b" \t")
        elif kind != HOP_BY_HOP and kind != IDENTITY:
            kept.append(line)
    if chunked and (length >= 0 or head.minor == 0):
        raise HttpSyntaxError(400, "length-and-chunked", "Transfer-Encoding with Content-Length or in HTTP/1.0")
    head.content_length = length
    head.chunked = chunked
    head.has_date = has_date
    head.has_server = has_server
    head.kept_lines = kept
    if options is not None:
        if options.closes:
            head.keep_alive = False
        elif options.keeps_alive:
            head.keep_alive = True
        if options.nominated:
            head.kept_lines = without(kept, options.nominated)
