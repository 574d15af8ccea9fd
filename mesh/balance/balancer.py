"""Everything together: from a set of endpoints and a policy to a picker, through health, priorities, localities and panic.

A `Balancer` belongs to one set of endpoints, a cluster's or a subset's. Whenever the set, its health or a weight changes, `update` makes
new pickers; the tables of hashing policies stay while the hosts do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from mesh.balance.config import DEFAULT_OPTIONS, BalanceOptions
from mesh.balance.endpoint import Endpoint, Health, LbPolicy, Locality
from mesh.balance.ewma import Latency, PeakEwma
from mesh.balance.hash_pick import HashPicker
from mesh.balance.pick import (
    Draw,
    FullScan,
    LeastRequest,
    Picker,
    Random,
    RoundRobin,
    WeightedLeastRequest,
    has_equal_weights,
)
from mesh.balance.placement import Placement
from mesh.balance.priority import LevelHealth, LevelShare, effective_weight, share_load
from mesh.balance.spread import ByLocality, HashSpread, Panicking, Spread

_OTHER_DRAWS = 3
"""Tries for an untried host by the policy itself, before all are looked through."""


class BalancedHost(Protocol):
    """What a balancer needs to know."""

    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def active(self) -> int:
        """Requests in flight."""
        ...

    @property
    def weight(self) -> float:
        """The endpoint's, less while it warms up."""
        ...

    @property
    def latency(self) -> Latency | None:
        """For PEAK_EWMA."""
        ...

    @property
    def is_usable(self) -> bool:
        """Healthy or degraded, and not ejected."""
        ...

    @property
    def is_check_excluded(self) -> bool:
        """Not counted as a host at all, for now."""
        ...


H = TypeVar("H", bound=BalancedHost)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceSpec:
    """How one set of endpoints is balanced."""

    policy: LbPolicy = LbPolicy.ROUND_ROBIN
    choices: int = 2
    panic_threshold_percent: float = 50.0
    overprovisioning_percent: int = 140
    options: BalanceOptions = DEFAULT_OPTIONS
    is_locality_weighted: bool = False


