"""Priority levels: how much load each gets as endpoints fail, and when a level panics. Pure arithmetic.

Source: Envoy, "Priority levels", "Degraded endpoints", "Panic threshold"; percentages are whole numbers, as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LevelHealth:
    """Endpoints of one priority level."""

    total: int
    healthy: int
    degraded: int = 0


@dataclass(frozen=True, slots=True)
class LevelShare:
    """What one priority level gets. Over all levels the percentages sum to 100."""

    healthy_percent: int = 0
    """Of all requests, to its healthy endpoints; to all of them when it panics."""
    degraded_percent: int = 0
    is_panicking: bool = False
    """Too few endpoints are usable, so all are used."""


def share_load(
    levels: Sequence[LevelHealth], *, overprovisioning_percent: int, panic_threshold_percent: float
) -> tuple[LevelShare, ...]:
    """The share of each level, from priority 0 on. With no usable endpoint and no panic, level 0 gets all, for nothing."""
    healthy = [_availability(level.healthy, level.total, overprovisioning_percent) for level in levels]
    degraded = [_availability(level.degraded, level.total, overprovisioning_percent) for level in levels]
    available = min(sum(healthy) + sum(degraded), 100)
    threshold = min(panic_threshold_percent, 100.0)
    # Where the levels together can take all load, a weak one passes its load on instead of panicking.
    panics = [available < 100 and _usable_percent(level) < threshold for level in levels]
    if levels and all(panics):
        return _share_in_total_panic(levels)
    if not available:
        return tuple(LevelShare(100 if at == 0 else 0) for at in range(len(levels)))
    healthy_shares, left = _hand_out(healthy, 100, available)
    degraded_shares, left = _hand_out(degraded, left, available)
    _give_rest([healthy_shares, degraded_shares], [healthy, degraded], left)
    return tuple(map(LevelShare, healthy_shares, degraded_shares, panics))


def _availability(usable: int, total: int, overprovisioning_percent: int) -> int:
    return min(100, overprovisioning_percent * usable // total) if total else 0


def _usable_percent(level: LevelHealth) -> float:
    return 100.0 * (level.healthy + level.degraded) / level.total if level.total else 0.0


def _hand_out(availability: Sequence[int], load: int, available: int) -> tuple[list[int], int]:
    """As much as each can take, in order: (the shares, what is left)."""
    shares = []
    for one in availability:
        shares.append(min(load, one * 100 // available))
        load -= shares[-1]
    return shares, load


def _give_rest(shares: Sequence[list[int]], availability: Sequence[Sequence[int]], rest: int) -> None:
    """What rounding left over goes to the first that can take any."""
    for kind, able in zip(shares, availability, strict=True):
        for at, one in enumerate(able):
            if one:
                kind[at] += rest
                return


def _share_in_total_panic(levels: Sequence[LevelHealth]) -> tuple[LevelShare, ...]:
    """Every level panics: by number of endpoints, whatever their health."""
    total = sum(level.total for level in levels)
    if not total:
        return tuple(LevelShare(100 if at == 0 else 0, 0, True) for at in range(len(levels)))
    shares = [100 * level.total // total for level in levels]
    _give_rest([shares], [[level.total for level in levels]], 100 - sum(shares))
    return tuple(LevelShare(share, 0, True) for share in shares)


def effective_weight(weight: float, *, usable: int, total: int, overprovisioning_percent: int) -> float:
    """A locality's weight, lowered when so many of its endpoints are out that the rest would be overloaded.

    Source: Envoy, "Locality weighted load balancing".
    """
    if not total:
        return 0.0
    return weight * min(1.0, overprovisioning_percent / 100.0 * usable / total)
