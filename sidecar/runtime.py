"""A listener's HTTP configuration, made ready for the hot path: routes with their clusters, ready-made request and response heads.

One `HttpRuntime` belongs to one snapshot. Its caches are keyed by head bytes, bounded, and go away with it.
"""

import random
from collections.abc import Mapping

from mesh.http.limits import HeadLimits
from mesh.http.request import RequestHead, parse_request_head
from mesh.http.response import ResponseHead, parse_response_head
from mesh.http.syntax import without
from mesh.resilience.retry import IDEMPOTENT_METHODS, Replay, RetryPolicy
from mesh.routing.matcher import CompiledRoute, CompiledTable
from mesh.routing.rewrite import mutate_lines, rewrite_target
from mesh.routing.table import Forward, HeaderMutation, Provenance, WeightedCluster
from mesh.telemetry.trace_context import TraceContext, parse_traceparent
from sidecar.access_log import AccessLogWriter
from sidecar.cluster import ClusterState, EndpointState
from sidecar.config import Direction, HttpFilter
from sidecar.filters.protocol import Filters
from sidecar.replies import http_date
from sidecar.stats import ProxyStats, RequestSeries, ResultKey, SeriesKey
from sidecar.timers import NEVER

MAX_CACHED_HEADS = 512
MAX_CACHED_HEAD_BYTES = 2048
_NO_MUTATION = HeaderMutation()
_BODY_METHODS = frozenset({b"POST", b"PUT", b"PATCH"})
"""A request of these without a body says so (RFC 9110 s8.6)."""
_ATTEMPT_COUNT = frozenset({b"x-envoy-attempt-count"})
_PROTO_HTTP = b"x-forwarded-proto: http"


class ResponseTemplate:
    """A response head seen before, ready to be sent on."""

    __slots__ = ("key", "status", "whole_length", "wire")

    def __init__(self, wire: bytes, status: int, whole_length: int) -> None:
        self.wire = wire
        """Without the terminating empty line."""
        self.status = status
        self.key: ResultKey = (status, "")
        self.whole_length = whole_length
        """Length of the body, when the response needs no second look; else -1."""


class Branch:
    """One cluster of a route's split."""

    __slots__ = (
        "_skip",
        "cluster",
        "name",
        "provenance",
        "request_mutations",
        "response_mutations",
        "responses",
        "route",
        "series",
    )

    def __init__(self, route: "RouteRuntime", config: WeightedCluster | None, cluster: ClusterState | None) -> None:
        self.route = route
        self.name = config.name if config is not None else ""
        self.cluster = cluster
        """None: the snapshot has no such cluster."""
        self.provenance = (config.provenance if config is not None else None) or route.provenance
        own_request = config.request_headers if config is not None else _NO_MUTATION
        own_response = config.response_headers if config is not None else _NO_MUTATION
        self.request_mutations = route.mutations(own_request, "request_headers")
        self.response_mutations = route.mutations(own_response, "response_headers")
        self.responses: dict[bytes, ResponseTemplate] = {}
        self._skip = 0
        self.series: dict[EndpointState | None, RequestSeries] = {}

    def series_for(self, host: EndpointState | None) -> RequestSeries:
        """Where requests to `host` through this branch are counted."""
        found = self.series.get(host)
        if found is None:
            if len(self.series) >= MAX_CACHED_HEADS:
                self.series.clear()  # hosts come and go; the counts live in ProxyStats
            runtime = self.route.runtime
            key = SeriesKey(
                direction=runtime.direction,
                listener=runtime.listener,
                route=self.route.name,
                cluster=self.name,
                endpoint=host.text if host is not None else "",
            )
            workload = host.endpoint.workload if host is not None else {}
            found = self.series[host] = runtime.stats.request_series(key, workload, self.provenance)
        return found

    def response_lines(self, head: ResponseHead) -> list[bytes]:
        """The header lines of `head` to send on, without framing."""
        lines = head.kept_lines
        if self.response_mutations:
            lines = mutate_lines(lines, self.response_mutations)
        if not head.has_server:
            lines = [*lines, self.route.runtime.server_line]
        if not head.has_date:
            lines = [*lines, b"date: " + http_date()]
        return lines

    def learn(self, block: bytes) -> ResponseTemplate | None:
        """The ready-made head for a response to a plain request; None when it takes the long way. Raises HttpSyntaxError.

        It is kept for the next time, unless most heads turn out to be unique.
        """
        head = parse_response_head(block)
        if not head.keep_alive or head.chunked or head.status < 200 or not head.has_date:
            return None
        length = 0 if head.status in (204, 304) else head.content_length
        if length < 0 or head.status >= 500 or head.status in self.route.retry_statuses:
            return None
        lines = self.response_lines(head)
        if head.status != 204 and head.content_length >= 0:
            lines = [*lines, b"content-length: %d" % head.content_length]
        wire = b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, b"\r\n".join(lines))
        template = ResponseTemplate(wire, head.status, length)
        if self._skip:
            self._skip -= 1
        elif len(block) <= MAX_CACHED_HEAD_BYTES:
            if len(self.responses) >= MAX_CACHED_HEADS:
                self.responses.clear()
                self._skip = 8 * MAX_CACHED_HEADS
            self.responses[block] = template
        return template


