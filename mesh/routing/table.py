"""The route table as values: what discovery says, decoded and validated, before it is compiled.

Names and meanings follow Envoy's RouteConfiguration (config.route.v3), reduced to what this proxy does. Headers are text
here and bytes after compilation. Order matters: the first route of a virtual host that matches wins.
"""

import enum
from dataclasses import dataclass

from mesh.resilience.hedge import HedgePolicy
from mesh.resilience.retry import RetryPolicy
from mesh.routing.errors import RouteTableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The object that made a rule. From xDS metadata `meshwork.dev`; empty fields are unknown."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    field: str = ""
    """Path in the object, such as `spec.http[0].route[1]`."""
    file: str = ""
    line: int = 0
    """1-based; 0 is unknown."""

    def __str__(self) -> str:
        where = f" {self.field}" if self.field else ""
        source = f" ({self.file}:{self.line})" if self.file else ""
        return f"{self.kind} {self.namespace}/{self.name}{where}{source}"


class MatchKind(enum.Enum):
    """How a text is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "regex"
    """The whole text must match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StringMatch:
    """A condition on a text."""

    kind: MatchKind
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMatch:
    """A condition on one request header; `:method`, `:path`, `:authority` and `:scheme` name the request line's parts.

    A header that occurs more than once is compared as its values joined with a comma.
    """

    name: str
    """Lower case."""
    match: StringMatch | None = None
    """None: the header must be present (absent when `invert`)."""
    invert: bool = False
    """The condition must not hold. A missing header fails a condition on its value even when inverted (Envoy's rule),
    unless `missing_as_empty`."""
    missing_as_empty: bool = False
    """Compare a missing header as the empty text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryMatch:
    """A condition on one query parameter (its first occurrence, not percent-decoded, as in Envoy)."""

    name: str
    match: StringMatch | None = None
    """None: the parameter must be present."""


class PathKind(enum.Enum):
    """How the path (without the query) is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    SEGMENT_PREFIX = "segment_prefix"
    """A prefix that ends at a `/` or at the end: `/a` matches `/a` and `/a/b`, not `/ab`."""
    REGEX = "regex"
    """The whole path must match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathMatch:
    kind: PathKind = PathKind.PREFIX
    value: str = "/"
    ignore_case: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """All conditions must hold."""

    path: PathMatch = PathMatch()
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderValue:
    """A header to add. The value is literal: formatting with %VARIABLES% must have been refused by the decoder."""

    name: str
    value: str
    append: bool = False
    """Keep what is there and add another line; otherwise replace it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMutation:
    """Changes to a header block: first removals, then additions."""

    add: tuple[HeaderValue, ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedCluster:
    """One branch of a split."""

    name: str
    """The cluster's name."""
    weight: int = 1
    """Share of the sum over all branches, >= 0."""
    metadata_match: tuple[tuple[str, str], ...] = ()
    """Only endpoints with these labels are used. Sorted. Source: Envoy metadata_match, filter_metadata["envoy.lb"]."""
    request_headers: HeaderMutation = HeaderMutation()
    response_headers: HeaderMutation = HeaderMutation()
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegexRewrite:
    """Replace every match of `pattern` in the path with `substitution` (`\\1` for groups)."""

    pattern: str
    substitution: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Send the request to one of the clusters."""

    clusters: tuple[WeightedCluster, ...]
    """At least one; weights sum to more than 0."""
    timeout_s: float | None = 15.0
    """From the end of the request to the end of the response, retries included. None: no limit.
    Source: Envoy RouteAction.timeout, 15 s; Istio sends 0 (none)."""
    idle_timeout_s: float | None = None
    """No byte in either direction for this long ends the request. None: the listener's stream_idle_timeout_s."""
    retry: RetryPolicy | None = None
    """None: the virtual host's."""
    prefix_rewrite: str | None = None
    """Replaces the matched prefix (or the whole exact path)."""
    regex_rewrite: RegexRewrite | None = None
    host_rewrite: str | None = None
    """Replaces the Host."""
    hedge: HedgePolicy | None = None
    """None: the virtual host's."""
    max_stream_duration_s: float | None = None
    """The whole exchange ends after this, however much moves. None: no limit. Seconds, > 0."""

    def __post_init__(self) -> None:
        if not self.clusters:
            raise RouteTableError("a route without clusters: name at least one destination")
        if sum(cluster.weight for cluster in self.clusters) <= 0 or any(c.weight < 0 for c in self.clusters):
            names = ", ".join(f"{c.name}={c.weight}" for c in self.clusters)
            raise RouteTableError(f"weights must be >= 0 and sum to more than 0, got {names}")
        if self.prefix_rewrite is not None and self.regex_rewrite is not None:
            raise RouteTableError("prefix_rewrite and regex_rewrite exclude each other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Answer with a Location. Empty fields keep the request's part."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    """Replaces the whole path."""
    prefix_rewrite: str = ""
    status: int = 301
    strip_query: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectResponse:
    """Answer without an upstream."""

    status: int
    body: bytes = b""


Action = Forward | Redirect | DirectResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One rule of a virtual host."""

    name: str = ""
    match: RouteMatch = RouteMatch()
    action: Action
    buffer_limit_bytes: int | None = None
    """Of a request's body, kept so that it can be sent again. A larger one is sent once. Source: per_request_buffer_limit_bytes."""
    request_headers: HeaderMutation = HeaderMutation()
    response_headers: HeaderMutation = HeaderMutation()
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualHost:
    """Rules for a set of hosts."""

    name: str
    domains: tuple[str, ...]
    """`a.example`, `a.example:80`, `*.example`, `a.*`, or `*`; case does not matter. Looked up in that order,
    the longest wildcard first."""
    routes: tuple[Route, ...]
    retry: RetryPolicy | None = None
    """For routes that have none of their own."""
    include_attempt_count: bool = False
    """Tell the upstream `x-envoy-attempt-count`."""
    include_attempt_count_in_response: bool = False
    """Tell the client `x-envoy-attempt-count`, in the response."""
    buffer_limit_bytes: int | None = None
    """For routes that have none of their own. None: MAX_REPLAY_BYTES of the sidecar."""
    hedge: HedgePolicy | None = None
    """For routes that have none of their own."""
    request_headers: HeaderMutation = HeaderMutation()
    response_headers: HeaderMutation = HeaderMutation()
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """What an HTTP listener routes by."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...] = ()
    request_headers: HeaderMutation = HeaderMutation()
    response_headers: HeaderMutation = HeaderMutation()
    ignore_port_in_host: bool = False
    """Drop `:port` from the Host before the virtual host is looked up."""

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for host in self.virtual_hosts:
            for domain in host.domains:
                other = seen.setdefault(domain.lower(), host.name)
                if other != host.name:
                    raise RouteTableError(
                        f'route table "{self.name}": domain "{domain}" is in virtual hosts "{other}" and '
                        f'"{host.name}"; a domain belongs to one'
                    )

    def cluster_names(self) -> frozenset[str]:
        """Every cluster that a route can lead to."""
        return frozenset(
            cluster.name
            for host in self.virtual_hosts
            for route in host.routes
            if isinstance(route.action, Forward)
            for cluster in route.action.clusters
        )
