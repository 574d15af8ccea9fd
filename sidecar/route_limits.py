"""How long a route's requests may take and what of them is kept for another try: looked up once per snapshot."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesh.resilience.retry import RetryPolicy
from mesh.routing.matcher import CompiledRoute
from mesh.routing.table import Forward
from sidecar.timers import NEVER

if TYPE_CHECKING:
    from sidecar.runtime import RouteRuntime

MAX_REPLAY_BYTES = 65536
"""Of a request body, kept for another try. Source: Envoy per_connection_buffer_limit; Linkerd's 64 KiB."""
EXPECTED_TIMEOUT = b"x-envoy-expected-rq-timeout-ms: "


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLimits:
    """Seconds; NEVER where nothing runs out."""

    max_duration_s: float = NEVER
    """The whole exchange, however much moves (flag DT)."""
    try_timeout_s: float = NEVER
    try_idle_timeout_s: float = NEVER
    hedges: bool = False
    """At the per-try timeout another attempt starts beside the one that is late."""
    replay_bytes: int = MAX_REPLAY_BYTES
    """A larger request body is not kept, so the request is not repeated."""
    tells_attempts: bool = False
    """Responses say how many attempts they took."""


def limits_of(compiled: CompiledRoute | None, retry: RetryPolicy | None) -> RouteLimits:
    """The limits of a route; those of no route when `compiled` is None."""
    action = compiled.route.action if compiled is not None else None
    if compiled is None or not isinstance(action, Forward):
        return RouteLimits()
    hedge = action.hedge if action.hedge is not None else compiled.host.hedge
    found = compiled.route.buffer_limit_bytes
    if found is None:
        found = compiled.host.buffer_limit_bytes
    return RouteLimits(
        max_duration_s=action.max_stream_duration_s or NEVER,
        try_timeout_s=(retry.per_try_timeout_s if retry is not None else None) or NEVER,
        try_idle_timeout_s=(retry.per_try_idle_timeout_s if retry is not None else None) or NEVER,
        hedges=hedge is not None and hedge.on_per_try_timeout and retry is not None,
        replay_bytes=MAX_REPLAY_BYTES if found is None else found,
        tells_attempts=compiled.host.include_attempt_count_in_response,
    )


def first_check_s(route: "RouteRuntime") -> float:
    """The earliest moment at which anything about a request of this route can run out, from its start."""
    limits = route.limits
    nearest = min(route.timeout_s, route.idle_timeout_s, limits.max_duration_s)
    nearest = min(nearest, limits.try_timeout_s, limits.try_idle_timeout_s)
    nearest = min(nearest, route.runtime.filter.request_timeout_s or NEVER)
    durations = [b.cluster.config.max_stream_duration_s for b in route.branches if b.cluster is not None]
    return min([nearest, *(duration or NEVER for duration in durations)])


def expected_ms(route: "RouteRuntime", elapsed_s: float) -> int:
    """For x-envoy-expected-rq-timeout-ms: how long the upstream has, >= 1; 0 when nothing runs out.

    With hedging a late attempt goes on, so only the route's timeout counts. Source: Envoy, FilterUtility::setTimeoutHeaders.
    """
    limits = route.limits
    left = max(route.timeout_s - elapsed_s, 0.001)
    expected = left if limits.hedges else min(limits.try_timeout_s, left)
    return 0 if expected == NEVER else max(1, round(expected * 1000.0))


def expected_line(route: "RouteRuntime") -> bytes:
    """The header line that tells the upstream of the first attempt; empty when nothing runs out."""
    expected = expected_ms(route, 0.0)
    return b"%b%d" % (EXPECTED_TIMEOUT, expected) if expected else b""


def refresh_expected(route: "RouteRuntime", wire: bytes, elapsed_s: float) -> bytes:
    """`wire`, a request head, with the time that is left after `elapsed_s` instead of what its first attempt had."""
    first, now = expected_ms(route, 0.0), expected_ms(route, elapsed_s)
    if first == now:
        return wire
    return wire.replace(b"\r\n%b%d\r\n" % (EXPECTED_TIMEOUT, first), b"\r\n%b%d\r\n" % (EXPECTED_TIMEOUT, now), 1)
