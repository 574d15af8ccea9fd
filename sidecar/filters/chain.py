"""Runs the filters of a route over one exchange."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


def run_filters(exchange: "Exchange", now: float) -> bool:
    """Go through the filters that have not been asked yet. False: one of them holds or has answered the request."""
    filters = exchange.route.filters
    exchange.is_dirty = True
    while exchange.filters_asked < len(filters):
        exchange.filters_asked += 1
        if not filters[exchange.filters_asked - 1].on_request(exchange, now):
            return False
    return True


def response_lines(exchange: "Exchange", status: int, lines: list[bytes]) -> list[bytes]:
    """What the filters make of a response's header lines."""
    if exchange.added_lines:
        lines = [*lines, *exchange.added_lines]
    for at in range(exchange.filters_asked - 1, -1, -1):
        lines = exchange.route.filters[at].on_response(exchange, status, lines)
    return lines


def end_filters(exchange: "Exchange") -> None:
    """The request is over."""
    now = time.monotonic()
    asked, exchange.filters_asked = exchange.filters_asked, 0
    for one in exchange.route.filters[:asked]:
        one.on_end(exchange, now)
