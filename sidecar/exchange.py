"""One request and its response: route, endpoint, attempts, response, accounts.

A downstream connection has one `Exchange` and uses it for all its requests, one after the other; so nothing is allocated per request on the
short way: `begin` writes the ready-made head to an idle connection, `complete` writes the ready-made response head and the body, and
adds to the counters. These two methods are flat on purpose (measured: they are most of the Python time of a request). All else, from
waiting for a connection to retries, streams and upgrades, goes the long way.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh.http.body import chunk, last_chunk
from mesh.http.errors import HttpSyntaxError
from mesh.http.response import BodyKind, ResponseHead
from mesh.resilience.outlier import FailureKind
from mesh.resilience.retry import Failure
from mesh.telemetry.trace_context import TraceContext
from sidecar import flags as flag
from sidecar.cluster import ClusterState
from sidecar.connect import terminates
from sidecar.deadlines import on_deadline, set_deadline
from sidecar.deciding import decide
from sidecar.endpoint import EndpointState
from sidecar.filters.chain import end_filters, response_lines, run_filters
from sidecar.own_lines import own_lines, recount_attempt
from sidecar.records import record_of
from sidecar.replies import reply
from sidecar.response_head import response_wire
from sidecar.retrying import (
    cancel_retry,
    count_retry,
    fail,
    may_repeat,
    other_host,
    settle_retry,
    try_elsewhere,
    win_attempt,
)
from sidecar.route_limits import refresh_expected
from sidecar.stats import FOLD_AT

if TYPE_CHECKING:
    from sidecar.downstream import DownstreamConnection
    from sidecar.filters.mirror import Copies
    from sidecar.filters.protocol import RequestFilter
    from sidecar.hedging import Race
    from sidecar.plane import Plane
    from sidecar.runtime import Branch, HttpRuntime, RouteRuntime
    from sidecar.templates import RequestTemplate, ResponseTemplate
    from sidecar.upstream import UpstreamConnection

MAX_STALE_RETRIES = 2
"""Fresh starts after a kept connection turned out to be closed by its server; not counted as retries."""
FRESH_ENOUGH_S = 1.0
"""A request that must not be repeated takes only a kept connection that was in use this recently."""
MAX_PLAIN_REQUEST_BYTES = 16384
"""A request up to this fits into the kernel's buffer of an idle connection."""

_SERVICE_TIME = tuple(b"x-envoy-upstream-service-time: %d\r\n\r\n" % ms for ms in range(1000))


