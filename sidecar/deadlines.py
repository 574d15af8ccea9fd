"""What may run out while a request is under way: the route's timeout, the try's, and patience with silence."""

import time
from typing import TYPE_CHECKING

from mesh.resilience.outlier import FailureKind
from mesh.resilience.retry import Failure
from sidecar import flags as flag
from sidecar.retrying import cancel_retry, fail
from sidecar.timers import NEVER

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


def set_deadline(exchange: "Exchange", now: float) -> None:
    """Tell the connection when to look at this request again."""
    connection = exchange.connection
    connection.deadline = next_deadline(exchange)
    if connection.deadline < connection.wheel_at:
        exchange.plane.wheel.watch(connection, now)


def next_deadline(exchange: "Exchange") -> float:
    """When something about this request runs out."""
    route = exchange.route
    moved = max(exchange.started, exchange.last_move)
    nearest = moved + route.idle_timeout_s
    if not exchange.request_done or exchange.is_tunnel:
        return nearest
    nearest = min(nearest, _timeout_at(exchange))
    return nearest if exchange.has_responded else min(nearest, _try_timeout_at(exchange))


def _timeout_at(exchange: "Exchange") -> float:
    """Source: Envoy: the route's timeout starts when the whole request has come."""
    since = exchange.request_done_at if exchange.template.has_body else exchange.started
    return since + exchange.held_s + exchange.route.timeout_s


def _try_timeout_at(exchange: "Exchange") -> float:
    policy = exchange.route.retry
    if policy is None or policy.per_try_timeout_s is None or exchange.retry_timer is not None:
        return NEVER
    since = exchange.last_move if exchange.attempts > 1 or exchange.template.has_body else exchange.started
    return since + policy.per_try_timeout_s


def on_deadline(exchange: "Exchange", now: float) -> None:
    """Something may have run out."""
    if next_deadline(exchange) > now:
        exchange.connection.deadline = next_deadline(exchange)
        return
    route = exchange.route
    if exchange.request_done and not exchange.is_tunnel and _timeout_at(exchange) <= now:
        _time_out(exchange, f"no complete response within {route.timeout_s:g} s")
    elif exchange.request_done and not exchange.has_responded and _try_timeout_at(exchange) <= now:
        was_sent = not exchange.is_waiting
        exchange.drop_upstream()
        policy = route.retry
        assert policy is not None
        host = exchange.host.text if exchange.host is not None else "the endpoint"
        why = f"no response from {host} within the try's {policy.per_try_timeout_s:g} s"
        fail(exchange, Failure.TRY_TIMEOUT, flag.UPSTREAM_TIMEOUT, why, bytes_sent=was_sent)
        if exchange.is_active:
            set_deadline(exchange, now)
    elif exchange.has_responded:
        exchange.cut(flag.STREAM_IDLE_TIMEOUT, f"nothing moved for {route.idle_timeout_s:g} s")
    elif exchange.request_done:
        _time_out(exchange, f"nothing moved for {route.idle_timeout_s:g} s")
    else:
        exchange.drop_upstream()
        exchange.reply_with(408, flag.STREAM_IDLE_TIMEOUT, f"the request's body stalled for {route.idle_timeout_s:g} s")


def _time_out(exchange: "Exchange", why: str) -> None:
    cancel_retry(exchange)
    exchange.drop_upstream()
    if exchange.has_responded:
        exchange.cut(flag.UPSTREAM_TIMEOUT, why)
        return
    if exchange.host is not None:
        exchange.host.cluster.fail(exchange.host, FailureKind.LOCAL_ORIGIN, time.monotonic())
    exchange.reply_with(504, flag.UPSTREAM_TIMEOUT, why)
