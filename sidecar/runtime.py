"""A listener's HTTP configuration, made ready for the hot path: routes with their clusters, ready-made request and response heads.

One `HttpRuntime` belongs to one snapshot. Its caches are keyed by head bytes, bounded, and go away with it.
"""

import random
from collections.abc import Mapping

from mesh.http.limits import DEFAULT_LIMITS, HeadLimits
from mesh.http.lines import LINES
from mesh.http.request import RequestHead, parse_request_head
from mesh.http.response import ResponseHead, parse_response_head
from mesh.http.syntax import (
    CONNECTION,
    HOP_BY_HOP,
    IDENTITY,
    MAX_FORWARDS,
    TRACEPARENT,
    TRACESTATE,
    TRANSFER_ENCODING,
    UPGRADE,
)
from mesh.resilience.retry import Replay, RetryPolicy
from mesh.routing.matcher import CompiledHost, CompiledRoute, CompiledTable
from mesh.routing.rewrite import mutate_lines
from mesh.routing.table import (
    Action,
    Forward,
    HeaderMutation,
    HeaderValue,
    Provenance,
    Route,
    VirtualHost,
    WeightedCluster,
)
from mesh.telemetry.trace_context import TraceContext
from sidecar.access_log import AccessLogWriter
from sidecar.cluster import ClusterState
from sidecar.config import Direction, HttpFilter
from sidecar.connect import find_connect_route
from sidecar.endpoint import EndpointState
from sidecar.filters.build import build_filters
from sidecar.filters.protocol import Filters
from sidecar.filters.site_state import SiteState
from sidecar.head_cache import HeadCaches
from sidecar.head_rules import HeadRules
from sidecar.health_checking import says_failing
from sidecar.replies import http_date
from sidecar.request_hints import HINTS, Hints, adjusted_route
from sidecar.rewriting import allowed_upgrades, rewrites_anything
from sidecar.route_limits import RouteLimits, first_check_s, limits_of
from sidecar.stats import ProxyStats, RequestSeries, SeriesKey
from sidecar.templates import RequestShape, RequestTemplate, ResponsePlan, ResponseTemplate, without_line
from sidecar.timers import NEVER

MAX_PLANS = 512
"""Per branch, and as many endpoints in its table of series: beyond it they start over."""
MAX_SIMPLE_HOSTS = 1024
_NO_MUTATION = HeaderMutation()
_UNKNOWN = ResponsePlan(status=0, length=0, is_verbatim=False, drops=(), end=b"")
_RULED = TRACEPARENT | TRACESTATE | MAX_FORWARDS
"""Kinds of header lines that every listener has rules for."""
_RESPONSE_DROPS = HOP_BY_HOP | IDENTITY | CONNECTION | UPGRADE | TRANSFER_ENCODING


def _only(draw: float) -> int:
    return 0


