"""Typed views of gateway.networking.k8s.io/v1: HTTPRoute, as a mesh uses it (parents are Services).

Source: gateway-api.sigs.k8s.io, HTTPRoute and GAMMA. Durations are texts such as `10s` or `1m30s` (GEP-2257); "" means unset.
"""

import msgspec

from mesh.api.meta import Condition, ObjectView, View

GROUP = "gateway.networking.k8s.io"


class ParentReference(View, frozen=True, kw_only=True):
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str = ""
    """"": the route's own."""
    name: str = ""
    section_name: str = ""
    port: int = 0
    """0: every port of the Service."""

    @property
    def is_service(self) -> bool:
        """The mesh is meant, not a gateway."""
        return self.kind == "Service" and self.group in ("", "core")


class PathMatch(View, frozen=True, kw_only=True):
    type: str = "PathPrefix"
    """Exact, PathPrefix (whole segments) or RegularExpression (the whole path, RE2)."""
    value: str = "/"


class ValueMatch(View, frozen=True, kw_only=True):
    """Of a header or query parameter."""

    type: str = "Exact"
    """Exact or RegularExpression."""
    name: str = ""
    value: str = ""


class RouteMatch(View, frozen=True, kw_only=True):
    path: PathMatch = PathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()
    method: str = ""


class Header(View, frozen=True, kw_only=True):
    name: str = ""
    value: str = ""


class HeaderModifier(View, frozen=True, kw_only=True):
    set: tuple[Header, ...] = ()
    add: tuple[Header, ...] = ()
    remove: tuple[str, ...] = ()


class PathModifier(View, frozen=True, kw_only=True):
    type: str = ""
    """ReplaceFullPath or ReplacePrefixMatch."""
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RequestRedirect(View, frozen=True, kw_only=True):
    scheme: str = ""
    hostname: str = ""
    path: PathModifier | None = None
    port: int = 0
    status_code: int = 302


class UrlRewrite(View, frozen=True, kw_only=True):
    hostname: str = ""
    path: PathModifier | None = None


class BackendObjectReference(View, frozen=True, kw_only=True):
    group: str = ""
    kind: str = "Service"
    name: str = ""
    namespace: str = ""
    port: int = 0


class Fraction(View, frozen=True, kw_only=True):
    numerator: int = 0
    denominator: int = 100


class RequestMirror(View, frozen=True, kw_only=True):
    """Every request, unless percent or fraction is given."""

    backend_ref: BackendObjectReference = BackendObjectReference()
    percent: int | None = None
    fraction: Fraction | None = None


class Cors(View, frozen=True, kw_only=True):
    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool = False
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 5
    """Seconds."""


class ExtensionRef(View, frozen=True, kw_only=True):
    """Refused: see policies.http_route_filters."""

    group: str = ""
    kind: str = ""
    name: str = ""


class RouteFilter(View, frozen=True, kw_only=True):
    type: str = ""
    """Names the one field that is set."""
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: UrlRewrite | None = msgspec.field(name="urlRewrite", default=None)
    cors: Cors | None = None
    extension_ref: ExtensionRef | None = None


class BackendRef(View, frozen=True, kw_only=True):
    group: str = ""
    kind: str = "Service"
    name: str = ""
    namespace: str = ""
    port: int = 0
    weight: int = 1
    filters: tuple[RouteFilter, ...] = ()


class Timeouts(View, frozen=True, kw_only=True):
    request: str = ""
    backend_request: str = ""
    """Of each try."""


class Retry(View, frozen=True, kw_only=True):
    codes: tuple[int, ...] = ()
    attempts: int | None = None
    backoff: str = ""


class CookieConfig(View, frozen=True, kw_only=True):
    lifetime_type: str = "Session"
    """Session or Permanent."""


class SessionPersistence(View, frozen=True, kw_only=True):
    session_name: str = ""
    absolute_timeout: str = ""
    idle_timeout: str = ""
    """Refused: see policies.http_route_session."""
    type: str = "Cookie"
    """Cookie or Header."""
    cookie_config: CookieConfig = CookieConfig()


class RouteRule(View, frozen=True, kw_only=True):
    name: str = ""
    matches: tuple[RouteMatch, ...] = ()
    """One of them must hold; none means every request."""
    filters: tuple[RouteFilter, ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()
    timeouts: Timeouts = Timeouts()
    retry: Retry | None = None
    session_persistence: SessionPersistence | None = None


class HttpRouteSpec(View, frozen=True, kw_only=True):
    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()
    """Means nothing for parents that are Services. Source: GAMMA."""
    rules: tuple[RouteRule, ...] = ()


class RouteParentStatus(View, frozen=True, kw_only=True):
    parent_ref: ParentReference = ParentReference()
    controller_name: str = ""
    conditions: tuple[Condition, ...] = ()


class RouteStatus(View, frozen=True, kw_only=True):
    parents: tuple[RouteParentStatus, ...] = ()


class HttpRoute(ObjectView, frozen=True, kw_only=True):
    spec: HttpRouteSpec = HttpRouteSpec()
    status: RouteStatus = RouteStatus()
