"""One consistent state of everything that is published, and the check that it is consistent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from controlplane.discovery.build_limits import PortLimits
from controlplane.discovery.build_listeners import InboundPort
from controlplane.discovery.errors import SnapshotError
from controlplane.discovery.facts import Labels, ObjectKey
from controlplane.discovery.localities import ANYWHERE, Place
from controlplane.discovery.resources import CDS, EDS, IN_ORDER, LDS, RDS, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What decides which resources a proxy gets; proxies of one scope share every table."""

    namespace: str
    labels: Labels = ()
    """Those of the proxy's labels that some policy's sourceLabels ask for."""
    intercepts: bool = True
    """INTERCEPTION_MODE is REDIRECT."""
    inbound: tuple[InboundPort, ...] = ()
    """Its own ports, sorted."""
    limits: tuple[PortLimits, ...] = ()
    """What is let in at those of its own ports that have a limit."""
    place: Place = ANYWHERE
    """Where it is, if some policy asks."""


Tables = Mapping[str, Table]
"""type URL -> table."""
NO_TABLES: Tables = {type_url: {} for type_url in IN_ORDER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What proxies should have, at one moment."""

    serial: int
    """1, 2, 3, ... in the order of publication."""
    scopes: Mapping[Scope, Tables] = field(default_factory=dict)
    pods: frozenset[ObjectKey] = frozenset()
    """Pods that are an endpoint of something."""


def check_references(tables: Tables) -> None:
    """Raises SnapshotError for the first reference to a resource that is not there."""
    for name in sorted(_problems(tables)):
        raise SnapshotError(f"refusing to publish: {name}")


def _problems(tables: Tables) -> Iterator[str]:
    clusters, assignments, routes = tables[CDS], tables[EDS], tables[RDS]
    for name in assignments.keys() - clusters.keys():
        yield f"endpoints of {name}, which is no cluster"
    for name in clusters:
        if name.startswith("outbound|") and name not in assignments:
            yield f"cluster {name} without endpoints"
    wanted: set[str] = set()
    for listener in tables[LDS].values():
        for reference in listener.refers_to:
            if reference.startswith("rds:"):
                wanted.add(reference.removeprefix("rds:"))
            elif reference not in clusters:
                yield f"listener {listener.name} names cluster {reference}, which does not exist"
    if missing := wanted ^ routes.keys():
        yield f"route configurations {sorted(missing)} are either not there or not used"
    for route in routes.values():
        for reference in route.refers_to - clusters.keys():
            yield f"routes {route.name} name cluster {reference}, which does not exist"
