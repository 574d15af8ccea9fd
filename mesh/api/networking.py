"""Typed views of networking.istio.io/v1: VirtualService and DestinationRule. Source: istio.io/docs/reference/config/networking.

Only what Meshwork carries out has a field here; the schema (mesh.api.schema) refuses the rest as unknown fields, so a policy
never seems to work when it does not. Durations are texts such as `1.5s`, `250ms`, `1h10m`; "" means unset.
"""

from collections.abc import Mapping

import msgspec

from mesh.api.meta import Condition, ObjectView, View


class StringMatch(View, frozen=True, kw_only=True):
    """Exactly one is set. A regex must match the whole value (RE2 syntax)."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class HttpMatchRequest(View, frozen=True, kw_only=True):
    """All given conditions must hold."""

    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: Mapping[str, StringMatch] = {}
    """Lower-case names; an empty StringMatch asks only that the header is there."""
    without_headers: Mapping[str, StringMatch] = {}
    query_params: Mapping[str, StringMatch] = {}
    port: int = 0
    source_labels: Mapping[str, str] = {}
    source_namespace: str = ""
    ignore_uri_case: bool = False


class PortSelector(View, frozen=True, kw_only=True):
    number: int = 0


class Destination(View, frozen=True, kw_only=True):
    host: str = ""
    """Service name: short (of the policy's namespace), `svc.ns` or fully qualified."""
    subset: str = ""
    port: PortSelector | None = None


class HeaderOperations(View, frozen=True, kw_only=True):
    set: Mapping[str, str] = {}
    add: Mapping[str, str] = {}
    remove: tuple[str, ...] = ()


class Headers(View, frozen=True, kw_only=True):
    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()


class HttpRouteDestination(View, frozen=True, kw_only=True):
    destination: Destination = Destination()
    weight: int = 0
    """0 with a single destination means all."""
    headers: Headers = Headers()


class HttpRetry(View, frozen=True, kw_only=True):
    attempts: int = 0
    """Retries after the first try; 0 turns retries off."""
    per_try_timeout: str = ""
    retry_on: str = ""
    """Comma-separated conditions and status codes; "" means Meshwork's default."""
    retry_remote_localities: bool | None = None


class HttpRedirect(View, frozen=True, kw_only=True):
    uri: str = ""
    authority: str = ""
    port: int = 0
    scheme: str = ""
    redirect_code: int = 301


class HttpRewrite(View, frozen=True, kw_only=True):
    uri: str = ""
    """Replaces the matched prefix (or the whole path for an exact match)."""
    authority: str = ""


class HttpBody(View, frozen=True, kw_only=True):
    string: str = ""
    bytes: str = ""
    """Base64."""


class HttpDirectResponse(View, frozen=True, kw_only=True):
    status: int = 0
    body: HttpBody | None = None


class HttpRoute(View, frozen=True, kw_only=True):
    name: str = ""
    match: tuple[HttpMatchRequest, ...] = ()
    """One of them must hold; none means every request."""
    route: tuple[HttpRouteDestination, ...] = ()
    redirect: HttpRedirect | None = None
    direct_response: HttpDirectResponse | None = None
    rewrite: HttpRewrite | None = None
    timeout: str = ""
    retries: HttpRetry | None = None
    headers: Headers = Headers()


class VirtualServiceSpec(View, frozen=True, kw_only=True):
    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[HttpRoute, ...] = ()
    export_to: tuple[str, ...] = ()


class PolicyStatus(View, frozen=True, kw_only=True):
    """status of a policy, written by discovery (docs/contracts.md, "Policy status")."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


class VirtualService(ObjectView, frozen=True, kw_only=True):
    spec: VirtualServiceSpec = VirtualServiceSpec()
    status: PolicyStatus = PolicyStatus()


class TcpSettings(View, frozen=True, kw_only=True):
    max_connections: int = 0
    connect_timeout: str = ""
    idle_timeout: str = ""


class HttpSettings(View, frozen=True, kw_only=True):
    http1_max_pending_requests: int = msgspec.field(name="http1MaxPendingRequests", default=0)
    http2_max_requests: int = msgspec.field(name="http2MaxRequests", default=0)
    """Active requests to the host, HTTP/1.1 too (Envoy's max_requests)."""
    max_requests_per_connection: int = 0
    max_retries: int = 0
    idle_timeout: str = ""


class ConnectionPoolSettings(View, frozen=True, kw_only=True):
    tcp: TcpSettings = TcpSettings()
    http: HttpSettings = HttpSettings()


class LoadBalancerSettings(View, frozen=True, kw_only=True):
    simple: str = ""
    """LEAST_REQUEST (default), ROUND_ROBIN, RANDOM; UNSPECIFIED and LEAST_CONN mean LEAST_REQUEST."""


class OutlierDetection(View, frozen=True, kw_only=True):
    """None means Meshwork's default. Source: Envoy outlier detection."""

    consecutive_5xx_errors: int | None = msgspec.field(name="consecutive5xxErrors", default=None)
    consecutive_gateway_errors: int | None = None
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: int | None = None
    interval: str = ""
    base_ejection_time: str = ""
    max_ejection_percent: int | None = None
    min_health_percent: int | None = None


class PortTrafficPolicy(View, frozen=True, kw_only=True):
    port: PortSelector = PortSelector()
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None


class TrafficPolicy(View, frozen=True, kw_only=True):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()


class Subset(View, frozen=True, kw_only=True):
    name: str = ""
    labels: Mapping[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(View, frozen=True, kw_only=True):
    host: str = ""
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()


class DestinationRule(ObjectView, frozen=True, kw_only=True):
    spec: DestinationRuleSpec = DestinationRuleSpec()
    status: PolicyStatus = PolicyStatus()