class RouteRuntime:
    """A route, or (`compiled` None) the absence of one, with everything looked up that can be."""

    __slots__ = (
        "adds_forwarded_for",
        "branch_count",
        "branches",
        "compiled",
        "counts_attempts",
        "filters",
        "first_check_s",
        "generates_ids",
        "idle_timeout_s",
        "is_single",
        "is_special",
        "is_traced",
        "name",
        "provenance",
        "repeats_all",
        "retry",
        "retry_statuses",
        "rewrites",
        "runtime",
        "timeout_s",
    )

    def __init__(self, runtime: "HttpRuntime", compiled: CompiledRoute | None) -> None:
        self.runtime = runtime
        self.compiled = compiled
        self.name = f"{compiled.host.name}/{compiled.route.name}" if compiled is not None else ""
        self.provenance: Provenance | None = None
        if compiled is not None:
            self.provenance = compiled.route.provenance or compiled.host.provenance
        self.retry: RetryPolicy | None = compiled.retry if compiled is not None else None
        self.retry_statuses = self.retry.statuses_worth_a_look() if self.retry is not None else frozenset[int]()
        self.timeout_s = NEVER
        self.idle_timeout_s = runtime.filter.stream_idle_timeout_s or NEVER
        action = compiled.route.action if compiled is not None else None
        if isinstance(action, Forward):
            self.timeout_s = action.timeout_s or NEVER
            if action.idle_timeout_s is not None:
                self.idle_timeout_s = action.idle_timeout_s or NEVER
            self.branches = tuple(Branch(self, one, runtime.clusters.get(one.name)) for one in action.clusters)
        else:
            self.branches = (Branch(self, None, None),)
        self.branch_count = len(self.branches)
        self.is_single = self.branch_count == 1
        self.rewrites = isinstance(action, Forward) and not (
            action.prefix_rewrite is None and action.regex_rewrite is None and action.host_rewrite is None
        )
        self.filters: Filters = ()
        """What else is done to this route's requests."""
        self.is_special = bool(self.filters)
        """No request of this route takes the short way."""
        config = runtime.filter
        self.is_traced = config.tracing is not None
        self.generates_ids = config.generate_request_id
        self.adds_forwarded_for = config.use_remote_address
        self.counts_attempts = compiled is not None and compiled.host.include_attempt_count
        self.repeats_all = self.retry is not None and self.retry.replay is Replay.ANY
        per_try_s = (self.retry.per_try_timeout_s if self.retry is not None else None) or NEVER
        self.first_check_s = min(self.timeout_s, self.idle_timeout_s, per_try_s)

    def mutations(self, own: HeaderMutation, which: str) -> tuple[HeaderMutation, ...]:
        """Header changes from the innermost to the outermost. Source: Envoy, "custom request/response headers"."""
        if self.compiled is None:
            return ()
        levels: tuple[HeaderMutation, ...] = (
            own,
            getattr(self.compiled.route, which),
            getattr(self.compiled.host, which),
            getattr(self.runtime.table.table, which),
        )
        return tuple(level for level in levels if level)