class Exchange:
    """The request at hand of one downstream connection."""

    __slots__ = (
        "added_lines",
        "attempt_at",
        "attempts",
        "branch",
        "budget_waits",
        "closes",
        "code",
        "connection",
        "copies",
        "detail",
        "ended_at",
        "filters_asked",
        "flags",
        "has_replay",
        "has_responded",
        "hash_key",
        "held_s",
        "host",
        "is_active",
        "is_chunking",
        "is_dirty",
        "is_plain",
        "is_retrying",
        "is_tunnel",
        "is_waiting",
        "last_move",
        "needs_budget",
        "notes",
        "out",
        "own_lines",
        "pinned",
        "plane",
        "race",
        "replay",
        "replay_bytes",
        "request_bytes",
        "request_done",
        "request_done_at",
        "request_id",
        "response_bytes",
        "retry_timer",
        "stale_retries",
        "started",
        "status",
        "template",
        "trace",
        "tried",
        "tunnel_eofs",
        "unsent",
        "upstream",
        "upstream_keeps_alive",
    )
    template: "RequestTemplate"
    branch: "Branch"

    def __init__(self, connection: "DownstreamConnection", plane: "Plane") -> None:
        self.connection = connection
        self.plane = plane
        self.host: EndpointState | None = None
        self.upstream: UpstreamConnection | None = None
        self.is_plain = False
        """The response at hand may take the short way."""
        self.is_active = False
        self.out: list[bytes] = []
        """For the client, collected during one read from the upstream."""
        self.unsent = b""
        """The request's head, held back for the first bytes of its body."""
        self.started = self.request_done_at = self.last_move = self.attempt_at = 0.0
        self.request_bytes = 0
        self.request_id = b""
        self.own_lines = b""
        """Header lines made for this request, the same in every attempt."""
        self.upstream_keeps_alive = False
        self.retry_timer: asyncio.TimerHandle | None = None
        self.trace: TraceContext | None = None
        self.request_done = True
        self._reset()

    def _reset(self) -> None:
        """Everything that only the long way changes; whoever changes it sets `is_dirty`."""
        self.is_dirty = False
        self.attempts = 1
        self.stale_retries = 0
        self.budget_waits = 0
        self.needs_budget = True
        self.tried: list[EndpointState] = []
        self.race: Race | None = None
        """Attempts beside the one at hand (hedging)."""
        self.status = 0
        self.flags = flag.NONE
        self.detail = ""
        self.code = ""
        """Envoy's word for how it ended, where the flags don't tell. See sidecar.code_details."""
        self.replay: list[bytes] = []
        self.replay_bytes = 0
        self.has_replay = True
        self.has_responded = False
        self.is_waiting = False
        self.is_retrying = False
        self.is_chunking = False
        self.is_tunnel = False
        self.tunnel_eofs = 0
        self.closes = False
        self.response_bytes = 0
        self.trace = None
        self.ended_at: EndpointState | None = None
        self.filters_asked = 0
        """How many of the route's filters have seen the request."""
        self.added_lines: list[bytes] = []
        """Header lines for the response, from what was decided about the request."""
        self.hash_key: int | None = None
        """From the route's hash policy; clusters with a hashing policy pick by it."""
        self.pinned: tuple[str, int] | None = None
        """The endpoint that the client's session belongs to: taken while it can be used."""
        self.notes: dict[RequestFilter, object] | None = None
        """What filters remember about this request."""
        self.held_s = 0.0
        """How long filters held it; the route's timeout begins afterwards."""
        self.copies: Copies | None = None
        """Copies of the request that mirrors want."""

    @property
    def route(self) -> "RouteRuntime":
        """What the request was routed by."""
        return self.template.shape.route

    @property
    def runtime(self) -> "HttpRuntime":
        """The configuration it began with."""
        return self.template.shape.route.runtime

    @property
    def method(self) -> bytes:
        return self.template.shape.method

    # -- the short way

    def begin(self, template: "RequestTemplate", body: bytes = b"") -> None:
        """Start on a request whose head is complete. `body`: all of it, or empty when the connection feeds it later."""
        self.started = now = time.monotonic()
        self.template = template
        self.is_active = True
        self.request_bytes = template.size_bytes
        shape = template.shape
        if shape.has_body:
            self._begin_with_body(body, now)
        route = shape.route
        if route.is_single:
            branch = route.branches[0]
        else:
            branch = route.branches[route.pick(route.draw())]
        self.branch = branch
        connection = self.connection
        connection.deadline = deadline = now + route.first_check_s
        if deadline < connection.wheel_at:
            self.plane.wheel.watch(connection, now)
        cluster = branch.cluster
        if route.is_special or cluster is None or cluster.picker is None or cluster.active >= cluster.max_requests:
            self._begin_slowly(now)
            return
        host = cluster.picker.pick(route.draw)
        if (
            host is None
            or not host.idle
            or not (shape.is_quick or (body and now - host.idle[-1].idle_since <= FRESH_ENOUGH_S))
        ):
            self.attempt(host, cluster, now)
            return
        self.host = host
        cluster.active += 1
        host.active += 1
        self.upstream = upstream = host.idle.pop()
        upstream.owner = self
        upstream.requests += 1
        self.is_plain = shape.is_plain and not self.plane.is_draining
        wire = template.wires.get(branch.index) or template.wire(branch)
        if shape.is_static:
            upstream.transport.write(wire + body if body else wire)
        else:
            upstream.transport.write(wire + own_lines(self, template) + body)

    def _begin_with_body(self, body: bytes, now: float) -> None:
        self.is_dirty = True
        self.request_done = bool(body)
        if body:
            self.request_bytes += len(body)
            self.request_done_at = now
            self.replay.append(body)
            self.replay_bytes = len(body)

    def complete(self, upstream: "UpstreamConnection", known: "ResponseTemplate", data: bytes, end: int) -> None:
        """A plain request's whole response is in `data`; its head, which ends at `end`, is `known`."""
        now = time.monotonic()
        elapsed_ms = (now - self.started) * 1000.0
        connection = self.connection
        whole_ms = int(elapsed_ms)
        service_time = _SERVICE_TIME[whole_ms] if whole_ms < 1000 else _service_time(whole_ms)
        self.upstream = None  # before the write: a client that does not read must not pause a connection that is kept
        connection.transport.write(known.wire + service_time + data[end:])
        host = self.host
        assert host is not None
        host.active -= 1
        host.cluster.active -= 1
        upstream.owner = None
        if host.keeps_simply:
            upstream.idle_since = now
            host.idle.append(upstream)
        else:
            self._measure(host, now)
            self.plane.pool.keep(upstream)
        health = host.health
        health.successes += 1
        if health.has_failures:
            health.succeed()
        branch = self.branch
        plan = known.plan
        result = plan.results.get(host)
        if result is None:
            result = plan.results[host] = branch.series_for(host).result(plan.status, flag.NONE)
        pending = result.pending
        pending.append((elapsed_ms, self.request_bytes, known.size_bytes))
        if len(pending) >= FOLD_AT:
            result.fold()
        self.is_active = False
        self.is_plain = False
        if branch.is_recorded or self.trace is not None:
            self.status = plan.status
            self.response_bytes = known.size_bytes
            self.is_dirty = True
            self._record(elapsed_ms, host)
        if self.is_dirty:
            if self.attempts > 1:
                branch.series_for(host).retries += 1
            win_attempt(self)
            self._reset()
        connection.on_exchange_end(now)

    def begin_stream(self, known: "ResponseTemplate", data: bytes, end: int) -> None:
        """As `complete`, but `data` holds only the beginning of the body; the rest comes by `on_stream`, then `on_response_end`."""
        now = self.last_move = time.monotonic()
        host = self.host
        assert host is not None
        self._measure(host, now)
        host.health.successes += 1
        if host.health.has_failures:
            host.health.succeed()
        count_retry(self, host)
        win_attempt(self)
        self.stop_replay()
        self.is_plain = False
        self.is_dirty = self.has_responded = True
        self.status = known.plan.status
        self.response_bytes = len(data)
        set_deadline(self, now)
        head = known.wire + _service_time(int((now - self.started) * 1000))
        self.connection.transport.writelines([head, memoryview(data)[end:]])

    def on_stream(self, data: bytes) -> None:
        """More of the body."""
        self.response_bytes += len(data)
        self.last_move = time.monotonic()
        self.connection.transport.write(data)

    def _measure(self, host: EndpointState, now: float) -> None:
        """The attempt at hand was answered well: policies that go by latency want to know when."""
        if host.latency is not None:
            host.latency.observe(now - max(self.started, self.attempt_at), now)

    # -- attempts

    def _begin_slowly(self, now: float) -> None:
        if self.runtime.limits_connections:
            self.connection.count_request()
        if not self.route.filters or run_filters(self, now):
            decide(self, now)

    def note(self, of: "RequestFilter", value: object) -> None:
        """Remember something for a filter until the request is over."""
        if self.notes is None:
            self.notes = {}
        self.notes[of] = value

    def noted(self, of: "RequestFilter") -> object:
        """What the filter has noted; None when nothing."""
        return self.notes.get(of) if self.notes is not None else None

    def take_branch(self, index: int) -> None:
        """A filter knows better than chance which branch of the split it is."""
        self.branch = self.route.branches[index]

    def hold(self, delay_s: float, then: Callable[[], None]) -> None:
        """A filter keeps the request for a while; `then` goes on or answers. Forgotten when the request ends before."""
        self.held_s += delay_s
        self.retry_timer = self.plane.loop.call_later(delay_s, self._end_hold, then)

    def _end_hold(self, then: Callable[[], None]) -> None:
        self.retry_timer = None
        then()

    def go_on(self) -> None:
        """A filter that held the request lets it go."""
        now = self.last_move = time.monotonic()
        if run_filters(self, now):
            decide(self, now)
            if self.is_active:
                set_deadline(self, now)
                self.flush_request()

    def attempt(self, host: EndpointState | None, cluster: ClusterState, now: float) -> None:
        """Send the request to `host`, on a kept connection or a new one."""
        if self.attempts == 1 and not self.stale_retries:
            self.own_lines = b""  # those of the request before
        if host is None:
            self.reply_with(503, flag.NO_HEALTHY_UPSTREAM, f'cluster "{cluster.config.name}" has no usable endpoint')
            return
        self.host = host
        self.attempt_at = now
        host.active += 1
        cluster.active += 1
        if self.method == b"CONNECT" and terminates(self):
            self.is_waiting = True
            if not self.plane.pool.open_tunnel(host, self):
                self._refuse_waiting(f'cluster "{cluster.config.name}": too many connections')
            return
        upstream = host.idle[-1] if host.idle else None
        if upstream is not None and (
            self.stale_retries or (not may_repeat(self) and now - upstream.idle_since > FRESH_ENOUGH_S)
        ):
            upstream = None
        if upstream is not None:
            host.idle.pop()
            self.on_connection(upstream, holds_back=not self.request_done and not self.replay and self.attempts == 1)
            return
        self.is_waiting = True
        if not self.plane.pool.wait(host, self):
            self._refuse_waiting(f'cluster "{cluster.config.name}": too many requests wait')

    def _refuse_waiting(self, why: str) -> None:
        self.is_waiting = False
        self.release_host()
        self.reply_with(503, flag.UPSTREAM_OVERFLOW, why)

    def on_connection(self, upstream: "UpstreamConnection", *, holds_back: bool = False) -> None:
        """A connection for the attempt at hand. `holds_back`: the head goes out with the body, or by `flush_request`."""
        self.is_waiting = False
        self.upstream = upstream
        upstream.owner = self
        upstream.requests += 1
        template = self.template
        wire = template.wire(self.branch)
        if self.attempts > 1:
            wire = refresh_expected(self.route, wire, time.monotonic() - self.started - self.held_s)
            if template.shape.counts_attempts:
                wire = recount_attempt(wire, self.attempts)
        if not template.shape.is_static:
            wire += own_lines(self, template)
        if self.copies is not None:
            self.copies.on_head(wire)
        if holds_back:
            self.unsent = wire
        else:
            upstream.transport.write(b"".join([wire, *self.replay]) if self.replay else wire)
        if self.connection.is_write_paused:
            upstream.transport.pause_reading()
        if self.replay_bytes > self.route.limits.replay_bytes:
            self.stop_replay()
        if self.request_done:
            self._expect_response()
        if not upstream.is_write_paused:
            self.connection.on_upstream_attached()

    def _expect_response(self) -> None:
        upstream = self.upstream
        if upstream is None or upstream.is_write_paused or self.request_bytes > MAX_PLAIN_REQUEST_BYTES:
            return  # the response may come before all of the request has left: then the connection must not be kept
        if self.template.is_plain and not self.plane.is_draining:
            self.is_plain = True

    def on_connect_failed(self, why: str) -> None:
        self.is_waiting = False
        host = self.host
        assert host is not None
        fail(
            self,
            Failure.CONNECT,
            flag.UPSTREAM_CONNECT_FAILURE,
            f"connection to {host.text} failed: {why}",
            bytes_sent=False,
        )

    def on_upstream_lost(self, upstream: "UpstreamConnection") -> None:
        """The connection closed while it was ours."""
        upstream.owner = None
        self.upstream = None
        self.unsent = b""
        host = upstream.host
        if self.has_responded:
            self.cut(flag.UPSTREAM_CLOSED, f"{host.text} closed the connection in the middle of its response")
            return
        is_stale = upstream.requests > 1 and not upstream.has_partial_head
        if is_stale and self.stale_retries < MAX_STALE_RETRIES and may_repeat(self) and self.has_replay:
            # It was closed while idle, most likely: that is nobody's failure.
            self.stale_retries += 1
            self.is_dirty = True
            self.release_host()
            self.attempt(host if not host.is_removed else other_host(self), host.cluster, time.monotonic())
            return
        fail(
            self,
            Failure.RESET,
            flag.UPSTREAM_CLOSED,
            f"{host.text} closed the connection before it answered",
            bytes_sent=True,
        )

    def on_upstream_malformed(self, upstream: "UpstreamConnection", error: HttpSyntaxError) -> None:
        self.drop_upstream()
        if self.has_responded:
            self.cut(flag.UPSTREAM_PROTOCOL_ERROR, f"{upstream.host.text} broke HTTP: {error.detail}")
        else:
            fail(
                self,
                Failure.PROTOCOL,
                flag.UPSTREAM_PROTOCOL_ERROR,
                f"{upstream.host.text} does not speak proper HTTP/1.1: {error.detail}",
                bytes_sent=True,
            )

    def release_host(self) -> None:
        host = self.host
        if host is not None:
            host.active -= 1
            host.cluster.active -= 1
            self.host = None

    def drop_upstream(self) -> None:
        """Give up the attempt at hand and its connection."""
        upstream, self.upstream = self.upstream, None
        self.unsent = b""
        if upstream is not None:
            self.plane.pool.discard(upstream)
        if self.is_waiting and self.host is not None:
            self.is_waiting = False
            if self.method == b"CONNECT" and terminates(self):
                self.plane.pool.stop_opening(self)
            else:
                self.plane.pool.stop_waiting(self.host, self)

    # -- the request's body

    def on_request_body(self, pieces: list[bytes]) -> None:
        """Payload from the client."""
        wire = chunk(pieces) if self.template.head.chunked else b"".join(pieces)
        self.request_bytes += len(wire)
        self.last_move = time.monotonic()
        self.is_dirty = True
        if self.is_active:
            self._forward_body(wire)

    def on_request_end(self, trailers: list[bytes]) -> None:
        """The client has sent all of its request."""
        self.request_done = self.is_dirty = True
        if not self.is_active:
            return
        self.request_done_at = self.last_move = time.monotonic()
        if self.template.head.chunked:
            self._forward_body(last_chunk(trailers))
        if self.copies is not None:
            self.copies.on_request_end()
        if self.upstream is not None and not self.has_responded:
            self._expect_response()
        set_deadline(self, self.last_move)

    def _forward_body(self, wire: bytes) -> None:
        if self.copies is not None:
            self.copies.on_body(wire)
        if self.has_replay:
            self.replay.append(wire)
            self.replay_bytes += len(wire)
        if self.upstream is not None:
            if self.unsent:
                head, self.unsent = self.unsent, b""
                self.upstream.transport.writelines([head, wire])
            else:
                self.upstream.transport.write(wire)
            if self.replay_bytes > self.route.limits.replay_bytes:
                self.stop_replay()

    def flush_request(self) -> None:
        """Send the head if nothing of the body has come with it."""
        if self.unsent and self.upstream is not None:
            unsent, self.unsent = self.unsent, b""
            self.upstream.transport.write(unsent)

    def stop_replay(self) -> None:
        self.has_replay = False
        self.replay = []
        self.replay_bytes = 0

    @property
    def wants_pause(self) -> bool:
        """Whether the client should stop sending: nobody takes its body yet and enough is kept."""
        return self.is_active and self.upstream is None and self.replay_bytes >= self.route.limits.replay_bytes

    def on_upstream_full(self) -> None:
        self.is_plain = False  # see `_expect_response`
        self.connection.pause_body()

    def on_upstream_ready(self) -> None:
        self.last_move = time.monotonic()
        self.connection.resume_body()

    # -- the response, the long way

    def on_interim(self, head: ResponseHead) -> None:
        """A 1xx. 100 has been said by us already; others are for clients that know them."""
        if head.status != 100 and self.template.head.minor == 1:
            lines = b"".join([line + b"\r\n" for line in head.kept_lines])
            self.connection.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, lines))

    def on_response(
        self, upstream: "UpstreamConnection", head: ResponseHead, kind: BodyKind, *, is_whole: bool
    ) -> bool:
        """A final response's head. False: it is thrown away and the request tried again."""
        now = self.last_move = time.monotonic()
        host = upstream.host
        status = head.status
        if status >= 500:
            gateway = status in (502, 503, 504)
            host.cluster.fail(host, FailureKind.GATEWAY_ERROR if gateway else FailureKind.SERVER_ERROR, now)
        else:
            self._measure(host, now)
            host.health.successes += 1
            if host.health.has_failures:
                host.health.succeed()
        if host.check is not None:
            host.check.on_response(head.kept_lines)
        count_retry(self, host)
        route = self.route
        if (status in route.retry_statuses or route.retries_by_header) and try_elsewhere(
            self, upstream, head, status, is_whole=is_whole
        ):
            return False
        win_attempt(self)
        self.has_responded = True
        self.stop_replay()
        self.status = status
        self.upstream_keeps_alive = head.keep_alive
        set_deadline(self, now)
        self.response_bytes = head.size_bytes
        self.out.append(response_wire(self, head, kind) + _service_time(int((now - self.started) * 1000)))
        return True

    def on_response_body(self, pieces: list[bytes]) -> None:
        wire = chunk(pieces) if self.is_chunking else b"".join(pieces)
        self.response_bytes += len(wire)
        self.last_move = time.monotonic()
        self.out.append(wire)

    def flush_response(self) -> None:
        """Write what has been collected for the client; the upstream calls it after each read."""
        if self.out:
            out, self.out = self.out, []
            self.connection.transport.write(b"".join(out))

    def on_response_end(self, upstream: "UpstreamConnection", trailers: list[bytes], *, keeps: bool) -> None:
        """The response is complete. `keeps`: the connection can take another request."""
        if self.is_chunking:
            self.out.append(last_chunk(trailers))
        self.flush_response()
        self.upstream = None
        upstream.owner = None
        self._finish_upstream(upstream, keeps=keeps and self.request_done)
        self.finish()

    def _finish_upstream(self, upstream: "UpstreamConnection", *, keeps: bool) -> None:
        if keeps and not upstream.is_closed and not upstream.transport.get_write_buffer_size():
            if self.connection.is_write_paused:
                upstream.transport.resume_reading()
            self.plane.pool.keep(upstream)
        else:
            self.plane.pool.discard(upstream)

    def on_downstream_full(self) -> None:
        if self.upstream is not None and not self.upstream.is_closed:
            self.upstream.transport.pause_reading()

    def on_downstream_ready(self) -> None:
        self.last_move = time.monotonic()
        if self.upstream is not None and not self.upstream.is_closed:
            self.upstream.transport.resume_reading()

    # -- ends

    def extend_deadline(self, now: float) -> None:
        """Look again at what may run out: something has moved."""
        set_deadline(self, now)

    def on_deadline(self, now: float) -> None:
        """Something may have run out."""
        on_deadline(self, now)

    def on_client_gone(self) -> None:
        """The client closed its connection. What was begun upstream is cut off."""
        cancel_retry(self)
        self.drop_upstream()
        if self.tunnel_eofs == 0:
            self.flags = flag.join(self.flags, flag.DOWNSTREAM_CLOSED)
            self.detail = "the client went away"
        self._account()

    def on_client_malformed(self, error: HttpSyntaxError) -> None:
        """The body cannot be read on."""
        cancel_retry(self)
        self.drop_upstream()
        if self.has_responded:
            self.cut(flag.DOWNSTREAM_PROTOCOL_ERROR, error.detail)
        else:
            self.reply_with(error.status, flag.DOWNSTREAM_PROTOCOL_ERROR, error.detail)

    def cut(self, flags: str, why: str) -> None:
        """The response has begun, so all that can be said is a broken connection."""
        self.flush_response()
        self.drop_upstream()
        self.flags = flag.join(self.flags, flags)
        self.detail = why
        self._account()
        self.connection.abort()

    def reply_with(self, status: int, flags: str, why: str) -> None:
        self.flags = flag.join(flags, self.flags)
        self.detail = f"{why}; {self.detail}" if self.detail else why
        self.reply_direct(status, self.detail.encode("utf-8", "replace") + b"\n", ())

    def reply_direct(self, status: int, body: bytes, lines: tuple[bytes, ...]) -> None:
        head = self.template.head
        if self.filters_asked or self.added_lines:
            lines = tuple(response_lines(self, status, list(lines)))
        self.status = status
        self.closes = (
            not head.keep_alive or self.plane.is_draining or not self.request_done or self.connection.is_retiring
        )
        if head.minor == 0 and not self.closes:
            lines = (*lines, b"connection: keep-alive")
        wire = reply(
            status,
            body,
            server_line=self.runtime.server_line,
            lines=lines,
            keeps=not self.closes,
            is_head=self.method == b"HEAD",
        )
        self.response_bytes = len(wire)
        self.connection.transport.write(wire)
        self.finish()

    def finish(self) -> None:
        closes = self.closes
        self._account()
        now = time.monotonic()
        if closes or not self.request_done:
            self.connection.linger(now)
        else:
            self.connection.on_exchange_end(now)

    def finish_tunnel(self) -> None:
        """Both ends have sent all."""
        self._account()
        self.connection.close()

    def _account(self) -> None:
        """Count the request where it ended, write it down, and be ready for the next."""
        elapsed_ms = (time.monotonic() - self.started) * 1000.0
        host = self.host or self.ended_at
        result = self.branch.series_for(host).result(self.status, self.flags)
        result.add(elapsed_ms, self.request_bytes, self.response_bytes)
        if self.trace is not None or self.runtime.access_log is not None:
            self._record(elapsed_ms, host)
        settle_retry(self)
        self.release_host()
        self.is_active = False
        self.is_plain = False
        if self.filters_asked:
            end_filters(self)
        self._reset()

    def _record(self, elapsed_ms: float, host: EndpointState | None) -> None:
        record = record_of(self, elapsed_ms, host)
        if self.runtime.access_log is not None:
            self.runtime.access_log.write(record)
        if self.trace is not None:
            self.plane.spans.offer(record)


def _service_time(ms: int) -> bytes:
    return b"x-envoy-upstream-service-time: %d\r\n\r\n" % ms


def seeded_rng() -> random.Random:
    """Chance for one data plane, from the system's entropy. Make it after a fork, never before."""
    return random.Random()
