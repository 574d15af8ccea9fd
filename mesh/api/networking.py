"""Typed views of networking.istio.io/v1: VirtualService and DestinationRule. Source: istio.io/docs/reference/config/networking.

Only what Meshwork carries out has a field here; the schema (mesh.api.schema) refuses the rest as unknown fields, so a policy
never seems to work when it does not. Durations are texts such as `1.5s`, `250ms`, `1h10m`; "" means unset.
"""

from collections.abc import Mapping

from mesh.api.meta import Condition, ObjectView, View
from mesh.api.traffic_policy import PortSelector, TrafficPolicy


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
    gateways: tuple[str, ...] = ()
    """Without `mesh` among them (and not empty) the match is not for sidecars."""
    ignore_uri_case: bool = False
    stat_prefix: str = ""


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
    retry_ignore_previous_hosts: bool = True
    """Prefer hosts that have not been tried."""
    backoff: str = ""
    """The base interval between tries; "" means Envoy's 25ms."""


class HttpRedirect(View, frozen=True, kw_only=True):
    uri: str = ""
    authority: str = ""
    port: int = 0
    derive_port: str = ""
    """Instead of port: FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT."""
    scheme: str = ""
    redirect_code: int = 301


class RegexRewrite(View, frozen=True, kw_only=True):
    match: str = ""
    """RE2; every part of the path that matches is replaced."""
    rewrite: str = ""
    """May refer to groups as \\1."""


class HttpRewrite(View, frozen=True, kw_only=True):
    uri: str = ""
    """Replaces the matched prefix (or the whole path for an exact match)."""
    authority: str = ""
    uri_regex_rewrite: RegexRewrite | None = None


class HttpBody(View, frozen=True, kw_only=True):
    string: str = ""
    bytes: str = ""
    """Base64."""


class HttpDirectResponse(View, frozen=True, kw_only=True):
    status: int = 0
    body: HttpBody | None = None


class Percent(View, frozen=True, kw_only=True):
    value: float = 0.0
    """0 to 100."""


class HttpMirror(View, frozen=True, kw_only=True):
    destination: Destination = Destination()
    percentage: Percent | None = None
    """None: every request."""


class Delegate(View, frozen=True, kw_only=True):
    """Refused: see policies.virtual_service."""

    name: str = ""
    namespace: str = ""


class CorsPolicy(View, frozen=True, kw_only=True):
    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: str = ""
    allow_credentials: bool | None = None
    unmatched_preflights: str = ""
    """FORWARD (as unset) or IGNORE."""


class FaultDelay(View, frozen=True, kw_only=True):
    fixed_delay: str = ""
    percentage: Percent | None = None


class FaultAbort(View, frozen=True, kw_only=True):
    http_status: int | None = None
    grpc_status: str = ""
    """Refused: see policies.route_faults."""
    percentage: Percent | None = None


class HttpFault(View, frozen=True, kw_only=True):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class HttpRoute(View, frozen=True, kw_only=True):
    name: str = ""
    match: tuple[HttpMatchRequest, ...] = ()
    """One of them must hold; none means every request."""
    route: tuple[HttpRouteDestination, ...] = ()
    redirect: HttpRedirect | None = None
    direct_response: HttpDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HttpRewrite | None = None
    timeout: str = ""
    retries: HttpRetry | None = None
    fault: HttpFault | None = None
    mirror: Destination | None = None
    mirror_percentage: Percent | None = None
    mirrors: tuple[HttpMirror, ...] = ()
    cors_policy: CorsPolicy | None = None
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
