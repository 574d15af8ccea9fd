"""Compiled DestinationRules: how the clusters of a host are used, defaults filled in, with provenance."""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mesh.resilience.outlier import OutlierConfig
from mesh.routing.table import Provenance
from policies.values import EVERYWHERE, Visibility


class LoadBalancing(enum.Enum):
    """How an endpoint is picked. The last two by the request's key (`TrafficSettings.hash_key`)."""

    LEAST_REQUEST = "LEAST_REQUEST"
    ROUND_ROBIN = "ROUND_ROBIN"
    RANDOM = "RANDOM"
    RING_HASH = "RING_HASH"
    MAGLEV = "MAGLEV"


class HashSource(enum.Enum):
    """What of a request is its key."""

    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"
    SOURCE_IP = "source-ip"


@dataclass(frozen=True, slots=True, kw_only=True)
class HashKey:
    """Requests with the same key go to the same endpoint."""

    source: HashSource
    name: str = ""
    path: str = ""
    """Of a cookie that is made."""
    ttl_s: float | None = None
    """Make a missing cookie with this lifetime, 0 for one of the session. None: make none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStart:
    """A new endpoint's share grows over this time."""

    window_s: float
    min_percent: float = 10.0
    aggression: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityShares:
    """Where requests from a locality go."""

    source: str
    """region/zone/subzone, the last part given may be `*`."""
    targets: tuple[tuple[str, int], ...]
    """(locality, percent); they sum to 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityBalancing:
    """How the client's place decides. At most one of the three is not empty; all empty: nearest first."""

    distribute: tuple[LocalityShares, ...] = ()
    failover: tuple[tuple[str, str], ...] = ()
    """(region of the client, region that takes over)."""
    priority_labels: tuple[tuple[str, str], ...] = ()
    """(label, value) in order; value "" is the client's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """An active check of every endpoint."""

    path: str = ""
    """GET this, want 200; "": only connect."""
    host: str = ""
    interval_s: float = 10.0
    timeout_s: float = 1.0
    healthy_threshold: int = 1
    unhealthy_threshold: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """SO_KEEPALIVE; None: the system's."""

    probes: int | None = None
    time_s: float | None = None
    interval_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSettings:
    """How a cluster is used. DEVIATION: limits are finite (Envoy's defaults); Istio's are 2**32 - 1."""

    load_balancing: LoadBalancing = LoadBalancing.LEAST_REQUEST
    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int | None = None
    """Retries in flight. None: the budget below."""
    budget_percent: float = 20.0
    """Retries in flight, as a share of the active requests."""
    budget_min: int = 10
    """Retries in flight that are always allowed. DEVIATION: Envoy's default is 3; with 8 clients of one failing pod among
    three, that returned 2 of 5 failures (measured) before the pod was ejected. The share still bounds a storm."""
    max_requests_per_connection: int = 0
    """0: no limit."""
    connect_timeout_s: float = 10.0
    """Source: Istio's default."""
    idle_timeout_s: float | None = None
    """Close an upstream HTTP connection unused for this long. None: the proxy's default."""
    tcp_idle_timeout_s: float | None = None
    """Close a TCP connection without bytes for this long. None: the proxy's default."""
    max_connection_duration_s: float | None = None
    keepalive: Keepalive | None = None
    hash_key: HashKey | None = None
    """With RING_HASH and MAGLEV only."""
    table_size: int = 0
    """Of the ring (at least) or the Maglev table; 0: the proxy's default, 1024 and 65537."""
    slow_start: SlowStart | None = None
    locality: LocalityBalancing | None = None
    """None: the client's place does not matter."""
    uses_peak_ewma: bool = False
    """Meshwork's sidecar: latency decides; other proxies balance as `load_balancing` says."""
    health_check: HealthCheck | None = None
    outlier: OutlierConfig | None = None
    """None: nothing is ejected."""
    min_health_percent: int | None = None
    """Below this share of healthy endpoints all are used (panic). None: the proxy's default, 50."""

    @property
    def active_locality(self) -> LocalityBalancing | None:
        """`locality` where it can work: traffic only fails over when something tells that endpoints are unwell.

        Source: Istio, which wants outlierDetection for failover; an active health check does as well. DEVIATION: Istio fails
        over as soon as there is outlierDetection; here localityLbSetting has to be there, so that nobody is surprised.
        """
        tells_health = self.outlier is not None or self.health_check is not None
        return self.locality if self.locality and (self.locality.distribute or tells_health) else None


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
    visibility: Visibility = EVERYWHERE
    provenance: Provenance
    asks_for_place: bool = field(init=False, compare=False, default=False)
    """Where a client is matters to one of the clusters."""
    asks_for_key: bool = field(init=False, compare=False, default=False)
    """One of the clusters goes by a key of the request."""

    def __post_init__(self) -> None:
        settings = tuple(self.all_settings())
        object.__setattr__(self, "asks_for_place", any(s.active_locality is not None for s in settings))
        object.__setattr__(self, "asks_for_key", any(s.hash_key is not None for s in settings))

    def all_settings(self) -> Iterator[TrafficSettings]:
        """Those of the host, its ports, its subsets and their ports."""
        yield self.settings
        yield from self.port_settings.values()
        for subset in self.subsets.values():
            yield subset.settings
            yield from subset.port_settings.values()

    def cluster_settings(self, subset: str, port: int) -> TrafficSettings:
        """The settings of the cluster of a subset ("": the host's own, as for one that is not there) on a port."""
        found = self.subsets.get(subset)
        return self.settings_for(port) if found is None else found.settings_for(port)

    def settings_for(self, port: int) -> TrafficSettings:
        """The settings of the host's own cluster on a service port."""
        return self.port_settings.get(port, self.settings)
