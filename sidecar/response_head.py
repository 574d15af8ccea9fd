"""The head of a response that takes the long way: from the upstream's lines to the client's, line by line."""

from typing import TYPE_CHECKING

from mesh.http.response import BodyKind, ResponseHead
from sidecar.filters.chain import response_lines
from sidecar.replies import REASONS

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


def response_wire(exchange: "Exchange", head: ResponseHead, kind: BodyKind) -> bytes:
    """The head for the client without its empty line. Decides how the body is framed and whether the connection closes afterwards."""
    request = exchange.template.head
    lines = exchange.branch.response_lines(head)
    if exchange.filters_asked or exchange.added_lines:
        lines = response_lines(exchange, head.status, lines)
    first = b"HTTP/1.1 %d %b" % (head.status, head.reason or REASONS.get(head.status, "").encode())
    lines = [first, *lines, *_framing(exchange, head, kind)]
    exchange.closes = (
        not request.keep_alive
        or exchange.plane.is_draining
        or (kind in (BodyKind.UNTIL_CLOSE, BodyKind.CHUNKED) and request.minor == 0)
        or not exchange.request_done
        or exchange.connection.is_retiring
    )
    if exchange.closes:
        lines.append(b"connection: close")
    elif request.minor == 0:
        lines.append(b"connection: keep-alive")
    return b"\r\n".join(lines) + b"\r\n"


def _framing(exchange: "Exchange", head: ResponseHead, kind: BodyKind) -> list[bytes]:
    if kind in (BodyKind.CHUNKED, BodyKind.UNTIL_CLOSE):
        exchange.is_chunking = exchange.template.head.minor == 1
        return [b"transfer-encoding: chunked"] if exchange.is_chunking else []
    if head.content_length >= 0 and head.status != 204:
        return [b"content-length: %d" % head.content_length]
    return []
