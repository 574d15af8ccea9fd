"""What a request's own `x-envoy-*` headers change about its retries and timeouts, and whom we believe.

- Outbound, from our own app: Envoy's overrides (x-envoy-retry-on and so on) count.
- Inbound: the caller's proxy says what it expects and that it retries itself. That can only make us stricter, so that a liar harms
  nobody but himself; see docs/adr/0008.
- At an edge (`use_remote_address`): nothing counts.
Everywhere these headers are taken off the request; what the next hop should know is written anew.
DEVIATION: Envoy honours the overrides at inbound too, and at an edge from private addresses.
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mesh.http.request import RequestHead
from mesh.http.syntax import ATTEMPT_COUNT, PROXY_HINT
from mesh.resilience.retry import RetryOn, RetryPolicy, parse_retry_names
from sidecar.config import Direction
from sidecar.route_limits import first_check_s
from sidecar.timers import NEVER

if TYPE_CHECKING:
    from sidecar.runtime import RouteRuntime

_ATTEMPTS = b"x-envoy-attempt-count"
_EXPECTED = b"x-envoy-expected-rq-timeout-ms"
_TIMEOUT = b"x-envoy-upstream-rq-timeout-ms"
_TRY_TIMEOUT = b"x-envoy-upstream-rq-per-try-timeout-ms"
_RETRY_ON = (b"x-envoy-retry-on", b"x-envoy-retry-grpc-on")
_STATUSES = b"x-envoy-retriable-status-codes"
_MAX_RETRIES = b"x-envoy-max-retries"
_HEDGE = b"x-envoy-hedge-on-per-try-timeout"

MAX_RETRIES = 10
"""A request cannot ask for more. DEVIATION: Envoy sets no bound."""

HINTS = PROXY_HINT | ATTEMPT_COUNT
"""Kinds of header lines that are read here."""
MAX_VARIANTS = 256
"""Of one route: what its requests say differs little."""
MAX_KEPT_BYTES = 512
"""Longer lines are read anew each time."""

Hints = tuple[bytes, ...]
"""The header lines that say something, as they came."""
_Said = Mapping[bytes, bytes]


def adjusted_route(route: "RouteRuntime", head: RequestHead) -> "RouteRuntime":
    """The route as this request's headers change it; the same object when they don't. Call it for heads with HINTS."""
    is_edge = route.runtime.filter.use_remote_address and route.runtime.direction is Direction.OUTBOUND
    if route.compiled is None or not route.forwards or is_edge:
        return route
    lines: Hints = tuple(line for kind, line, _ in head.special if kind & HINTS)
    known = route.variants.get(lines)
    if known is None:
        known = _adjusted(route, lines)
        if sum(map(len, lines)) <= MAX_KEPT_BYTES:
            if len(route.variants) >= MAX_VARIANTS:
                route.variants.clear()
            route.variants[lines] = known
    return known


def _adjusted(route: "RouteRuntime", lines: Hints) -> "RouteRuntime":
    parts = (line.partition(b":") for line in lines)
    said = {name.lower(): value.strip(b" \t") for name, _, value in parts}
    if route.runtime.direction is Direction.INBOUND:
        return _bounded_by_caller(route, said)
    return _overridden_by_app(route, said)


def _number(hints: _Said, name: bytes) -> int | None:
    value = hints.get(name, b"")
    return int(value) if value.isdigit() and len(value) <= 9 else None


def _bounded_by_caller(route: "RouteRuntime", hints: _Said) -> "RouteRuntime":
    """One layer retries: the caller's. And what it will not wait for is not worth doing."""
    expected = _number(hints, _EXPECTED)
    if not expected and _ATTEMPTS not in hints:
        return route
    retry = route.retry.only_connecting() if route.retry is not None else None
    timeout_s = min(route.timeout_s, expected / 1000.0) if expected else route.timeout_s
    if retry == route.retry and timeout_s == route.timeout_s:
        return route
    return _with(route, retry=retry, timeout_s=timeout_s)


def _overridden_by_app(route: "RouteRuntime", hints: _Said) -> "RouteRuntime":
    retry = _retry(route.retry, hints)
    timeout_ms = _number(hints, _TIMEOUT)
    timeout_s = route.timeout_s if timeout_ms is None else timeout_ms / 1000.0 or NEVER
    try_ms = _number(hints, _TRY_TIMEOUT)
    if try_ms is not None and retry is not None:
        retry = dataclasses.replace(retry, per_try_timeout_s=try_ms / 1000.0 or None)
    hedge = {b"true": True, b"false": False}.get(hints.get(_HEDGE, b"").lower(), route.limits.hedges)
    if retry == route.retry and timeout_s == route.timeout_s and hedge == route.limits.hedges:
        return route
    changed = _with(route, retry=retry, timeout_s=timeout_s)
    changed.limits = dataclasses.replace(changed.limits, hedges=hedge and retry is not None)
    # Heads of responses are known per branch, and by the route's own policy: another one must look at each of them.
    changed.is_special = changed.is_special or retry != route.retry
    return changed


def _retry(policy: RetryPolicy | None, hints: _Said) -> RetryPolicy | None:
    """The route's conditions and the request's; its number of retries wins. Source: Envoy, x-envoy-retry-on, x-envoy-max-retries."""
    conditions, statuses = RetryOn.NONE, frozenset[int]()
    for name in _RETRY_ON:
        more, more_statuses, _ = parse_retry_names(hints.get(name, b"").decode("latin-1"))
        conditions, statuses = conditions | more, statuses | more_statuses
    listed = hints.get(_STATUSES, b"").decode("latin-1").split(",")
    statuses |= {int(one) for one in map(str.strip, listed) if one.isascii() and one.isdecimal() and len(one) == 3}
    count = _number(hints, _MAX_RETRIES)
    if policy is None and not conditions:
        return None
    base = policy or RetryPolicy()
    return dataclasses.replace(
        base,
        conditions=base.conditions | conditions,
        retriable_statuses=base.retriable_statuses | statuses,
        max_retries=base.max_retries if count is None else min(count, MAX_RETRIES),
    )


def _with(route: "RouteRuntime", *, retry: RetryPolicy | None, timeout_s: float) -> "RouteRuntime":
    changed = copy.copy(route)
    changed.shapes, changed.last_shapes = {}, {}
    changed.timeout_s = timeout_s
    changed.take_retry(retry)
    changed.first_check_s = first_check_s(changed)
    return changed
