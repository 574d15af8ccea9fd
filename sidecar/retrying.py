"""What happens when an attempt fails: another one, or an answer that says why not."""

import time
from typing import TYPE_CHECKING

from mesh.http.response import ResponseHead
from mesh.resilience.outlier import FailureKind
from mesh.resilience.retry import Failure, RetryPolicy
from mesh.resilience.retry_after import JITTER
from sidecar import flags as flag
from sidecar.cluster import ClusterState
from sidecar.endpoint import EndpointState

if TYPE_CHECKING:
    from sidecar.exchange import Exchange
    from sidecar.upstream import UpstreamConnection

BUDGET_WAIT_S = 0.02
MAX_BUDGET_WAITS = 25


def timeout_at(exchange: "Exchange") -> float:
    """When the route's timeout is over. It starts when the whole request has come (as in Envoy) and no filter holds it."""
    since = exchange.request_done_at if exchange.template.has_body else exchange.started
    return since + exchange.held_s + exchange.route.timeout_s


def may_repeat(exchange: "Exchange") -> bool:
    """Whether the request may be sent again although bytes of it have left."""
    policy = exchange.route.retry
    if policy is not None:
        return policy.may_replay(exchange.method, has_idempotency_key=exchange.template.head.has_idempotency_key)
    return exchange.template.is_idempotent


def fail(exchange: "Exchange", failure: Failure, flags: str, detail: str, *, bytes_sent: bool, code: str = "") -> None:
    """The attempt ended without a response: try again or say so. `code`: see sidecar.code_details."""
    host = exchange.host
    assert host is not None
    host.cluster.fail(host, FailureKind.LOCAL_ORIGIN, time.monotonic())
    exchange.is_dirty = True
    exchange.tried.append(host)
    count_retry(exchange, host)
    exchange.release_host()
    policy = exchange.route.retry
    if policy is not None and _wants(policy, exchange, failure, bytes_sent=bytes_sent):
        if not bytes_sent or may_repeat(exchange):
            if _schedule_retry(exchange, policy, host.cluster, bytes_sent=bytes_sent):
                return
            if exchange.attempts > policy.max_retries:
                host.cluster.counts.retries_limited += 1
                flags = flag.join(flags, flag.RETRIES_EXHAUSTED)
        else:
            detail += f"; {exchange.method.decode()} is not safe to repeat"
    status = 504 if failure is Failure.TRY_TIMEOUT else 502 if failure is Failure.PROTOCOL else 503
    exchange.ended_at = host
    if exchange.race is not None and exchange.race.own_lost(status, flags, detail):
        return
    exchange.code = code
    exchange.reply_with(status, flags, detail)


def _wants(policy: RetryPolicy, exchange: "Exchange", failure: Failure, *, bytes_sent: bool) -> bool:
    return policy.wants_failure(failure, bytes_sent=bytes_sent) and policy.wants_request(exchange.template.head.header)


def _schedule_retry(
    exchange: "Exchange",
    policy: RetryPolicy,
    cluster: ClusterState,
    *,
    bytes_sent: bool,
    server_wait_s: float | None = None,
) -> bool:
    """Try another host in a little while. False: no more tries, the body is gone, or retries are not allowed at all.

    `server_wait_s`: the response asked for this wait. A wait that outlasts the route's timeout is not begun.
    """
    if exchange.attempts > policy.max_retries or not exchange.has_replay:
        return False
    give_back(exchange)
    exchange.is_dirty = True
    # Nothing was delivered, so another attempt adds no load: it needs no place in the budget.
    exchange.needs_budget = bytes_sent
    if bytes_sent and not cluster.config.limits.retry_budget.is_open:
        exchange.detail = "retries are switched off by the cluster's budget"
        exchange.flags = flag.UPSTREAM_OVERFLOW
        cluster.counts.retries_refused += 1
        return False
    rng = exchange.plane.rng
    if server_wait_s is None:
        cluster.counts.backoffs += 1
        delay_s = policy.delay_s(exchange.attempts, rng)
    else:
        delay_s = server_wait_s * (1.0 + JITTER * rng.random())
        if time.monotonic() + delay_s >= timeout_at(exchange):
            exchange.detail = f"the response asks for {server_wait_s:g} s until the next try, longer than is left"
            return False
        cluster.counts.backoffs_by_server += 1
    exchange.attempts += 1
    exchange.budget_waits = 0
    exchange.is_plain = False
    exchange.retry_timer = exchange.plane.loop.call_later(delay_s, _retry, exchange)
    return True


def _retry(exchange: "Exchange") -> None:
    exchange.retry_timer = None
    now = time.monotonic()
    cluster = exchange.branch.cluster
    assert cluster is not None
    exchange.last_move = now
    if exchange.needs_budget:
        if not cluster.may_retry():
            _wait_for_budget(exchange, cluster)
            return
        cluster.retries += 1
        exchange.is_retrying = True
    exchange.attempt(other_host(exchange), cluster, now)
    if exchange.is_active:
        exchange.extend_deadline(now)  # the attempt has limits of its own


