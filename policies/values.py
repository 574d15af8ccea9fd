"""Compiled policies: validated, defaults filled in, references resolved, every rule with its provenance."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.resilience.outlier import OutlierConfig
from mesh.routing.table import DirectResponse, HeaderMutation, Provenance, Redirect, RouteMatch

ANY_REQUEST = RouteMatch()
NO_MUTATION = HeaderMutation()
UNKNOWN = Provenance()
SAFE_RETRY_ON = ("connect-failure", "refused-stream", "reset-before-request")
"""Conditions under which the upstream has proved not to have begun the request, so that repeating it is safe for any method."""
DEFAULT_RETRY_ATTEMPTS = 2
"""Source: Istio. DEVIATION: Istio also retries on 503, which repeated POSTs (istio issue 50506)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and on what a request is tried again."""

    attempts: int = DEFAULT_RETRY_ATTEMPTS
    """Tries after the first, >= 0; 0 turns retries off."""
    per_try_timeout_s: float | None = None
    """None: only the route's timeout counts."""
    retry_on: tuple[str, ...] = SAFE_RETRY_ON
    """Envoy's names."""
    statuses: tuple[int, ...] = ()
    """HTTP statuses that are retried as well."""


DEFAULT_RETRY = Retry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a request must look like, and who must send it."""

    request: RouteMatch = ANY_REQUEST
    port: int = 0
    """The port the client addressed; 0 is any."""
    source_labels: tuple[tuple[str, str], ...] = ()
    """Labels of the client's pod, sorted."""
    source_namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One branch of a split."""

    host: str
    """Fully qualified."""
    subset: str = ""
    port: int = 0
    """0: the service's only port, or the one the client addressed."""
    weight: int = 1
    request_headers: HeaderMutation = NO_MUTATION
    response_headers: HeaderMutation = NO_MUTATION
    provenance: Provenance = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Send the request on."""

    destinations: tuple[Destination, ...]
    """At least one; the weights sum to more than 0."""
    timeout_s: float | None = None
    """Whole request with all its tries. None: no limit. Source: Istio's default."""
    retry: Retry = DEFAULT_RETRY
    prefix_rewrite: str | None = None
    host_rewrite: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRoute:
    """One entry of spec.http."""

    name: str
    matches: tuple[Match, ...]
    """One of them must hold; at least one."""
    action: Forward | Redirect | DirectResponse
    request_headers: HeaderMutation = NO_MUTATION
    response_headers: HeaderMutation = NO_MUTATION
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """Whose proxies see a policy."""

    namespaces: frozenset[str] = frozenset()
    """Empty: all."""

    def includes(self, namespace: str) -> bool:
        """Whether proxies of `namespace` see it."""
        return not self.namespaces or namespace in self.namespaces


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledVirtualService:
    """Routes for a set of hosts."""

    key: str
    """namespace/name."""
    generation: int
    created: str
    """creationTimestamp; of two for the same host the older one counts."""
    hosts: tuple[str, ...]
    routes: tuple[CompiledRoute, ...]
    """In order; the first that matches decides. A request that none matches is answered 404."""
    visibility: Visibility = Visibility()
    is_for_sidecars: bool = True
    """`gateways` is absent or names `mesh`."""
    provenance: Provenance


class LoadBalancing(enum.Enum):
    """How an endpoint is picked."""

    LEAST_REQUEST = "LEAST_REQUEST"
    ROUND_ROBIN = "ROUND_ROBIN"
    RANDOM = "RANDOM"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSettings:
    """How a cluster is used. DEVIATION: limits are finite (Envoy's defaults); Istio's are 2**32 - 1."""

    load_balancing: LoadBalancing = LoadBalancing.LEAST_REQUEST
    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int | None = None
    """Retries in flight. None: a budget of 20 % of the active requests, at least 10."""
    max_requests_per_connection: int = 0
    """0: no limit."""
    connect_timeout_s: float = 10.0
    """Source: Istio's default."""
    idle_timeout_s: float | None = None
    """Close an upstream connection unused for this long. None: the proxy's default."""
    outlier: OutlierConfig | None = None
    """None: nothing is ejected."""
    min_health_percent: int | None = None
    """Below this share of healthy endpoints all are used (panic). None: the proxy's default, 50."""


DEFAULT_SETTINGS = TrafficSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSubset:
    """Some of a service's endpoints."""

    name: str
    labels: tuple[tuple[str, str], ...]
    """Sorted; an endpoint's pod must have all."""
    settings: TrafficSettings
    port_settings: Mapping[int, TrafficSettings] = field(default_factory=dict)
    provenance: Provenance

    def settings_for(self, port: int) -> TrafficSettings:
        """The settings of the subset's cluster on a service port."""
        return self.port_settings.get(port, self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledDestinationRule:
    """How a host is used, and its subsets."""

    key: str
    generation: int
    created: str
    host: str
    """Fully qualified."""
    settings: TrafficSettings
    port_settings: Mapping[int, TrafficSettings] = field(default_factory=dict)
    subsets: Mapping[str, CompiledSubset] = field(default_factory=dict)
    visibility: Visibility = Visibility()
    provenance: Provenance

    def settings_for(self, port: int) -> TrafficSettings:
        """The settings of the host's own cluster on a service port."""
        return self.port_settings.get(port, self.settings)