@dataclass(slots=True)
class BalanceCounts:
    """What is counted about a cluster's balancing, under Envoy's names without `lb_`. Values only grow."""

    panic_picks: int = 0
    """healthy_panic"""
    subsets_selected: int = 0
    subsets_fallback: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a balancer is told by its owner."""

    clock: Callable[[], float]
    draw: Draw
    in_flight: Callable[[], int] = lambda: 0
    """Requests of the whole cluster."""
    counts: BalanceCounts = field(default_factory=BalanceCounts)


@dataclass(slots=True)
class _Level(Generic[H]):
    """Hosts of one priority; draining ones are not among them."""

    hosts: list[H] = field(default_factory=list)
    healthy: list[H] = field(default_factory=list)
    degraded: list[H] = field(default_factory=list)


Source = tuple[int, Sequence[H], bool]
"""(percent of the load, hosts, whether they are all hosts of a panicking level)"""


class Balancer(Generic[H]):
    """The picker over one set of endpoints."""

    __slots__ = ("_around", "_placements", "_spec", "available", "healthy", "is_panicking", "picker", "shares")

    def __init__(self, spec: BalanceSpec, around: Surroundings) -> None:
        self._spec = spec
        self._around = around
        self._placements: dict[int, Placement[H]] = {}
        self.picker: Picker[H] = Random[H](())
        self.available: tuple[H, ...] = ()
        """What the picker draws from."""
        self.healthy = 0
        """Usable endpoints that are not degraded, of all levels."""
        self.shares: tuple[LevelShare, ...] = ()
        """Of the priority levels, from 0 on."""
        self.is_panicking = False
        """A level with load has too few usable endpoints, so all are used."""

    def update(self, hosts: Sequence[H], localities_of: Mapping[tuple[int, Locality], int] | None = None) -> None:
        """From now on these, with the health and weights they have now.

        `localities_of`: endpoints per priority and locality in the whole cluster, when these are a part of it and localities' weights
        are to shrink with the part.
        """
        levels = _levels(hosts)
        self.healthy = sum(len(level.healthy) for level in levels)
        self.shares = share_load(
            [LevelHealth(len(level.hosts), len(level.healthy), len(level.degraded)) for level in levels],
            overprovisioning_percent=self._spec.overprovisioning_percent,
            panic_threshold_percent=self._spec.panic_threshold_percent,
        )
        self.is_panicking = any(
            share.is_panicking and share.healthy_percent + share.degraded_percent > 0 for share in self.shares
        )
        if self._spec.policy.is_hashing:
            self._update_hashing(levels, localities_of)
        else:
            self._update_picking(levels, localities_of)

    # -- policies without keys

    def _update_picking(
        self, levels: Sequence[_Level[H]], localities_of: Mapping[tuple[int, Locality], int] | None
    ) -> None:
        pickers: list[tuple[int, Picker[H]]] = []
        available: list[H] = []
        for level, share in zip(levels, self.shares, strict=True):
            for percent, hosts, is_panicking in _sources(level, share):
                used = hosts
                if is_panicking:
                    picker: Picker[H] = Panicking(self._flat(hosts), self._around.counts)
                elif self._spec.is_locality_weighted:
                    picker, used = self._by_locality(level, hosts, localities_of)
                else:
                    picker = self._flat(hosts)
                pickers.append((percent, picker))
                available += used
        self.available = tuple(available)
        if len(pickers) == 1:
            self.picker = pickers[0][1]
        else:
            self.picker = Spread(pickers) if pickers else Random[H](())

    def _flat(self, hosts: Sequence[H]) -> Picker[H]:
        """The policy over hosts, wherever they are."""
        spec, around = self._spec, self._around
        match spec.policy:
            case LbPolicy.LEAST_REQUEST:
                if not has_equal_weights(hosts):
                    return WeightedLeastRequest(hosts, spec.options.active_request_bias, around.draw())
                return FullScan(hosts) if spec.options.is_full_scan else LeastRequest(hosts, spec.choices)
            case LbPolicy.PEAK_EWMA:
                return PeakEwma(hosts, around.clock)
            case LbPolicy.ROUND_ROBIN:
                return RoundRobin(hosts, around.draw())
            case _:
                return Random(hosts)

    def _by_locality(
        self, level: _Level[H], hosts: Sequence[H], localities_of: Mapping[tuple[int, Locality], int] | None
    ) -> tuple[Picker[H], Sequence[H]]:
        """Localities by weight, then the policy within: (the picker, hosts that can be picked).

        No locality has a weight: as if there were none.
        """
        weights = _locality_weights(level.hosts, localities_of)
        totals = _count_localities(level.hosts)
        groups: dict[Locality, list[H]] = {}
        for host in hosts:
            groups.setdefault(host.endpoint.locality, []).append(host)
        branches: list[tuple[float, Picker[H]]] = []
        used: list[H] = []
        for locality, group in groups.items():
            weight = effective_weight(
                weights[locality],
                usable=len(group),
                total=totals[locality],
                overprovisioning_percent=self._spec.overprovisioning_percent,
            )
            if weight > 0:
                branches.append((weight, self._flat(group)))
                used += group
        if not branches:
            return self._flat(hosts), hosts
        return branches[0][1] if len(branches) == 1 else ByLocality(branches, self._around.draw()), used

    # -- policies with keys

    def _update_hashing(
        self, levels: Sequence[_Level[H]], localities_of: Mapping[tuple[int, Locality], int] | None
    ) -> None:
        spec = self._spec
        found: list[tuple[int, HashPicker[H], bool]] = []
        available: list[H] = []
        for at, (level, share) in enumerate(zip(levels, self.shares, strict=True)):
            if not level.hosts:
                self._placements.pop(at, None)
                continue
            placement = self._placements.get(at)
            if placement is None:
                placement = self._placements[at] = Placement(spec.policy, spec.options.hashing)
            weights = _locality_weights(level.hosts, localities_of) if spec.is_locality_weighted else {}
            placed = _weighted_only(level.hosts, weights)
            placement.update(placed, _normal_weights(placed, weights))
            for percent, hosts, is_panicking in _sources(level, share):
                # No locality with a weight has a usable host: better one without than none.
                used = _weighted_only(hosts, weights) or hosts
                picker = HashPicker(
                    placement,
                    used,
                    balance_factor=spec.options.hashing.balance_factor,
                    in_flight=self._around.in_flight,
                )
                found.append((percent, picker, is_panicking))
                available += used
        for at in [at for at in self._placements if at >= len(levels)]:
            del self._placements[at]
        self.available = tuple(available)
        self.picker = HashSpread(found, self._around.counts)

    def advance(self) -> None:
        """Go on with tables that are being made, if any: one slice each."""
        for placement in self._placements.values():
            placement.advance()

    # -- picks that are not plain

    def pick_hash(self, key: int, tried: Sequence[H] = ()) -> H | None:
        """The host of `key`; a policy without keys picks as always."""
        if isinstance(self.picker, HashSpread):
            host: H | None = self.picker.pick_hash(key, tried)
            return host
        return self.pick_other(tried) if tried else self.picker.pick(self._around.draw)

    def pick_other(self, tried: Sequence[H]) -> H | None:
        """A host for a retry: not one of `tried`, if there is one. First as the policy picks, so load goes where it should;
        then of the untried ones the least loaded of the first priority."""
        draw = self._around.draw
        host: H | None = None
        for _ in range(_OTHER_DRAWS):
            host = self.picker.pick(draw)
            if host is None or host not in tried:
                return host
        fresh = [one for one in self.available if one not in tried]
        if not fresh:
            return host
        first = min(one.endpoint.priority for one in fresh)
        return FullScan([one for one in fresh if one.endpoint.priority == first]).pick(draw)


def _levels(hosts: Sequence[H]) -> list[_Level[H]]:
    """By priority, without gaps.

    DEVIATION: Envoy counts draining endpoints as unhealthy ones and uses them in panic; here they get nothing new, ever.
    """
    levels: list[_Level[H]] = []
    for host in hosts:
        endpoint = host.endpoint
        if endpoint.health is Health.DRAINING or host.is_check_excluded:
            continue
        while len(levels) <= endpoint.priority:
            levels.append(_Level())
        level = levels[endpoint.priority]
        level.hosts.append(host)
        if host.is_usable:
            (level.degraded if endpoint.health is Health.DEGRADED else level.healthy).append(host)
    return levels


def _sources(level: _Level[H], share: LevelShare) -> list[Source[H]]:
    """Where a level's load goes."""
    if share.is_panicking:
        found: list[Source[H]] = [(share.healthy_percent + share.degraded_percent, level.hosts, True)]
    else:
        found = [(share.healthy_percent, level.healthy, False), (share.degraded_percent, level.degraded, False)]
    return [source for source in found if source[0]]


