"""Where clients and endpoints are, and what that decides about who is asked first. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.api.core import Node
from policies.balancing import locality_matches
from policies.traffic import LocalityBalancing, LocalityShares

REGION_LABEL = "topology.kubernetes.io/region"
ZONE_LABEL = "topology.kubernetes.io/zone"
SUBZONE_LABEL = "topology.istio.io/subzone"
UNKNOWN_REGION = "mesh"
"""How a locality without a region is shown: grpcio refuses an empty one."""
_WEIGHT_OF_ALL = 10_000
"""The sum of the weights that `distribute` gives; a hundredth of a percent is the smallest step."""


@dataclass(frozen=True, slots=True, order=True)
class Locality:
    """A place; empty parts are not known."""

    region: str = ""
    zone: str = ""
    subzone: str = ""

    @property
    def path(self) -> str:
        """region/zone/subzone."""
        return f"{self.region}/{self.zone}/{self.subzone}"

    def labels(self) -> dict[str, str]:
        """The parts that are known, by the labels that nodes have them in."""
        parts = {REGION_LABEL: self.region, ZONE_LABEL: self.zone, SUBZONE_LABEL: self.subzone}
        return {label: value for label, value in parts.items() if value}


NOWHERE = Locality()


def node_locality(node: Node) -> Locality:
    """By the node's labels."""
    labels = node.metadata.labels
    return Locality(labels.get(REGION_LABEL, ""), labels.get(ZONE_LABEL, ""), labels.get(SUBZONE_LABEL, ""))


@dataclass(frozen=True, slots=True)
class Place:
    """What of a client decides about which endpoints it prefers."""

    locality: Locality = NOWHERE
    labels: tuple[tuple[str, str], ...] = ()
    """Those of its labels that some failoverPriority asks for, sorted."""


ANYWHERE = Place()


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint of an assignment."""

    endpoint: Any
    """endpoint.v3.LbEndpoint."""
    locality: Locality
    labels: Mapping[str, str]
    """Of its pod."""


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints of one locality and priority."""

    locality: Locality
    priority: int
    weight: int
    members: tuple[Member, ...]


def arrange(members: Sequence[Member], balancing: LocalityBalancing | None, place: Place) -> list[Group]:
    """The groups of an assignment, by priority and locality. Priorities have no gaps; every weight is above 0.

    Source: Istio, "Locality Load Balancing". A client whose place is not known prefers nothing.
    """
    if balancing is None or place == ANYWHERE:
        return _grouped((member, 0) for member in members)
    if balancing.distribute:
        shares = next((s for s in balancing.distribute if locality_matches(s.source, place.locality.path)), None)
        groups = _grouped((member, 0) for member in members)
        return groups if shares is None else _distributed(groups, shares)
    if balancing.priority_labels:
        return _grouped((member, _by_labels(member, balancing, place)) for member in members)
    if place.locality == NOWHERE:
        return _grouped((member, 0) for member in members)
    return _grouped((member, _by_distance(member.locality, balancing, place.locality)) for member in members)


def _grouped(ranked: Iterable[tuple[Member, int]]) -> list[Group]:
    found: dict[tuple[int, Locality], list[Member]] = {}
    for member, rank in ranked:
        found.setdefault((rank, member.locality), []).append(member)
    priorities = {rank: number for number, rank in enumerate(sorted({rank for rank, _ in found}))}
    return [
        Group(locality, priorities[rank], len(members), tuple(members))
        for (rank, locality), members in sorted(found.items(), key=lambda item: item[0])
    ]


def _by_distance(locality: Locality, balancing: LocalityBalancing, own: Locality) -> int:
    """0: same subzone, 1: same zone, 2: same region, 3: another region, 4: one that is not to take over."""
    if locality.region != own.region:
        successor = dict(balancing.failover).get(own.region)
        return 3 if successor in (None, locality.region) else 4
    if locality.zone != own.zone:
        return 2
    return 0 if locality.subzone == own.subzone else 1


def _by_labels(member: Member, balancing: LocalityBalancing, place: Place) -> int:
    """The more labels match, counted from the first up to the first that does not, the lower."""
    theirs = {**member.labels, **member.locality.labels()}
    own = {**dict(place.labels), **place.locality.labels()}
    labels = balancing.priority_labels
    for matched, (key, value) in enumerate(labels):
        wanted = value or own.get(key)
        if wanted is None or theirs.get(key) != wanted:
            return len(labels) - matched
    return 0


def _distributed(groups: Sequence[Group], shares: LocalityShares) -> list[Group]:
    """Each target's share over the groups in it; a group belongs to the target that names it most exactly."""
    left = list(groups)
    weighted: list[Group] = []
    for target, percent in sorted(shares.targets, key=lambda item: _width(item[0])):
        mine = [group for group in left if locality_matches(target, group.locality.path)]
        left = [group for group in left if not locality_matches(target, group.locality.path)]
        total = sum(group.weight for group in mine)
        if percent:
            weighted += [
                Group(g.locality, 0, max(1, round(_WEIGHT_OF_ALL * percent / 100 * g.weight / total)), g.members)
                for g in mine
            ]
    return sorted(weighted, key=lambda group: group.locality)


def _width(pattern: str) -> tuple[int, str]:
    """Patterns that name fewer localities are less."""
    exact = [part for part in pattern.split("/") if part != "*"]
    return -len(exact), pattern