class RequestTemplate:
    """A request head, routed, with its outgoing head ready but for what is new in every request."""

    __slots__ = (
        "adds_forwarded_for",
        "adds_request_id",
        "adds_trace",
        "counts_attempts",
        "has_body",
        "head",
        "is_idempotent",
        "is_plain",
        "is_quick",
        "is_static",
        "method",
        "parent",
        "route",
        "size_bytes",
        "upgrade",
        "wires",
    )

    def __init__(self, head: RequestHead, route: RouteRuntime) -> None:
        self.head = head
        self.route = route
        self.method = method = head.method
        self.size_bytes = head.size_bytes
        self.has_body = has_body = head.content_length != 0
        self.upgrade = head.upgrade
        if head.upgrade and head.upgrade.decode("latin-1") not in route.runtime.filter.upgrades:
            self.upgrade = b""
        self.parent: TraceContext | None = None
        self.adds_trace = route.is_traced
        if route.is_traced and head.traceparent is not None:
            self.parent = parent = parse_traceparent(head.traceparent)
            self.adds_trace = parent is None or parent.is_sampled
        self.adds_request_id = adds_request_id = route.generates_ids and head.request_id is None
        self.adds_forwarded_for = route.adds_forwarded_for
        self.counts_attempts = route.counts_attempts
        self.is_static = not (adds_request_id or self.adds_trace or route.counts_attempts or route.adds_forwarded_for)
        self.is_idempotent = method in IDEMPOTENT_METHODS or head.has_idempotency_key
        self.is_plain = is_plain = (
            head.keep_alive and head.minor == 1 and method != b"HEAD" and not self.upgrade and not route.is_special
        )
        """Whether the response may take the short way: nothing about this request needs a second look."""
        self.is_quick = is_plain and not has_body and (self.is_idempotent or route.repeats_all)
        """Whether the request itself may take the short way: complete, and safe on any kept connection."""
        self.wires: list[bytes | None] = [None] * route.branch_count

    def wire(self, index: int) -> bytes:
        """The outgoing head for branch `index`: complete when `is_static`, else without the terminating empty line."""
        wire = self.wires[index]
        if wire is None:
            wire = self.wires[index] = self._build(self.route.branches[index])
        return wire

    def _build(self, branch: Branch) -> bytes:
        head = self.head
        target, authority = head.target, head.authority
        compiled = self.route.compiled
        if self.route.rewrites and compiled is not None and isinstance(compiled.route.action, Forward):
            action = compiled.route.action
            target = rewrite_target(action, compiled.route.match.path, target)
            if action.host_rewrite is not None:
                authority = action.host_rewrite.encode()
        lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (head.method, target, authority)]
        headers = head.kept_lines
        own = self._own_lines()
        if self.counts_attempts:
            headers = without(headers, _ATTEMPT_COUNT)
        if branch.request_mutations:
            headers = mutate_lines([*headers, *own], branch.request_mutations)
        else:
            lines += own
        lines += headers
        if head.content_length:
            lines.append(
                b"content-length: %d" % head.content_length if not head.chunked else b"transfer-encoding: chunked"
            )
        elif head.method in _BODY_METHODS:
            lines.append(b"content-length: 0")
        if self.upgrade:
            lines.append(b"connection: upgrade\r\nupgrade: " + self.upgrade)
        lines.append(b"\r\n" if self.is_static else b"")
        return b"\r\n".join(lines)

    def _own_lines(self) -> list[bytes]:
        """The headers a proxy is responsible for, as far as they are the same for every such request."""
        head = self.head
        lines = [_PROTO_HTTP]
        if head.forwarded_proto is not None and not self.adds_forwarded_for:
            lines = [b"x-forwarded-proto: " + head.forwarded_proto]
        if head.forwarded_for is not None and not self.adds_forwarded_for:
            lines.append(b"x-forwarded-for: " + head.forwarded_for)
        if head.request_id is not None:
            lines.append(b"x-request-id: " + head.request_id)
        if head.traceparent is not None and not self.adds_trace:
            lines.append(b"traceparent: " + head.traceparent)
        # tracestate without the traceparent it belongs to means nothing (Trace Context s3.3.1).
        if head.tracestate is not None and (self.parent is not None or not self.adds_trace):
            lines.append(b"tracestate: " + head.tracestate)
        return lines


class HttpRuntime:
    """One HTTP filter of one snapshot."""

    def __init__(
        self,
        *,
        listener: str,
        direction: Direction,
        config: HttpFilter,
        table: CompiledTable,
        clusters: Mapping[str, ClusterState],
        stats: ProxyStats,
        access_log: AccessLogWriter | None,
        rng: random.Random,
    ) -> None:
        self.listener = listener
        self.direction = direction
        self.filter = config
        self.table = table
        self.clusters = clusters
        self.stats = stats
        self.access_log = access_log
        self.draw = rng.random
        self.idle_timeout_s = config.idle_timeout_s or NEVER
        self.limits = HeadLimits(max_head_bytes=config.max_header_bytes, max_header_count=config.max_header_count)
        self.server_line = b"server: " + config.server_name.encode()
        self.templates: dict[bytes, RequestTemplate] = {}
        self.no_route = RouteRuntime(self, None)
        """Where requests are counted that no route takes, or that cannot be parsed."""
        self._routes: dict[CompiledRoute, RouteRuntime] = {}
        self._skip = 0

    def template_for(self, block: bytes) -> RequestTemplate:
        """The template for a head. Raises HttpSyntaxError."""
        known = self.templates.get(block)
        return known if known is not None else self._make(block)

    def _make(self, block: bytes) -> RequestTemplate:
        head = parse_request_head(block, self.limits)
        template = RequestTemplate(head, self._route_for(head))
        # Heads that never come again (unique ids) only fill the cache. When a whole cache was filled by misses, most
        # of the next ones are not kept.
        if self._skip:
            self._skip -= 1
        elif len(block) <= MAX_CACHED_HEAD_BYTES:
            if len(self.templates) >= MAX_CACHED_HEADS:
                self.templates.clear()
                self._skip = 8 * MAX_CACHED_HEADS
            self.templates[block] = template
        return template

    def _route_for(self, head: RequestHead) -> RouteRuntime:
        compiled = self.table.find(head)
        if compiled is None:
            return self.no_route
        route = self._routes.get(compiled)
        if route is None:
            route = self._routes[compiled] = RouteRuntime(self, compiled)
        return route
