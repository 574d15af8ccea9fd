"""Stateful sessions: a client keeps the endpoint that a cookie or header of its own names. Source: Envoy stateful_session filter."""

import time
from typing import TYPE_CHECKING

from mesh.routing.cookies import cookie_of, set_cookie_line
from mesh.routing.rewrite import without_names
from mesh.routing.session import (
    Address,
    SessionPolicy,
    cookie_value,
    header_value,
    parse_cookie_value,
    parse_header_value,
)
from sidecar.filters.counts import FilterCount
from sidecar.filters.protocol import QuietFilter

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


class SessionFilter(QuietFilter):
    """One policy. An endpoint that cannot be used is replaced by another, which the client is told."""

    __slots__ = ("_policy",)

    def __init__(self, policy: SessionPolicy) -> None:
        self._policy = policy

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        policy = self._policy
        head = exchange.template.head
        if not policy.applies_to(head.path):
            return True
        exchange.note(self, True)
        if policy.header:
            value = head.header(policy.header.encode())
            exchange.pinned = parse_header_value(value) if value is not None else None
        else:
            value = cookie_of(head.header(b"cookie"), policy.cookie.encode())
            exchange.pinned = parse_cookie_value(value, time.time()) if value is not None else None
        return True

    def on_response(self, exchange: "Exchange", status: int, lines: list[bytes]) -> list[bytes]:
        host = exchange.host
        if host is None or not exchange.noted(self):
            return lines
        address = (host.address, host.port)
        counts = exchange.plane.stats.filters
        if address == exchange.pinned:
            counts.add(FilterCount.SESSION_KEPT, exchange.branch.name)
            return lines
        counts.add(FilterCount.SESSION_MOVED, exchange.branch.name)
        return self._tell(address, lines)

    def _tell(self, address: Address, lines: list[bytes]) -> list[bytes]:
        policy = self._policy
        if policy.header:
            name = policy.header.encode()
            return [*without_names(lines, {name}), name + b": " + header_value(address)]
        expires_s = int(time.time()) + policy.ttl_s if policy.ttl_s else 0
        value = cookie_value(address, expires_s)
        line = set_cookie_line(policy.cookie, value, ttl_s=policy.ttl_s, path=policy.path, attributes=policy.attributes)
        return [*lines, line]
