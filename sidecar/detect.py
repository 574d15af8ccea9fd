"""HTTP/1 or not: decided from the first bytes of a connection."""

import enum

_METHODS = tuple(
    method + b" "
    for method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT")
)
_MAX_LINE_BYTES = 8192


class Protocol(enum.Enum):
    """What the first bytes say."""

    HTTP1 = enum.auto()
    OTHER = enum.auto()
    UNDECIDED = enum.auto()
    """More bytes are needed."""


def sniff(data: bytes) -> Protocol:
    """HTTP1 once a whole request line has been seen. A method alone is not enough: Redis has an inline `GET key` too.

    HTTP/2's preface is OTHER: it passes through as TCP.
    """
    start = data.lstrip(b"\r\n")[:16]
    if not any(start.startswith(method) or method.startswith(start) for method in _METHODS):
        return Protocol.OTHER
    line, newline, _ = data.lstrip(b"\r\n").partition(b"\n")
    if not newline:
        return Protocol.OTHER if len(data) > _MAX_LINE_BYTES else Protocol.UNDECIDED
    return Protocol.HTTP1 if line.rstrip(b"\r").endswith((b" HTTP/1.1", b" HTTP/1.0")) else Protocol.OTHER
