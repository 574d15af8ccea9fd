"""CONNECT: which route takes it, and its end in a plain TCP connection to an endpoint.

A route with `terminates_connect` opens the connection and answers 200 itself; without it the request goes to the endpoint, which must
be a proxy too, and its 2xx opens the tunnel. From then on `sidecar.tunnel` passes bytes through. Source: RFC 9110 s9.3.6, Envoy "HTTP
upgrades", CONNECT support.
"""

from typing import TYPE_CHECKING

from mesh.http.errors import HttpSyntaxError
from mesh.http.request import RequestHead
from mesh.routing.match import CONNECT_PATH
from mesh.routing.matcher import CompiledHost, CompiledRoute
from mesh.routing.table import Forward
from sidecar.retrying import settle_retry
from sidecar.tunnel import begin_tunnel

if TYPE_CHECKING:
    from sidecar.exchange import Exchange
    from sidecar.upstream import UpstreamConnection


def find_connect_route(host: CompiledHost | None, head: RequestHead, *, is_offered: bool) -> CompiledRoute | None:
    """The route for a CONNECT request; None: 404. `is_offered`: by the listener, unless a route says otherwise.

    Raises HttpSyntaxError when it is not offered. DEVIATION: Envoy answers 404 then; 405 says what is wrong.
    """
    for route in host.routes if host is not None else ():
        if route.route.match.path == CONNECT_PATH and route.matches(head, 0.0):
            action = route.route.action
            if not isinstance(action, Forward) or dict(action.upgrades).get("connect", is_offered):
                return route
            break
    else:
        if is_offered:
            return None
    raise HttpSyntaxError(405, "connect-refused", "CONNECT is not offered here: connect to the host itself")


def terminates(exchange: "Exchange") -> bool:
    """Whether the request at hand ends here as a plain connection."""
    compiled = exchange.route.compiled
    if exchange.method != b"CONNECT" or compiled is None:
        return False
    action = compiled.route.action
    return isinstance(action, Forward) and action.terminates_connect


def on_raw_connection(exchange: "Exchange", upstream: "UpstreamConnection") -> None:
    """The plain connection is there: say so, and pass bytes through."""
    exchange.is_waiting = False
    exchange.upstream = upstream
    upstream.owner = exchange
    upstream.requests += 1
    upstream.has_upgraded = True
    settle_retry(exchange)
    exchange.has_responded = exchange.is_tunnel = exchange.closes = exchange.is_dirty = True
    exchange.status = 200
    lines = [exchange.runtime.server_line, *exchange.added_lines]
    exchange.connection.transport.write(b"HTTP/1.1 200 OK\r\n" + b"".join([line + b"\r\n" for line in lines]) + b"\r\n")
    begin_tunnel(exchange)
