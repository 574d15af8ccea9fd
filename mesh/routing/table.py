"""The route table as values: what discovery says, decoded and validated, before it is compiled.

Names and meanings follow Envoy's RouteConfiguration (config.route.v3), reduced to what this proxy does. Headers are text
here and bytes after compilation. Order matters: the first route of a virtual host that matches wins.
"""

from dataclasses import dataclass

from mesh.resilience.hedge import HedgePolicy
from mesh.resilience.retry import RetryPolicy
from mesh.routing.errors import RouteTableError
from mesh.routing.filters import NO_SETTINGS, FilterSettings
from mesh.routing.hashing import HashPolicy
from mesh.routing.headers import NO_MUTATION
from mesh.routing.headers import HeaderMutation as HeaderMutation
from mesh.routing.headers import HeaderValue as HeaderValue
from mesh.routing.headers import Presence as Presence
from mesh.routing.match import ANY_REQUEST
from mesh.routing.match import HeaderMatch as HeaderMatch
from mesh.routing.match import MatchKind as MatchKind
from mesh.routing.match import PathKind as PathKind
from mesh.routing.match import PathMatch as PathMatch
from mesh.routing.match import QueryMatch as QueryMatch
from mesh.routing.match import RangeMatch as RangeMatch
from mesh.routing.match import RouteMatch as RouteMatch
from mesh.routing.match import StringMatch as StringMatch
from mesh.routing.mirror import Mirror


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


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedCluster:
    """One branch of a split."""

    name: str
    """The cluster's name."""
    weight: int = 1
    """Share of the sum over all branches, >= 0."""
    request_headers: HeaderMutation = NO_MUTATION
    response_headers: HeaderMutation = NO_MUTATION
    metadata_match: tuple[tuple[str, str], ...] = ()
    """Only endpoints with these labels are used. Sorted. Source: Envoy metadata_match, filter_metadata["envoy.lb"]."""
    host_rewrite: str | None = None
    """Replaces the Host, before the route's own."""
    filters: FilterSettings = NO_SETTINGS
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
    host_rewrite_header: str | None = None
    """The Host becomes this header's value, if the request has one. Lower case."""
    host_rewrite_regex: RegexRewrite | None = None
    """The Host becomes the path, so rewritten."""
    append_forwarded_host: bool = False
    """Add the Host that was rewritten to x-forwarded-host."""
    split_header: str | None = None
    """A header (lower case) whose number picks the branch of the split; without a number it is chance.
    Source: Envoy WeightedCluster.header_name."""
    split_by_hash: bool = False
    """The request's hash picks the branch, if `hash_policies` give one. Source: Envoy WeightedCluster.use_hash_policy."""
    hash_policies: tuple[HashPolicy, ...] = ()
    """What a request is hashed by, for clusters that balance by hash."""
    mirrors: tuple[Mirror, ...] = ()
    """Where copies of the requests go."""
    hedge: HedgePolicy | None = None
    """None: the virtual host's."""
    max_stream_duration_s: float | None = None
    """The whole exchange ends after this, however much moves. None: no limit. Seconds, > 0."""
    missing_cluster_status: int = 503
    """The answer while the snapshot lacks the cluster. Source: cluster_not_found_response_code."""
    upgrades: tuple[tuple[str, bool], ...] = ()
    """(protocol in lower case, whether it is allowed), over the listener's `upgrades`."""
    terminates_connect: bool = False
    """CONNECT ends here: its payload goes to the endpoint as a plain TCP connection. Source: UpgradeConfig.connect_config."""

    def __post_init__(self) -> None:
        if not self.clusters:
            raise RouteTableError("a route without clusters: name at least one destination")
        if sum(cluster.weight for cluster in self.clusters) <= 0 or any(c.weight < 0 for c in self.clusters):
            names = ", ".join(f"{c.name}={c.weight}" for c in self.clusters)
            raise RouteTableError(f"weights must be >= 0 and sum to more than 0, got {names}")
        if self.prefix_rewrite is not None and self.regex_rewrite is not None:
            raise RouteTableError("prefix_rewrite and regex_rewrite exclude each other")
        hosts = (self.host_rewrite, self.host_rewrite_header, self.host_rewrite_regex)
        if sum(host is not None for host in hosts) > 1:
            raise RouteTableError("host_rewrite, host_rewrite_header and host_rewrite_regex exclude each other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Answer with a Location. Empty fields keep the request's part."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    """Replaces the whole path."""
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewrite | None = None
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
    match: RouteMatch = ANY_REQUEST
    action: Action
    buffer_limit_bytes: int | None = None
    """Of a request's body, kept so that it can be sent again. A larger one is sent once. Source: per_request_buffer_limit_bytes."""
    request_headers: HeaderMutation = NO_MUTATION
    response_headers: HeaderMutation = NO_MUTATION
    filters: FilterSettings = NO_SETTINGS
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
    request_headers: HeaderMutation = NO_MUTATION
    response_headers: HeaderMutation = NO_MUTATION
    filters: FilterSettings = NO_SETTINGS
    mirrors: tuple[Mirror, ...] = ()
    """For routes that have none of their own."""
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """What an HTTP listener routes by."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...] = ()
    request_headers: HeaderMutation = NO_MUTATION
    response_headers: HeaderMutation = NO_MUTATION
    filters: FilterSettings = NO_SETTINGS
    mirrors: tuple[Mirror, ...] = ()
    """For virtual hosts that have none of their own."""
    most_specific_wins: bool = False
    """Header changes are made from the table inwards to the branch, so that the innermost has the last word; otherwise the
    other way round. Source: Envoy most_specific_header_mutations_wins."""
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
        """Every cluster that a route can lead to, copies of requests included."""
        names = {mirror.cluster for mirror in self.mirrors}
        for host in self.virtual_hosts:
            names.update(mirror.cluster for mirror in host.mirrors)
            for route in host.routes:
                if isinstance(route.action, Forward):
                    names.update(cluster.name for cluster in route.action.clusters)
                    names.update(mirror.cluster for mirror in route.action.mirrors)
        return frozenset(names)