class Branch:
    """One cluster of a route's split."""

    __slots__ = (
        "_plans",
        "cluster",
        "index",
        "is_checked",
        "is_recorded",
        "is_verbatim",
        "labels",
        "name",
        "provenance",
        "request_mutations",
        "response_mutations",
        "responses",
        "route",
        "series",
    )

    def __init__(
        self, route: "RouteRuntime", config: WeightedCluster | None, cluster: ClusterState | None, index: int = 0
    ) -> None:
        self.route = route
        self.index = index
        """Its place in the split."""
        self.is_recorded = route.runtime.access_log is not None
        """Every request is written down."""
        self.name = config.name if config is not None else ""
        self.cluster = cluster
        """None: the snapshot has no such cluster."""
        self.labels = config.metadata_match if config is not None else ()
        """Which of the cluster's endpoints may be used."""
        self.provenance = (config.provenance if config is not None else None) or route.provenance
        own_request = config.request_headers if config is not None else _NO_MUTATION
        own_response = config.response_headers if config is not None else _NO_MUTATION
        self.request_mutations = route.mutations(own_request, "request_headers")
        self.response_mutations = route.mutations(own_response, "response_headers")
        self.is_verbatim = not (self.request_mutations or route.rewrites)
        """Request heads may be sent on as they came, but for lines that are not for the upstream."""
        self.is_checked = cluster is not None and bool(cluster.config.health_checks)
        """Its endpoints have active health checks."""
        self.responses: dict[bytes, ResponseTemplate] = {}
        self._plans: dict[tuple[bytes, ...], ResponsePlan | None] = {}
        self.series: dict[EndpointState | None, RequestSeries] = {}

    def series_for(self, host: EndpointState | None) -> RequestSeries:
        """Where requests to `host` through this branch are counted."""
        found = self.series.get(host)
        if found is None:
            if len(self.series) >= MAX_PLANS:
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
        if not head.has_server and self.route.runtime.filter.adds_server:
            lines = [*lines, self.route.runtime.server_line]
        if not head.has_date:
            lines = [*lines, b"date: " + http_date()]
        return lines

    def learn(self, block: bytes) -> ResponseTemplate | None:
        """The ready-made head for a response to a plain request; None when it takes the long way. Raises HttpSyntaxError.

        It is kept for the next time, unless most heads turn out to be unique; what follows from its status and special lines is
        remembered either way.
        """
        if len(block) > DEFAULT_LIMITS.max_head_bytes:
            return None
        if self.route.retries_by_header and self._is_worth_a_retry(block):
            return None
        lines = block[:-4].split(b"\r\n")
        status_line = lines[0]
        del lines[0]
        has_new = False
        key = [status_line]
        known = LINES.entries.get
        for line in lines:
            entry = known(line)
            if entry is None:
                has_new = True
                entry = LINES.learn(line)
            if entry:
                key.append(line)
        if has_new:
            LINES.remember(lines)
        plan = self._plans.get(tuple(key), _UNKNOWN)
        if plan is _UNKNOWN:
            plan = self._plan(block, tuple(key))
        if plan is None or len(lines) > DEFAULT_LIMITS.max_header_count:
            return None
        if self.is_checked and says_failing(lines):
            return None
        wire = block[:-2] if plan.is_verbatim else self._response_wire(parse_response_head(block))
        for line in plan.drops:
            wire = without_line(wire, line)
        template = ResponseTemplate(wire + plan.end, plan, len(block) + plan.length)
        if self.route.runtime.caches.responses.may_keep(self.responses, len(block)):
            self.responses[block] = template
        return template

    def _is_worth_a_retry(self, block: bytes) -> bool:
        head = parse_response_head(block)
        retry = self.route.retry
        return retry is not None and retry.wants_response(head.status, head.header)

    def _plan(self, block: bytes, key: tuple[bytes, ...]) -> ResponsePlan | None:
        """What to do with responses that have this status line and these special lines."""
        head = parse_response_head(block)
        plan = self._make_plan(head)
        if not any(entry[0] == CONNECTION and entry[2].nominated for entry in head.special):
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def _make_plan(self, head: ResponseHead) -> ResponsePlan | None:
        if not head.keep_alive or head.chunked or head.status < 200 or not head.has_date:
            return None
        length = 0 if head.status in (204, 304) else head.content_length
        if length < 0 or head.status >= 500 or head.status in self.route.retry_statuses:
            return None
        is_verbatim = head.is_verbatim and not self.response_mutations and head.status != 204
        adds_server = not head.has_server and self.route.runtime.filter.adds_server
        return ResponsePlan(
            status=head.status,
            length=length,
            is_verbatim=is_verbatim,
            drops=tuple(entry[1] for entry in head.special if is_verbatim and entry[0] & _RESPONSE_DROPS),
            end=self.route.runtime.server_line + b"\r\n" if is_verbatim and adds_server else b"",
        )

    def _response_wire(self, head: ResponseHead) -> bytes:
        """The head to send on, line by line, without the terminating empty line."""
        lines = self.response_lines(head)
        if head.status != 204 and head.content_length >= 0:
            lines = [*lines, b"content-length: %d" % head.content_length]
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, b"\r\n".join(lines))


