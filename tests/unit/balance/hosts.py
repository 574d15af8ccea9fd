"""Hosts for pickers and balancers, and what a test wants to know about them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from mesh.balance.endpoint import Endpoint, Health, Labels, Locality
from mesh.balance.ewma import Latency


@dataclass(eq=False)
class Host:
    """As a picker sees it."""

    name: str
    weight: float = 1
    active: int = 0
    latency: Latency | None = None


@dataclass(eq=False)
class Member:
    """As a balancer sees it."""

    endpoint: Endpoint
    active: int = 0
    weight: float = 1
    latency: Latency | None = None
    is_usable: bool = True
    is_check_excluded: bool = False

    @property
    def name(self) -> str:
        return self.endpoint.address


def member(
    name: str,
    *,
    zone: str = "",
    zone_weight: int = 0,
    priority: int = 0,
    weight: int = 1,
    health: Health = Health.HEALTHY,
    labels: Labels = (),
) -> Member:
    endpoint = Endpoint(
        address=name,
        port=80,
        weight=weight,
        priority=priority,
        health=health,
        locality=Locality(zone=zone),
        locality_weight=zone_weight,
        labels=labels,
    )
    return Member(endpoint, weight=weight, is_usable=health in (Health.HEALTHY, Health.DEGRADED))


def shares(pick: Callable[[], Host | Member | None], draws: int = 10000) -> dict[str, float]:
    """How often each was picked; the empty name stands for none."""
    counts = Counter(host.name if (host := pick()) is not None else "" for _ in range(draws))
    return {name: count / draws for name, count in counts.items()}