def _count_localities(hosts: Sequence[H]) -> dict[Locality, int]:
    counts: dict[Locality, int] = {}
    for host in hosts:
        locality = host.endpoint.locality
        counts[locality] = counts.get(locality, 0) + 1
    return counts


def _locality_weights(
    hosts: Sequence[H], localities_of: Mapping[tuple[int, Locality], int] | None
) -> dict[Locality, float]:
    """What the control plane gave each locality of a level, scaled by this part of it if asked."""
    weights = {host.endpoint.locality: float(host.endpoint.locality_weight) for host in hosts}
    if localities_of is None:
        return weights
    priority = hosts[0].endpoint.priority if hosts else 0
    counts = _count_localities(hosts)
    return {one: weight * counts[one] / localities_of[(priority, one)] for one, weight in weights.items()}


def _weighted_only(hosts: Sequence[H], localities: Mapping[Locality, float]) -> Sequence[H]:
    """Without the hosts of localities of weight 0, unless no locality has a weight.

    DEVIATION: then Envoy's hashing policies have no host at all, its other policies all of them; here all have all.
    """
    if not any(localities.values()) or all(localities.values()):
        return hosts
    return [host for host in hosts if localities[host.endpoint.locality]]


def _normal_weights(hosts: Sequence[H], localities: Mapping[Locality, float]) -> list[float]:
    """Shares that sum to 1: within a locality by the endpoints' weights, between localities by theirs if there are any."""
    total = sum(localities.values())
    if not total:
        sum_of = sum(host.endpoint.weight for host in hosts)
        return [host.endpoint.weight / sum_of for host in hosts]
    sums: dict[Locality, int] = {}
    for host in hosts:
        sums[host.endpoint.locality] = sums.get(host.endpoint.locality, 0) + host.endpoint.weight
    return [
        host.endpoint.weight * localities[host.endpoint.locality] / total / sums[host.endpoint.locality]
        for host in hosts
    ]
