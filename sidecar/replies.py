"""Answers that the proxy gives itself: short plain text that says what happened and why."""

import time
from email.utils import formatdate

REASONS = {
    100: "Continue", 101: "Switching Protocols", 103: "Early Hints", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content",
    301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    413: "Content Too Large", 414: "URI Too Long", 417: "Expectation Failed", 418: "I'm a Teapot", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip
"""Source: RFC 9110 s15."""


def http_date() -> bytes:
    """The current time as a Date header wants it."""
    return formatdate(time.time(), usegmt=True).encode()


def reply(
    status: int,
    body: bytes,
    *,
    server_line: bytes,
    lines: tuple[bytes, ...] = (),
    keeps: bool,
    is_head: bool = False,
) -> bytes:
    """A whole response. `lines` are further header lines without CRLF; `is_head` leaves the body out."""
    head = [
        b"HTTP/1.1 %d %b" % (status, REASONS.get(status, "").encode()),
        server_line,
        b"date: " + http_date(),
        *lines,
    ]
    if status >= 200 and status not in (204, 304):
        head.append(b"content-length: %d" % len(body))
        if body:
            head.append(b"content-type: text/plain; charset=utf-8")
    if not keeps:
        head.append(b"connection: close")
    return b"\r\n".join(head) + b"\r\n\r\n" + (b"" if is_head else body)
