"""An endpoint: where a request can be sent, and what is known about the workload behind it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.balance.errors import BalanceConfigError


class Health(enum.Enum):
    """What the control plane says about an endpoint. Source: Envoy core.HealthStatus."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    """Takes no new requests; those in flight may end."""


class LbPolicy(enum.Enum):
    """How a cluster picks among its endpoints."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUEST = "least_request"
    RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a cluster. Equal values are the same endpoint: pools and health survive a config change."""

    address: str
    """An IP address in text form."""
    port: int
    """1 to 65535."""
    weight: int = 1
    """Relative to the other endpoints, >= 1."""
    priority: int = 0
    """0 is preferred; a higher one is used when no endpoint of the lower ones can be."""
    health: Health = Health.HEALTHY
    workload: Mapping[str, str] = field(default_factory=dict, hash=False)
    """From metadata `meshwork.dev`: workload, namespace, app, version, pod, node. For metrics and the access log."""

    def __post_init__(self) -> None:
        if self.weight < 1:
            raise BalanceConfigError(f"endpoint {self.address}:{self.port}: weight is {self.weight}, want >= 1")
        if not 0 < self.port < 65536:
            raise BalanceConfigError(f"endpoint {self.address}: port is {self.port}, want 1 to 65535")
