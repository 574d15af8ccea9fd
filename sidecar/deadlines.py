"""What may run out while a request is under way: the exchange's time, the route's, the attempt's, and patience with silence."""

import time
from typing import TYPE_CHECKING

from mesh.resilience.outlier import FailureKind
from mesh.resilience.retry import Failure
from sidecar import flags as flag
from sidecar.code_details import TRY_IDLE_TIMEOUT, TRY_TIMEOUT
from sidecar.hedging import hedge
from sidecar.retrying import cancel_retry, fail, timeout_at
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
    nearest = min(_idle_at(exchange), _duration_at(exchange), _attempt_duration_at(exchange))
    if exchange.is_tunnel:
        return nearest
    if not exchange.request_done:
        return min(nearest, _request_at(exchange))
    nearest = min(nearest, timeout_at(exchange), _try_idle_at(exchange))
    return nearest if exchange.has_responded else min(nearest, _try_timeout_at(exchange))


def _idle_at(exchange: "Exchange") -> float:
    return max(exchange.started, exchange.last_move) + exchange.route.idle_timeout_s


def _duration_at(exchange: "Exchange") -> float:
    return exchange.started + exchange.route.limits.max_duration_s


def _attempt_since(exchange: "Exchange") -> float:
    """When the attempt at hand began. (The short way does not note it: then it is the request's start.)"""
    return max(exchange.started, exchange.attempt_at)


def _attempt_duration_at(exchange: "Exchange") -> float:
    host = exchange.host
    limit = host.cluster.config.max_stream_duration_s if host is not None else None
    return NEVER if limit is None else _attempt_since(exchange) + limit


def _try_timeout_at(exchange: "Exchange") -> float:
    if exchange.host is None or (exchange.race is not None and exchange.race.own_is_late):
        return NEVER
    since = _attempt_since(exchange)
    if exchange.template.has_body:
        since = max(since, exchange.request_done_at)
    return since + exchange.route.limits.try_timeout_s


def _try_idle_at(exchange: "Exchange") -> float:
    if exchange.host is None:
        return NEVER
    return max(_attempt_since(exchange), exchange.last_move) + exchange.route.limits.try_idle_timeout_s


def _request_at(exchange: "Exchange") -> float:
    """Source: Envoy request_timeout: from the beginning of the request until all of it is there."""
    return exchange.started + (exchange.runtime.filter.request_timeout_s or NEVER)


def on_deadline(exchange: "Exchange", now: float) -> None:
    """Something may have run out."""
    if next_deadline(exchange) > now:
        exchange.connection.deadline = next_deadline(exchange)
        return
    if _duration_at(exchange) <= now:
        limit_s = exchange.route.limits.max_duration_s
        _end(exchange, flag.DURATION_TIMEOUT, f"it took longer than its {limit_s:g} s in all")
    elif _attempt_duration_at(exchange) <= now:
        _end_attempt_duration(exchange)
    elif not exchange.request_done and not exchange.is_tunnel and _request_at(exchange) <= now:
        limit_s = exchange.runtime.filter.request_timeout_s
        _end(exchange, flag.STREAM_IDLE_TIMEOUT, f"the request did not come whole within {limit_s:g} s")
    elif not exchange.request_done or exchange.is_tunnel:
        _end_idle(exchange)
    elif timeout_at(exchange) <= now:
        _time_out(exchange)
    elif not exchange.has_responded and _try_timeout_at(exchange) <= now:
        _end_try(exchange, now)
    elif _try_idle_at(exchange) <= now:
        _end_silent_try(exchange, now)
    else:
        _end_idle(exchange)


def _end_try(exchange: "Exchange", now: float) -> None:
    host = exchange.host
    assert host is not None
    host.cluster.counts.try_timeouts += 1
    if not hedge(exchange, now):
        limit_s = exchange.route.limits.try_timeout_s
        _give_up_try(exchange, TRY_TIMEOUT, f"no response from {host.text} within the try's {limit_s:g} s")
    if exchange.is_active:
        set_deadline(exchange, now)


def _end_silent_try(exchange: "Exchange", now: float) -> None:
    host = exchange.host
    assert host is not None
    host.cluster.counts.try_idle_timeouts += 1
    why = f"nothing moved between us and {host.text} for {exchange.route.limits.try_idle_timeout_s:g} s"
    if exchange.has_responded:
        host.cluster.fail(host, FailureKind.LOCAL_ORIGIN, now)
        exchange.code = TRY_IDLE_TIMEOUT
        exchange.cut(flag.UPSTREAM_TIMEOUT, why)
        return
    _give_up_try(exchange, TRY_IDLE_TIMEOUT, why)
    if exchange.is_active:
        set_deadline(exchange, now)


def _give_up_try(exchange: "Exchange", code: str, why: str) -> None:
    was_sent = not exchange.is_waiting
    exchange.drop_upstream()
    fail(exchange, Failure.TRY_TIMEOUT, flag.UPSTREAM_TIMEOUT, why, bytes_sent=was_sent, code=code)


def _end_attempt_duration(exchange: "Exchange") -> None:
    host = exchange.host
    assert host is not None
    host.cluster.counts.max_duration_reached += 1
    limit_s = host.cluster.config.max_stream_duration_s
    _end(exchange, flag.UPSTREAM_MAX_DURATION, f"{host.text} took longer than its cluster's {limit_s:g} s")


def _time_out(exchange: "Exchange") -> None:
    cluster = exchange.branch.cluster
    if cluster is not None:
        cluster.counts.timeouts += 1
    late = exchange.race is not None and exchange.race.own_is_late
    if exchange.host is not None and not late:
        exchange.host.cluster.fail(exchange.host, FailureKind.LOCAL_ORIGIN, time.monotonic())
    _end(exchange, flag.UPSTREAM_TIMEOUT, f"no complete response within {exchange.route.timeout_s:g} s")


def _end_idle(exchange: "Exchange") -> None:
    limit_s = exchange.route.idle_timeout_s
    what = "nothing moved" if exchange.request_done or exchange.has_responded else "the request's body stalled"
    _end(exchange, flag.STREAM_IDLE_TIMEOUT, f"{what} for {limit_s:g} s")


def _end(exchange: "Exchange", flags: str, why: str) -> None:
    """End the exchange: 504, 408 while the client has not sent all of its request, or a broken response."""
    cancel_retry(exchange)
    exchange.ended_at = exchange.host
    exchange.drop_upstream()
    if exchange.has_responded:
        exchange.cut(flags, why)
    else:
        exchange.reply_with(504 if exchange.request_done else 408, flags, why)