class RouteRuntime:
    """A route, or (`compiled` None) the absence of one, with everything looked up that can be."""

    __slots__ = (
        "adds_forwarded_for",
        "branch_count",
        "branches",
        "compiled",
        "counts_attempts",
        "draw",
        "filters",
        "first_check_s",
        "forwards",
        "generates_ids",
        "idle_timeout_s",
        "is_single",
        "is_special",
        "is_traced",
        "last_shapes",
        "limits",
        "name",
        "pick",
        "provenance",
        "repeats_all",
        "retries_by_header",
        "retry",
        "retry_statuses",
        "rewrites",
        "runtime",
        "shapes",
        "timeout_s",
        "upgrades",
        "variants",
    )

    def __init__(self, runtime: "HttpRuntime", compiled: CompiledRoute | None) -> None:
        self.runtime = runtime
        self.compiled = compiled
        self.name = f"{compiled.host.name}/{compiled.route.name}" if compiled is not None else ""
        self.provenance: Provenance | None = None
        if compiled is not None:
            self.provenance = compiled.route.provenance or compiled.host.provenance
        self.take_retry(compiled.retry if compiled is not None else None)
        self.timeout_s = NEVER
        self.idle_timeout_s = runtime.filter.stream_idle_timeout_s or NEVER
        action = compiled.route.action if compiled is not None else None
        self.forwards = isinstance(action, Forward)
        self.rewrites = rewrites_anything(compiled)
        if isinstance(action, Forward):
            self.timeout_s = action.timeout_s or NEVER
            if action.idle_timeout_s is not None:
                self.idle_timeout_s = action.idle_timeout_s or NEVER
            self.branches = tuple(
                Branch(self, one, runtime.clusters.get(one.name), at) for at, one in enumerate(action.clusters)
            )
        else:
            self.branches = (Branch(self, None, None),)
        self.branch_count = len(self.branches)
        self.is_single = self.branch_count == 1
        self.draw = runtime.draw
        self.pick = compiled.pick if compiled is not None else _only
        """The index of the branch for a number in [0, 1)."""
        self.upgrades = allowed_upgrades(compiled, runtime.filter.upgrades)
        self.filters: Filters = build_filters(self)
        """What else is done to this route's requests."""
        self.is_special = (
            bool(self.filters)
            or self.limits.tells_attempts
            or runtime.limits_connections
            or any(branch.labels for branch in self.branches)
        )
        """No request of this route takes the short way."""
        config = runtime.filter
        self.is_traced = config.tracing is not None
        self.generates_ids = config.generate_request_id
        self.adds_forwarded_for = config.use_remote_address and not config.skip_xff_append
        self.counts_attempts = compiled is not None and compiled.host.include_attempt_count
        self.shapes: dict[tuple[bytes, int, bool, int], RequestShape] = {}
        """Shapes of request heads seen so far. See `shape_of`."""
        self.last_shapes: dict[int, RequestShape] = {}
        """The last shape by the kinds of its lines: one look-up by a number for most."""
        self.variants: dict[Hints, RouteRuntime] = {}
        """This route as requests change it. See sidecar.request_hints."""
        self.first_check_s = first_check_s(self)

    def take_retry(self, retry: RetryPolicy | None) -> None:
        """Work out everything that follows from the retry policy."""
        self.retry = retry
        self.retry_statuses = retry.statuses_worth_a_look() if retry is not None else frozenset[int]()
        self.retries_by_header = retry is not None and retry.looks_at_headers
        """Responses must be looked at whose status alone is fine."""
        self.repeats_all = retry is not None and retry.replay is Replay.ANY
        self.limits: RouteLimits = limits_of(self.compiled, retry)

    def mutations(self, own: HeaderMutation, which: str) -> tuple[HeaderMutation, ...]:
        """Header changes from the innermost to the outermost. Source: Envoy, "custom request/response headers"."""
        via = self.runtime.filter.via
        last = (HeaderMutation(add=(HeaderValue(name="via", value=via, append=True),)),) if via else ()
        if self.compiled is None:
            return last
        levels: list[HeaderMutation] = [
            own,
            getattr(self.compiled.route, which),
            getattr(self.compiled.host, which),
            getattr(self.runtime.table.table, which),
        ]
        if self.runtime.table.table.most_specific_wins:
            levels.reverse()
        return tuple(level for level in levels if level) + last


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
        state: SiteState | None = None,
        caches: HeadCaches | None = None,
    ) -> None:
        self.caches = caches if caches is not None else HeadCaches()
        """Shared by the listeners of one snapshot."""
        self.state = state if state is not None else SiteState(rng)
        """What filters remember from one snapshot to the next."""
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
        self.short_head_bytes = min(self.limits.max_line_bytes, self.limits.max_head_bytes) - 4
        """A head shorter than this keeps every limit on lengths."""
        self._rules = HeadRules(config)
        self.limits_connections = bool(config.max_requests_per_connection or config.max_connection_duration_s)
        """Client connections are ended in good order before the client ends them, so every response needs a second look."""
        self.server_line = b"server: " + config.server_name.encode()
        self.templates: dict[bytes, RequestTemplate] = {}
        self.no_route = RouteRuntime(self, None)
        """Where requests are counted that no route takes, or that cannot be parsed."""
        self._routes: dict[CompiledRoute, RouteRuntime] = {}
        self._simple_routes: dict[bytes, RouteRuntime] = {}
        """By authority, where the virtual host has one route and that takes every request."""

    def template_for(self, block: bytes) -> RequestTemplate:
        """The template for a head. Raises HttpSyntaxError."""
        known = self.templates.get(block)
        return known if known is not None else self.learn(block)

    def learn(self, block: bytes) -> RequestTemplate:
        """The template for a head that has none yet. Raises HttpSyntaxError."""
        head = parse_request_head(block, self.limits)
        parent: TraceContext | None = None
        if self._rules.always or head.kinds & _RULED:
            head, parent, action = self._rules.apply(head)
            if action is not None:
                return RequestTemplate(head, self._answering(action))
        route = self._simple_routes.get(head.authority) if head.path else None
        is_fixed = True
        if route is None:
            host = self.table.find_host(head.authority)
            route = self._route_of(host, head)
            is_fixed = host is None or not host.has_shares
        if head.kinds & HINTS:
            route = adjusted_route(route, head)
        template = RequestTemplate(head, route, parent)
        if not is_fixed:
            return template  # an equal head may take another route
        if self.caches.requests.may_keep(self.templates, len(block)):
            template.keep()
            self.templates[block] = template
        return template

    def _route_of(self, host: CompiledHost | None, head: RequestHead) -> RouteRuntime:
        """The route that takes a request. Remembers the names of hosts that have one route for everything."""
        if not head.path:
            return self._route_for(find_connect_route(host, head, is_offered="connect" in self.filter.upgrades))
        route = self._route_for(host.find(head, self.draw()) if host is not None else None)
        if host is not None and host.takes_all and len(self._simple_routes) < MAX_SIMPLE_HOSTS:
            self._simple_routes[head.authority] = route
        return route

    def _answering(self, action: Action) -> RouteRuntime:
        """No route of the table: we answer ourselves."""
        host = VirtualHost(name="", domains=("*",), routes=())
        return RouteRuntime(self, CompiledRoute(Route(action=action), host, 0, "an answer of the listener"))

    def _route_for(self, compiled: CompiledRoute | None) -> RouteRuntime:
        if compiled is None:
            return self.no_route
        route = self._routes.get(compiled)
        if route is None:
            route = self._routes[compiled] = RouteRuntime(self, compiled)
        return route
