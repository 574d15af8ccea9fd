"""CORS: preflights are answered here, and responses to other origins say whether they may be read.

Source: Envoy cors filter (checked against Envoy 1.40). Requests of origins that are not allowed pass unchanged; a browser refuses
their responses.
"""

from typing import TYPE_CHECKING

from mesh.routing.conditions import compile_text
from mesh.routing.cors import CorsPolicy
from mesh.routing.rewrite import without_names
from sidecar.filters.counts import FilterCount
from sidecar.filters.protocol import QuietFilter

if TYPE_CHECKING:
    from sidecar.exchange import Exchange

_OWN = {
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
    b"access-control-expose-headers",
}


class CorsFilter(QuietFilter):
    """One policy. Its note: the origin that is allowed."""

    __slots__ = ("_allows_all", "_exposes", "_origins", "_policy", "_preflight")

    def __init__(self, policy: CorsPolicy) -> None:
        self._policy = policy
        self._origins = tuple(compile_text(origin, "CORS origin") for origin in policy.allow_origins)
        self._allows_all = any(test(b"*") for test in self._origins)
        """Source: Envoy: an origin that matches `*` allows every origin."""
        self._exposes: list[bytes] = []
        if policy.allow_credentials:
            self._exposes.append(b"access-control-allow-credentials: true")
        self._preflight = list(self._exposes)
        for name, value in (
            (b"access-control-allow-methods", policy.allow_methods),
            (b"access-control-allow-headers", policy.allow_headers),
            (b"access-control-max-age", policy.max_age),
        ):
            if value:
                self._preflight.append(name + b": " + value.encode())
        if policy.expose_headers:
            self._exposes.append(b"access-control-expose-headers: " + policy.expose_headers.encode())

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        head = exchange.template.head
        origin = head.header(b"origin")
        policy = self._policy
        if not origin or (policy.share < 1.0 and exchange.runtime.draw() >= policy.share):
            return True
        allowed = self._allows(origin)
        prefix = exchange.runtime.filter.stat_prefix
        counts = exchange.plane.stats.filters
        counts.add(FilterCount.CORS_VALID if allowed else FilterCount.CORS_INVALID, prefix)
        if allowed:
            exchange.note(self, origin)
        is_preflight = head.method == b"OPTIONS" and head.header(b"access-control-request-method")
        if not is_preflight or (not allowed and policy.forwards_unmatched_preflights is not False):
            return True
        exchange.reply_direct(200, b"", tuple(self._preflight_lines(exchange)))
        return False

    def _allows(self, origin: bytes) -> bool:
        return self._allows_all or any(test(origin) for test in self._origins)

    def _preflight_lines(self, exchange: "Exchange") -> list[bytes]:
        lines = list(self._preflight)
        head = exchange.template.head
        wants_private = head.header(b"access-control-request-private-network") == b"true"
        if wants_private and self._policy.allow_private_network:
            lines.append(b"access-control-allow-private-network: true")
        return lines

    def on_response(self, exchange: "Exchange", status: int, lines: list[bytes]) -> list[bytes]:
        origin = exchange.noted(self)
        if not isinstance(origin, bytes):
            return lines
        replaced = {b"access-control-allow-origin", *(line.partition(b":")[0] for line in self._exposes)}
        kept = without_names(lines, _OWN & replaced)
        return [*kept, b"access-control-allow-origin: " + origin, *self._exposes]
