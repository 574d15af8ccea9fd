"""After 101 Switching Protocols: bytes passed through both ways, each end of stream kept apart."""

import time
from typing import TYPE_CHECKING

from mesh.http.errors import HttpSyntaxError
from mesh.http.response import ResponseHead
from sidecar.deadlines import set_deadline
from sidecar.filters.chain import response_lines
from sidecar.retrying import settle_retry

if TYPE_CHECKING:
    from sidecar.exchange import Exchange
    from sidecar.upstream import UpstreamConnection


def switch(exchange: "Exchange", upstream: "UpstreamConnection", head: ResponseHead) -> bool:
    """A 101. False when nobody asked for it, or the request was not over yet (RFC 9110 s7.8)."""
    if not exchange.template.upgrade or head.upgrade.lower() != exchange.template.upgrade or not exchange.request_done:
        exchange.on_upstream_malformed(
            upstream, HttpSyntaxError(400, "unasked-upgrade", "it switches protocols without being asked, or too early")
        )
        return False
    settle_retry(exchange)
    exchange.has_responded = exchange.is_tunnel = exchange.closes = True
    exchange.status = 101
    kept = exchange.branch.response_lines(head)
    if exchange.filters_asked or exchange.added_lines:
        kept = response_lines(exchange, 101, kept)
    lines = [*kept, b"connection: upgrade", b"upgrade: " + head.upgrade]
    exchange.connection.transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\n" + b"".join([line + b"\r\n" for line in lines]) + b"\r\n"
    )
    begin_tunnel(exchange)
    return True


def accept_connect(exchange: "Exchange", head: ResponseHead) -> None:
    """A 2xx to a CONNECT that was passed on. It has no body, whatever it says (RFC 9110 s9.3.6)."""
    settle_retry(exchange)
    exchange.has_responded = exchange.is_tunnel = exchange.closes = True
    exchange.status = head.status
    lines = exchange.branch.response_lines(head)
    first = b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)
    exchange.connection.transport.write(first + b"".join([line + b"\r\n" for line in lines]) + b"\r\n")
    begin_tunnel(exchange)


def begin_tunnel(exchange: "Exchange") -> None:
    """The client has been told: from here on bytes go through."""
    exchange.stop_replay()
    exchange.last_move = time.monotonic()
    set_deadline(exchange, exchange.last_move)
    exchange.connection.on_tunnel()


def on_upstream_data(exchange: "Exchange", data: bytes) -> None:
    """From the upstream."""
    exchange.response_bytes += len(data)
    exchange.last_move = time.monotonic()
    exchange.connection.transport.write(data)


def on_client_data(exchange: "Exchange", data: bytes) -> None:
    """From the client."""
    exchange.request_bytes += len(data)
    exchange.last_move = time.monotonic()
    if exchange.upstream is not None:
        exchange.upstream.transport.write(data)


def on_upstream_eof(exchange: "Exchange") -> None:
    """The upstream has sent all."""
    exchange.connection.transport.write_eof()
    _count_eof(exchange)


def on_client_eof(exchange: "Exchange") -> None:
    """The client has sent all."""
    if exchange.upstream is not None:
        exchange.upstream.transport.write_eof()
    _count_eof(exchange)


def _count_eof(exchange: "Exchange") -> None:
    exchange.tunnel_eofs += 1
    if exchange.tunnel_eofs == 2 and exchange.upstream is not None:
        exchange.upstream.owner = None
        exchange.upstream.transport.close()
        exchange.upstream = None
        exchange.finish_tunnel()