def _wait_for_budget(exchange: "Exchange", cluster: ClusterState) -> None:
    """DEVIATION: Envoy fails the request at once; when one endpoint of several dies, a burst of its requests needs more retries
    at once than the budget has. Here they wait for their turn, for half a second or so."""
    exchange.budget_waits += 1
    if exchange.budget_waits > MAX_BUDGET_WAITS:
        cluster.counts.retries_refused += 1
        exchange.ended_at = exchange.tried[-1]
        why = "no place in the retry budget"
        if exchange.race is None or not exchange.race.own_lost(503, flag.UPSTREAM_OVERFLOW, why):
            exchange.reply_with(503, flag.UPSTREAM_OVERFLOW, why)
        return
    delay_s = BUDGET_WAIT_S * (0.5 + exchange.plane.rng.random())
    exchange.retry_timer = exchange.plane.loop.call_later(delay_s, _retry, exchange)


def other_host(exchange: "Exchange") -> EndpointState | None:
    """Where to try next: a host that has not been tried, while there is one."""
    cluster = exchange.branch.cluster
    assert cluster is not None
    if cluster.picker is None:
        return cluster.original_host(exchange.connection.original_destination)
    policy = exchange.route.retry
    tried = exchange.tried if policy is None or policy.avoid_previous_hosts else []
    if policy is not None and policy.avoid_labels:
        tried = [*tried, *cluster.hosts_with(policy.avoid_labels)]
    return cluster.pick_for(
        hash_key=exchange.hash_key, labels=exchange.branch.labels, pinned=exchange.pinned, tried=tried
    )


def give_back(exchange: "Exchange") -> None:
    """The retry at hand is over: give its place in the budget back."""
    if exchange.is_retrying:
        exchange.is_retrying = False
        cluster = exchange.branch.cluster
        assert cluster is not None
        cluster.retries -= 1


def settle_retry(exchange: "Exchange") -> None:
    """No more attempts: the response has begun or the request is over. Attempts beside the one at hand are cancelled."""
    give_back(exchange)
    if exchange.race is not None:
        exchange.race.end()
        exchange.race = None


def win_attempt(exchange: "Exchange") -> None:
    """The attempt at hand has brought the response that the client gets."""
    if exchange.attempts > 1:
        cluster = exchange.branch.cluster
        assert cluster is not None
        if not exchange.flags:
            cluster.counts.retries_succeeded += 1
    if exchange.route.limits.tells_attempts:
        exchange.added_lines.append(b"x-envoy-attempt-count: %d" % exchange.attempts)
    settle_retry(exchange)


def count_retry(exchange: "Exchange", host: EndpointState) -> None:
    """An attempt has ended at `host`; count it if it was not the first."""
    if exchange.attempts > 1:
        exchange.branch.series_for(host).retries += 1


def try_elsewhere(
    exchange: "Exchange", upstream: "UpstreamConnection", head: ResponseHead, status: int, *, is_whole: bool
) -> bool:
    """Throw this response away and try again, if it is worth it, safe and allowed. `is_whole`: all of it has been read."""
    policy = exchange.route.retry
    if policy is None or not policy.wants_response(status, head.header):
        return False
    if not policy.wants_request(exchange.template.head.header):
        return False
    if not may_repeat(exchange):
        exchange.detail = f"{exchange.method.decode()} is not safe to repeat"
        return False
    host = upstream.host
    exchange.tried.append(host)
    wait_s = policy.server_wait_s(status, head.header, time.time())
    if not _schedule_retry(exchange, policy, host.cluster, bytes_sent=True, server_wait_s=wait_s):
        if exchange.attempts > policy.max_retries:
            host.cluster.counts.retries_limited += 1
            exchange.flags = flag.RETRIES_EXHAUSTED
        why = f"{host.text} answered {status}, and no other attempt did better"
        if exchange.race is None or not exchange.race.own_lost(status, exchange.flags, why):
            return False
    exchange.release_host()
    exchange.upstream = None
    drop_response(exchange, upstream, head, is_whole=is_whole)
    return True


def drop_response(exchange: "Exchange", upstream: "UpstreamConnection", head: ResponseHead, *, is_whole: bool) -> None:
    """Throw a response away; its connection is kept when that costs nothing."""
    if is_whole and head.keep_alive and exchange.request_done:
        upstream.forget_response()
        exchange.plane.pool.keep(upstream)
    else:
        exchange.plane.pool.discard(upstream)


def cancel_retry(exchange: "Exchange") -> None:
    """The request has ended while its next attempt was waiting."""
    if exchange.retry_timer is not None:
        exchange.retry_timer.cancel()
        exchange.retry_timer = None
