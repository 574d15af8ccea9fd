"""HTTP/1 or not: decided from the first bytes of a connection."""

import enum

_METHODS = tuple(
    method + b" "
    for method in (
        b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"ACL", b"BASELINE-CONTROL", b"BIND",
        b"CHECKIN", b"CHECKOUT", b"COPY", b"LABEL", b"LINK", b"LOCK", b"M-SEARCH", b"MERGE", b"MKACTIVITY", b"MKCALENDAR", b"MKCOL",
        b"MKREDIRECTREF", b"MKWORKSPACE", b"MOVE", b"NOTIFY", b"ORDERPATCH", b"PROPFIND", b"PROPPATCH", b"PURGE", b"QUERY", b"REBIND",
        b"REPORT", b"SEARCH", b"SOURCE", b"SUBSCRIBE", b"UNBIND", b"UNCHECKOUT", b"UNLINK", b"UNLOCK", b"UNSUBSCRIBE", b"UPDATE",
        b"UPDATEREDIRECTREF", b"VERSION-CONTROL",
    )
)  # fmt: skip
"""Registered with IANA (RFC 9110 s16.1), and those that HTTP parsers know besides."""
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
    start = data.lstrip(b"\r\n")[:24]
    if not any(start.startswith(method) or method.startswith(start) for method in _METHODS):
        return Protocol.OTHER
    line, newline, _ = data.lstrip(b"\r\n").partition(b"\n")
    if not newline:
        return Protocol.OTHER if len(data) > _MAX_LINE_BYTES else Protocol.UNDECIDED
    version = line.rstrip(b"\r")[-9:]
    return Protocol.HTTP1 if version[:8] == b" HTTP/1." and version[8:].isdigit() else Protocol.OTHER
