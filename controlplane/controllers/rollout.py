"""The arithmetic of a Deployment: which replica counts its ReplicaSets should have next. Pure.

One step at a time: surge first, then take away, so that never fewer than `replicas - max_unavailable` pods are available and never
more than `replicas + max_surge` exist. Source: Kubernetes documentation, "Deployments", rolling update and proportional scaling.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mesh.api.apps import DeploymentSpec
from mesh.api.int_or_string import resolve_percent


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSize:
    """One ReplicaSet as the arithmetic sees it."""

    name: str
    replicas: int
    """spec.replicas."""
    available: int
    """status.availableReplicas; may lag behind `replicas`."""
    created_at: float
    """Wall seconds."""
    max_replicas: int = 0
    """The Deployment's replicas + surge when the set was last scaled (annotation); 0 when unknown."""

    @property
    def counted_available(self) -> int:
        """Available pods that stay: a status from before a scale-down counts no pod twice."""
        return min(self.available, self.replicas)


@dataclass(frozen=True, slots=True)
class Limits:
    """maxSurge and maxUnavailable as numbers; at least one is > 0."""

    surge: int
    unavailable: int

    @classmethod
    def of(cls, spec: DeploymentSpec) -> "Limits":
        """Surge rounds up, unavailable down; both 0 (by rounding) means one unavailable. Recreate has none of either."""
        if spec.strategy.type == "Recreate":
            return cls(0, 0)
        update = spec.strategy.rolling_update
        surge = resolve_percent(update.max_surge, spec.replicas, round_up=True)
        unavailable = min(spec.replicas, resolve_percent(update.max_unavailable, spec.replicas, round_up=False))
        if surge == 0 and unavailable == 0:
            unavailable = 1
        return cls(surge, unavailable)


def next_new_size(replicas: int, new: SetSize, old: Sequence[SetSize], limits: Limits) -> int:
    """The newest set's next size: as large as the surge allows, at most `replicas`; smaller at once when it is too large."""
    if new.replicas >= replicas:
        return replicas
    total = new.replicas + sum(item.replicas for item in old)
    room = replicas + limits.surge - total
    return min(replicas, new.replicas + max(0, room))


def next_old_sizes(replicas: int, new: SetSize, old: Sequence[SetSize], limits: Limits) -> dict[str, int]:
    """Old sets that should shrink now: name -> size. Unhealthy pods go first, then healthy ones, oldest set first."""
    total = new.replicas + sum(item.replicas for item in old)
    min_available = replicas - limits.unavailable
    new_unavailable = new.replicas - new.counted_available
    budget = total - min_available - new_unavailable
    if budget <= 0:
        return {}
    sizes = {item.name: item for item in sorted(old, key=lambda item: (item.created_at, item.name))}
    _drop_unhealthy(sizes, budget)
    available = new.counted_available + sum(item.counted_available for item in sizes.values())
    removed = sum(item.replicas for item in old) - sum(item.replicas for item in sizes.values())
    _drop_healthy(sizes, min(available - min_available, budget - removed))
    before = {item.name: item.replicas for item in old}
    return {name: item.replicas for name, item in sizes.items() if item.replicas != before[name]}


def _drop_unhealthy(sizes: dict[str, SetSize], budget: int) -> None:
    for name, item in sizes.items():
        drop = min(budget, item.replicas - item.counted_available)
        sizes[name] = replace(item, replicas=item.replicas - drop)
        budget -= drop


def _drop_healthy(sizes: dict[str, SetSize], budget: int) -> None:
    for name, item in sizes.items():
        drop = min(max(0, budget), item.replicas)
        sizes[name] = replace(item, replicas=item.replicas - drop)
        budget -= drop


def scaled_sizes(replicas: int, new: SetSize | None, old: Sequence[SetSize], limits: Limits) -> dict[str, int]:
    """Sizes after `spec.replicas` changed or while paused: name -> size, only the ones that change.

    One active set takes all. In the middle of a rollout the difference is spread in proportion to the sets' sizes.
    """
    everything = sorted([*old, *([new] if new is not None else [])], key=lambda item: (item.created_at, item.name))
    active = [item for item in everything if item.replicas > 0]
    if len(active) <= 1:
        target = active[0] if active else new or (everything[-1] if everything else None)
        return {target.name: replicas} if target is not None and target.replicas != replicas else {}
    if new is not None and new.replicas == replicas == new.counted_available:
        return {item.name: 0 for item in old if item.replicas > 0}
    return _proportional(replicas + limits.surge if replicas > 0 else 0, active)


def _proportional(allowed: int, active: Sequence[SetSize]) -> dict[str, int]:
    """Spread the difference to `allowed` over the sets, largest first; what rounding leaves goes to the largest."""
    total = sum(item.replicas for item in active)
    difference = allowed - total
    if difference == 0:
        return {}
    newest_first_when_growing = -1 if difference > 0 else 1
    ordered = sorted(active, key=lambda item: (-item.replicas, newest_first_when_growing * item.created_at, item.name))
    sizes = {item.name: item.replicas for item in ordered}
    left = difference
    for item in ordered:
        share = _share(item, allowed, total, left)
        sizes[item.name] += share
        left -= share
    first = ordered[0].name
    sizes[first] = max(0, sizes[first] + left)
    return {item.name: sizes[item.name] for item in ordered if sizes[item.name] != item.replicas}


def _share(item: SetSize, allowed: int, total: int, left: int) -> int:
    base = item.max_replicas or total
    share = round(item.replicas * allowed / base) - item.replicas
    if left > 0:
        return max(0, min(share, left))
    return min(0, max(share, left, -item.replicas))
