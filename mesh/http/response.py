"""Response heads from an upstream: strict parsing, and how long the body is."""

import enum

from mesh.http.errors import HttpSyntaxError
from mesh.http.limits import DEFAULT_LIMITS, HeadLimits
from mesh.http.lines import Entry, bad_line, nominated_lines, read_lines
from mesh.http.syntax import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    HOP_BY_HOP,
    IDENTITY,
    LINE_BYTES,
    SERVER,
    TRANSFER_ENCODING,
    UPGRADE,
    ConnectionOptions,
    remember,
)

_NOT_KEPT = CONTENT_LENGTH | CONNECTION | TRANSFER_ENCODING | UPGRADE | HOP_BY_HOP | IDENTITY


class BodyKind(enum.Enum):
    """How a response's body ends. Source: RFC 9112 s6.3."""

    NONE = enum.auto()
    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    UNTIL_CLOSE = enum.auto()


class ResponseHead:
    """A response's head, checked. Written by `parse_response_head` only; read-only afterwards."""

    __slots__ = (
        "block",
        "chunked",
        "content_length",
        "has_date",
        "has_server",
        "header_lines",
        "is_verbatim",
        "keep_alive",
        "kinds",
        "minor",
        "reason",
        "size_bytes",
        "special",
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
    block: bytes
    """The head as it came."""
    header_lines: list[bytes]
    special: list[Entry]
    """The lines that are not ORDINARY, in order; those that Connection nominates follow as HOP_BY_HOP."""
    kinds: int
    """The kinds of `special`, or-ed."""
    is_verbatim: bool
    """An HTTP/1.1 head: `block` may be sent on but for lines in `special`."""
    size_bytes: int

    @property
    def kept_lines(self) -> list[bytes]:
        """The lines a proxy forwards as they are: no framing, no hop-by-hop."""
        gone = {entry[1] for entry in self.special if entry[0] & _NOT_KEPT}
        return [line for line in self.header_lines if line not in gone]

    def header(self, name: bytes) -> bytes | None:
        """The values of a header (lower-case `name`) joined with a comma; None if it does not occur."""
        size = len(name)
        values = [
            line[size + 1 :].strip(b" \t")
            for line in self.header_lines
            if line[size : size + 1] == b":" and line[:size].lower() == name
        ]
        return b",".join(values) if values else None

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
    """Parse a head that ends in its empty line. Raises HttpSyntaxError for anything ambiguous. Flat on purpose, as for requests."""
    lines = block[:-4].split(b"\r\n")
    head = ResponseHead()
    head.block = block
    head.size_bytes = len(block)
    first = lines[0]
    known = _STATUS_LINES.get(first)
    if known is None:
        known = _parse_status_line(first)
        if len(first) <= 64:
            remember(_STATUS_LINES, first, known)
    head.minor, head.status, head.reason, head.is_verbatim = known
    if len(lines) > limits.max_header_count + 1:
        raise HttpSyntaxError(431, "too-many-headers", f"more than {limits.max_header_count} header lines")
    del lines[0]
    head.header_lines = lines
    head.keep_alive = head.minor == 1
    head.content_length = -1
    head.upgrade = b""
    head.special = special = read_lines(lines)
    kinds = 0
    options: ConnectionOptions | None = None
    for kind, _, value in special:
        if kind == CONTENT_LENGTH:
            if kinds & CONTENT_LENGTH:
                raise HttpSyntaxError(400, "conflicting-content-length", "more than one Content-Length header")
            head.content_length = value
        elif kind == CONNECTION:
            options = value if options is None else options | value
        elif kind == TRANSFER_ENCODING:
            if kinds & TRANSFER_ENCODING or value.lower() != b"chunked":
                raise HttpSyntaxError(501, "bad-transfer-encoding", "the only transfer coding spoken here is chunked")
        elif kind == UPGRADE:
            head.upgrade = value
        kinds |= kind
    head.kinds = kinds
    head.chunked = bool(kinds & TRANSFER_ENCODING)
    head.has_date = bool(kinds & DATE)
    head.has_server = bool(kinds & SERVER)
    if (head.status < 200 or head.status == 204) and (head.chunked or head.content_length > 0):
        # RFC 9110 s8.6, RFC 9112 s6.1: who sends these means a body that we are not to read, and would take for the next response.
        raise HttpSyntaxError(400, "body-not-allowed", "a 1xx or 204 response that says it has a body")
    if head.chunked and (head.content_length >= 0 or head.minor == 0):
        raise HttpSyntaxError(400, "length-and-chunked", "Transfer-Encoding with Content-Length or in HTTP/1.0")
    if options is not None:
        _apply_connection(options, head)
    return head


_STATUS_LINES: dict[bytes, tuple[int, int, bytes, bool]] = {}
"""Status lines seen before."""


def _parse_status_line(line: bytes) -> tuple[int, int, bytes, bool]:
    """Minor version, status, reason, and whether the line may be sent on as it is."""
    if line.translate(None, LINE_BYTES):
        raise bad_line(line)
    version, status, reason = line[:9], line[9:12], line[12:]
    is_http = version[:7] == b"HTTP/1." and version[7:8].isdigit() and version[8:] == b" "
    if not is_http or (reason and reason[:1] != b" "):
        raise HttpSyntaxError(400, "bad-status-line", "the status line is not VERSION SP STATUS SP REASON")
    if not status.isdigit() or len(status) != 3 or not 100 <= int(status) <= 599:
        raise HttpSyntaxError(400, "bad-status-line", "the status is not a number from 100 to 599")
    # A higher minor version is understood as 1.1 (RFC 9110 s6.2).
    return int(version[7] != 0x30), int(status), reason[1:], version[7] == 0x31 and bool(reason)


def _apply_connection(options: ConnectionOptions, head: ResponseHead) -> None:
    if options.closes:
        head.keep_alive = False
    elif options.keeps_alive:
        head.keep_alive = True
    if options.nominated:
        hop_lines = nominated_lines(options.nominated, head.header_lines, head.special)
        head.special += [(HOP_BY_HOP, line, b"") for line in hop_lines]
        head.kinds |= HOP_BY_HOP
