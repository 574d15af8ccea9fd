"""Required pod affinity and anti-affinity: near to, or away from, pods with given labels.

A term speaks of topology domains: nodes with the same value of the label `topologyKey`. Source: Kubernetes, "Inter-pod affinity and
anti-affinity". Anti-affinity of pods that are there already holds against the new pod too.
"""

from collections.abc import Mapping

import numpy as np

from controlplane.scheduler.filters.refusal import Refusal
from controlplane.scheduler.pods import PodFacts
from controlplane.scheduler.state import ClusterState, Mask
from mesh.api.core import Pod
from mesh.api.pod import PodAffinity, PodAffinityTerm
from mesh.api.selectors import label_selector_of

_AFFINITY = Refusal("node(s) didn't match pod affinity rules")
_ANTI_AFFINITY = Refusal("node(s) didn't match pod anti-affinity rules")
_EXISTING = Refusal("node(s) didn't satisfy existing pods anti-affinity rules")


def mask(facts: PodFacts, state: ClusterState) -> Mask:
    """Nodes where all terms hold. Where no pod has such terms this costs nothing."""
    rules = _Rules(facts, state) if facts.minds_pods or state.guarded else None
    if rules is None or rules.is_empty:
        return np.ones(len(state.nodes), dtype=np.bool_)
    return np.array([rules.check(node.metadata.labels) is None for node in state.nodes], dtype=np.bool_)


def refusals(facts: PodFacts, state: ClusterState, row: int) -> tuple[Refusal, ...]:
    """Why one node does not fit."""
    refusal = _Rules(facts, state).check(state.nodes[row].metadata.labels)
    return () if refusal is None else (refusal,)


class _Rules:
    """The terms of one pod and of the pods that are there, as topology domains."""

    def __init__(self, facts: PodFacts, state: ClusterState) -> None:
        self._labels = {node.metadata.name: node.metadata.labels for node in state.nodes}
        affinity = facts.pod.spec.affinity
        near, away = _terms(affinity.pod_affinity), _terms(affinity.pod_anti_affinity)
        self._near = [self._wanted(term, facts.pod, state) for term in near]
        self._away = {domain for term in away for domain in self._domains(term, facts.pod, state)}
        self._kept_away = self._domains_of_existing(facts.pod, state)

    @property
    def is_empty(self) -> bool:
        return not self._near and not self._away and not self._kept_away

    def check(self, labels: Mapping[str, str]) -> Refusal | None:
        """Why a node with these labels does not fit, or None."""
        pairs = set(labels.items())
        if self._kept_away & pairs:
            return _EXISTING
        if self._away & pairs:
            return _ANTI_AFFINITY
        for key, domains in self._near:
            if key not in labels or (domains is not None and not domains & pairs):
                return _AFFINITY
        return None

    def _wanted(self, term: PodAffinityTerm, pod: Pod, state: ClusterState) -> tuple[str, set[tuple[str, str]] | None]:
        """(topology key, domains with a matching pod). None: none is there yet, but the pod matches its own term, so that the
        first of a group can start."""
        domains = self._domains(term, pod, state)
        if not domains and _selects(term, pod, pod):
            return term.topology_key, None
        return term.topology_key, domains

    def _domains(self, term: PodAffinityTerm, pod: Pod, state: ClusterState) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for placed in state.placed.values():
            value = self._labels.get(placed.node_name, {}).get(term.topology_key)
            if value is not None and _selects(term, pod, placed.facts.pod):
                found.add((term.topology_key, value))
        return found

    def _domains_of_existing(self, pod: Pod, state: ClusterState) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for placed in state.guarded.values():
            other = placed.facts.pod
            for term in _terms(other.spec.affinity.pod_anti_affinity):
                value = self._labels.get(placed.node_name, {}).get(term.topology_key)
                if value is not None and _selects(term, other, pod):
                    found.add((term.topology_key, value))
        return found


def _terms(affinity: PodAffinity | None) -> tuple[PodAffinityTerm, ...]:
    return affinity.required if affinity is not None else ()


def _selects(term: PodAffinityTerm, holder: Pod, other: Pod) -> bool:
    """`other` is a pod that `holder`'s term speaks of. Without namespaces the term means the holder's own."""
    namespaces = term.namespaces or (holder.metadata.namespace,)
    return other.metadata.namespace in namespaces and label_selector_of(term.label_selector).matches(
        other.metadata.labels
    )
