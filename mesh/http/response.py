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
    connection_tokens,
    parse_content_length,
    split_head,
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
    _parse_status_line(lines[0], head)
    del lines[0]
    if len(lines) > limits.max_header_count:
        raise HttpSyntaxError(431, "too-many-headers", f"more than {limits.max_header_count} header lines")
    _parse_header_lines(lines, head)
    return head


def _parse_status_line(line: bytes, head: ResponseHead) -> None:
    version, status, reason = line[:9], line[9:12], line[12:]
    if version not in (b"HTTP/1.1 ", b"HTTP/1.0 ") or (reason and reason[:1] != b" "):
        raise HttpSyntaxError(400, "bad-status-line", "the status line is not VERSION SP STATUS SP REASON")
    if not status.isdigit() or len(status) != 3 or not 100 <= int(status) <= 599:
        raise HttpSyntaxError(400, "bad-status-line", "the status is not a number from 100 to 599")
    head.minor = 1 if version[7] == 0x31 else 0
    head.status = int(status)
    head.reason = reason[1:]


def _parse_header_lines(lines: list[bytes], head: ResponseHead) -> None:
    head.content_length = -1
    head.chunked = head.has_date = head.has_server = False
    head.keep_alive = head.minor == 1
    head.upgrade = b""
    kept: list[bytes] = []
    tokens: list[bytes] = []
    lookup = NAMES.lookup
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise HttpSyntaxError(400, "bad-header-line", "a header line without a colon")
        kind = lookup(name)[1]
        if kind == ORDINARY:
            kept.append(line)
        elif kind == CONTENT_LENGTH:
            if head.content_length >= 0:
                raise HttpSyntaxError(400, "conflicting-content-length", "more than one Content-Length header")
            head.content_length = parse_content_length(value.strip(b" \t"))
        elif kind == TRANSFER_ENCODING:
            if head.chunked or value.strip(b" \t").lower() != b"chunked":
                raise HttpSyntaxError(501, "bad-transfer-encoding", "the only transfer coding spoken here is chunked")
            head.chunked = True
        elif kind == CONNECTION:
            tokens += connection_tokens(value)
        elif kind == UPGRADE:
            head.upgrade = value.strip(b" \t")
        elif kind != HOP_BY_HOP and kind != IDENTITY:
            head.has_date = head.has_date or kind == DATE
            head.has_server = head.has_server or kind == SERVER
            kept.append(line)
    if head.chunked and (head.content_length >= 0 or head.minor == 0):
        raise HttpSyntaxError(400, "length-and-chunked", "Transfer-Encoding with Content-Length or in HTTP/1.0")
    head.kept_lines = kept
    if tokens:
        _apply_connection(tokens, head)


def _apply_connection(tokens: list[bytes], head: ResponseHead) -> None:
    if b"close" in tokens:
        head.keep_alive = False
    elif b"keep-alive" in tokens:
        head.keep_alive = True
    nominated = frozenset(tokens) - {b"close", b"keep-alive", b"upgrade"}
    if nominated:
        head.kept_lines = [
            line for line in head.kept_lines if NAMES.lookup(line.partition(b":")[0])[0] not in nominated
        ]
