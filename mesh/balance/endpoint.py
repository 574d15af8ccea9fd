"""An endpoint: where a request can be sent, and what is known about the workload behind it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.balance.errors import BalanceConfigError

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted by name."""


class Health(enum.Enum):
    """What the control plane says about an endpoint. Source: Envoy core.HealthStatus."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Usable, but only when the healthy ones of its priority level and below are not enough."""
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    """Takes no new requests; those in flight may end."""


class LbPolicy(enum.Enum):
    """How a cluster picks among its endpoints."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUEST = "least_request"
    RANDOM = "random"
    PEAK_EWMA = "peak_ewma"
    RING_HASH = "ring_hash"
    MAGLEV = "maglev"

    @property
    def is_hashing(self) -> bool:
        """Whether requests with equal keys go to the same endpoint."""
        return self in (LbPolicy.RING_HASH, LbPolicy.MAGLEV)


@dataclass(frozen=True, slots=True, order=True)
class Locality:
    """Where an endpoint runs. Source: Envoy core.Locality."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""

    def __str__(self) -> str:
        return "/".join((self.region, self.zone, self.sub_zone)).rstrip("/")


NOWHERE = Locality()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a cluster. Equal values are the same endpoint: pools and health survive a config change."""

    address: str
    """An IP address in text form."""
    port: int
    """1 to 65535."""
    weight: int = 1
    """Relative to the other endpoints of its locality, >= 1."""
    priority: int = 0
    """0 is preferred; higher ones take over as the lower ones lose endpoints."""
    health: Health = Health.HEALTHY
    check_port: int = 0
    """Where active health checks go; 0: `port`. Source: Endpoint.HealthCheckConfig, like the next two."""
    check_host: str = ""
    """The Host header of HTTP checks; empty: the check's own, or the cluster's name."""
    is_unchecked: bool = False
    """No active health checks of this endpoint."""
    workload: Mapping[str, str] = field(default_factory=dict, hash=False)
    """From metadata `meshwork.dev`: workload, namespace, app, version, pod, node. For metrics and the access log."""
    locality: Locality = NOWHERE
    locality_weight: int = 0
    """Relative to the other localities of its priority. 0: none said; no load when localities are weighted."""
    labels: Labels = ()
    """From metadata `envoy.lb`: what subsets are made by."""
    hostname: str = ""
    """A name that may stand for the endpoint when keys are placed."""

    def __post_init__(self) -> None:
        if self.weight < 1:
            raise BalanceConfigError(f"endpoint {self.address}:{self.port}: weight is {self.weight}, want >= 1")
        if not 0 < self.port < 65536:
            raise BalanceConfigError(f"endpoint {self.address}: port is {self.port}, want 1 to 65535")
        if self.priority < 0:
            raise BalanceConfigError(f"endpoint {self.address}:{self.port}: priority is {self.priority}, want >= 0")

    @property
    def text(self) -> str:
        """`address:port`, with an IPv6 address in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAssignment:
    """All endpoints of a cluster and how far its priority levels are overprovisioned."""

    endpoints: tuple[Endpoint, ...] = ()
    overprovisioning_percent: int = 140
    """A priority level passes load on when its share of usable endpoints times this is below 100 %. >= 100.
    Source: ClusterLoadAssignment.Policy.overprovisioning_factor."""
