"""The decision: which node a pod goes to, or why none takes it. Pure but for its cache of masks.

Filters leave the nodes that may take the pod; the best score wins; equals are drawn by lot.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from controlplane.scheduler.filters import (
    host_ports,
    node_affinity,
    node_name,
    node_selector,
    pod_affinity,
    readiness,
    resources,
    taints,
    unschedulable,
)
from controlplane.scheduler.filters.refusal import Refusal
from controlplane.scheduler.pods import PodFacts
from controlplane.scheduler.scores.load import balanced, least_allocated, shares
from controlplane.scheduler.scores.preference import preference
from controlplane.scheduler.scores.spread import spread
from controlplane.scheduler.state import ClusterState, Mask, Values
from mesh.api.core import Node, Pod

NODE_RULES: Sequence[Callable[[Pod, Node], Refusal | None]] = (
    node_name.check,
    unschedulable.check,
    taints.check,
    readiness.check,
    node_selector.check,
    node_affinity.check,
)
"""Depend on the pod's placement and the node alone; the first that refuses is reported."""
LOAD_RULES = (resources, host_ports, pod_affinity)
"""Depend on what runs where."""

SPREAD_WEIGHT = 3.0
PREFERENCE_WEIGHT = 2.0
LEAST_ALLOCATED_WEIGHT = 1.0
BALANCED_WEIGHT = 1.0
_MAX_CACHED = 1024
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Binding:
    """The pod goes to this node."""

    node_name: str


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """No node takes the pod: why, for each node."""

    refusals: Mapping[str, tuple[Refusal, ...]]


@dataclass(slots=True)
class _Static:
    """What the node rules say about one kind of placement."""

    mask: Mask
    preference: Values


@dataclass(slots=True)
class Decider:
    """Decides pod by pod against one ClusterState. Keeps the node rules' results per kind of placement."""

    _generation: int = -1
    _cache: dict[bytes, _Static] = field(default_factory=dict)

    def decide(self, facts: PodFacts, state: ClusterState, rng: random.Random) -> Binding | Unschedulable:
        """The best node, or the refusals of all. Does not change `state`."""
        static = self._static(facts, state)
        allowed = static.mask.copy()
        for rule in LOAD_RULES:
            if not allowed.any():
                break
            allowed &= rule.mask(facts, state)
        if not allowed.any():
            return Unschedulable({n.metadata.name: _refusals(facts, state, row) for row, n in enumerate(state.nodes)})
        scores = _scores(facts, state) + PREFERENCE_WEIGHT * static.preference
        scores[~allowed] = -np.inf
        best = np.flatnonzero(scores >= scores.max() - _TIE)
        return Binding(state.nodes[int(best[rng.randrange(len(best))])].metadata.name)

    def _static(self, facts: PodFacts, state: ClusterState) -> _Static:
        if state.generation != self._generation or len(self._cache) > _MAX_CACHED:
            self._cache.clear()
            self._generation = state.generation
        found = self._cache.get(facts.placement)
        if found is None:
            fits = [_refused_by_node(facts.pod, node) is None for node in state.nodes]
            liked = [preference(facts.pod, node) for node in state.nodes]
            found = _Static(np.array(fits, dtype=np.bool_), np.array(liked, dtype=np.float64))
            self._cache[facts.placement] = found
        return found


def _scores(facts: PodFacts, state: ClusterState) -> Values:
    total: Values = SPREAD_WEIGHT * spread(facts, state)
    used = shares(facts, state)
    total += LEAST_ALLOCATED_WEIGHT * least_allocated(*used)
    total += BALANCED_WEIGHT * balanced(*used)
    return total


def _refused_by_node(pod: Pod, node: Node) -> Refusal | None:
    for check in NODE_RULES:
        if (refusal := check(pod, node)) is not None:
            return refusal
    return None


def _refusals(facts: PodFacts, state: ClusterState, row: int) -> tuple[Refusal, ...]:
    refusal = _refused_by_node(facts.pod, state.nodes[row])
    if refusal is not None:
        return (refusal,)
    return tuple(found for rule in LOAD_RULES for found in rule.refusals(facts, state, row))


def explain(outcome: Unschedulable, *, max_named: int = 10) -> str:
    """One sentence for the Event and the pod's condition: `0/3 nodes are available: 2 Insufficient cpu (node-1: wants 2, 500m of 4
    free; node-2: ...), 1 node(s) had untolerated taint {a: b} (node-3).` At most `max_named` nodes are named per reason."""
    total = len(outcome.refusals)
    if not total:
        return "0/0 nodes are available: no node has registered; is a node agent running?"
    by_reason: dict[str, list[str]] = {}
    for name, refusals in sorted(outcome.refusals.items()):
        for refusal in refusals:
            place = f"{name}: {refusal.detail}" if refusal.detail else name
            by_reason.setdefault(refusal.reason, []).append(place)
    parts = [f"{len(places)} {reason} ({_named(places, max_named)})" for reason, places in sorted(by_reason.items())]
    return f"0/{total} nodes are available: {', '.join(parts)}."


def _named(places: list[str], limit: int) -> str:
    separator = "; " if any(":" in place for place in places) else ", "
    rest = f"{separator}and {len(places) - limit} more" if len(places) > limit else ""
    return separator.join(places[:limit]) + rest
