"""What runs where: nodes and their load as arrays, pods by node, and the groups pods are spread by. No I/O.

Kept up to date by the scheduler from its caches; read by filters and scores. Load is numpy, so that a decision looks at every node
(facts/control-plane.md: 15 us for 5,000 nodes).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from controlplane.scheduler.pods import HostPort, PodFacts
from controlplane.scheduler.requests import CPU, MEMORY, PODS, amounts_of
from mesh.api.core import Node, Service
from mesh.api.selectors import Selector, label_map_selector

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
_ALMOST_NOTHING = 1e-12
_FIRST_COLUMNS = (CPU, MEMORY, PODS)


@dataclass(slots=True)
class Placed:
    """A pod that has a node, bound or on its way there."""

    facts: PodFacts
    node_name: str
    groups: tuple[str, ...]


@dataclass(slots=True)
class ClusterState:
    """Nodes, in a fixed order between changes of the node set, and the pods on them."""

    nodes: list[Node] = field(default_factory=list)
    generation: int = 0
    """Grows when anything that decides where pods MAY run changes: a key for caches of masks."""
    _rows: dict[str, int] = field(default_factory=dict)
    _columns: dict[str, int] = field(default_factory=lambda: {name: i for i, name in enumerate(_FIRST_COLUMNS)})
    allocatable: Values = field(default_factory=lambda: np.zeros((0, len(_FIRST_COLUMNS))))
    requested: Values = field(default_factory=lambda: np.zeros((0, len(_FIRST_COLUMNS))))
    scoring: Values = field(default_factory=lambda: np.zeros((0, 2)))
    """Requests for comparing nodes: millicores, bytes."""
    scoring_inverse: Values = field(default_factory=lambda: np.zeros((0, 2)))
    """1 / allocatable cpu and memory, so that scores multiply; very large where there is none."""
    placed: dict[str, Placed] = field(default_factory=dict)
    """Pod uid -> where it is."""
    guarded: dict[str, Placed] = field(default_factory=dict)
    """Those of `placed` with required anti-affinity: other pods must keep away from them."""
    _by_node: dict[str, dict[str, Placed]] = field(default_factory=dict)
    _group_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Group -> node name -> pods."""
    _selectors: dict[str, dict[str, Selector]] = field(default_factory=dict)
    """Namespace -> service name -> selector."""

    # -- nodes

    def put_node(self, node: Node) -> bool:
        """Add or replace a node. True when pods that fitted nowhere may fit now."""
        name = node.metadata.name
        row = self._rows.get(name)
        amounts = amounts_of(node.status.allocatable or node.status.capacity)
        self._learn_columns(amounts)
        if row is None:
            self._rows[name] = len(self.nodes)
            self.nodes.append(node)
            self.allocatable = np.vstack((self.allocatable, self._row(amounts)))
            self.requested = np.vstack((self.requested, self._load_of(name)))
            self.scoring = np.vstack((self.scoring, self._scoring_of(name)))
            self._refresh_inverse()
            self.generation += 1
            return True
        old, self.nodes[row] = self.nodes[row], node
        fresh = self._row(amounts)
        has_grown = bool((fresh > self.allocatable[row]).any())
        self.allocatable[row] = fresh
        self._refresh_inverse()
        if _constraints(old) != _constraints(node):
            self.generation += 1
            return True
        return has_grown

    def remove_node(self, name: str) -> None:
        """Forget a node; its pods stay known until they are removed themselves."""
        row = self._rows.pop(name, None)
        if row is None:
            return
        del self.nodes[row]
        self.allocatable = np.delete(self.allocatable, row, axis=0)
        self.requested = np.delete(self.requested, row, axis=0)
        self.scoring = np.delete(self.scoring, row, axis=0)
        self._refresh_inverse()
        self._rows = {node.metadata.name: i for i, node in enumerate(self.nodes)}
        self.generation += 1

    def column(self, resource: str) -> int | None:
        """The array column of a resource, or None when no node and no pod has it."""
        return self._columns.get(resource)

    def _refresh_inverse(self) -> None:
        self.scoring_inverse = 1.0 / np.maximum(self.allocatable[:, :2], _ALMOST_NOTHING)

    def _learn_columns(self, amounts: Iterable[str]) -> None:
        for name in amounts:
            if name not in self._columns:
                self._columns[name] = len(self._columns)
                column = np.zeros((len(self.nodes), 1))
                self.allocatable = np.hstack((self.allocatable, column))
                self.requested = np.hstack((self.requested, column))

    def _row(self, amounts: Mapping[str, float]) -> Values:
        row = np.zeros(len(self._columns))
        for name, amount in amounts.items():
            row[self._columns[name]] = amount
        return row

    def _load_of(self, node_name: str) -> Values:
        row = np.zeros(len(self._columns))
        for placed in self._by_node.get(node_name, {}).values():
            row += self._row(placed.facts.requests)
        return row

    def _scoring_of(self, node_name: str) -> Values:
        row = np.zeros(2)
        for placed in self._by_node.get(node_name, {}).values():
            row += placed.facts.scoring
        return row

    # -- pods

    def put_pod(self, facts: PodFacts, node_name: str) -> None:
        """The pod is on this node, or will be. Replaces what was known of it."""
        self.remove_pod(facts.uid)
        self._learn_columns(facts.requests)
        placed = Placed(facts, node_name, self.groups_of(facts))
        self.placed[facts.uid] = placed
        if facts.keeps_others_away:
            self.guarded[facts.uid] = placed
        self._by_node.setdefault(node_name, {})[facts.uid] = placed
        self._count(placed, 1)
        row = self._rows.get(node_name)
        if row is not None:
            self.requested[row] += self._row(facts.requests)
            self.scoring[row] += facts.scoring

    def remove_pod(self, uid: str) -> bool:
        """The pod is gone or finished: its node's room is free again. True when it was known."""
        placed = self.placed.pop(uid, None)
        if placed is None:
            return False
        self.guarded.pop(uid, None)
        on_node = self._by_node[placed.node_name]
        del on_node[uid]
        if not on_node:
            del self._by_node[placed.node_name]
        self._count(placed, -1)
        row = self._rows.get(placed.node_name)
        if row is not None:
            self.requested[row] = self._load_of(placed.node_name)  # Summed anew: floats would drift.
            self.scoring[row] = self._scoring_of(placed.node_name)
        return True

    def pods_on(self, node_name: str) -> Iterable[Placed]:
        """The pods on one node."""
        return self._by_node.get(node_name, {}).values()

    def used_ports(self, node_name: str) -> Iterable[HostPort]:
        """The host ports taken on one node."""
        return (port for placed in self.pods_on(node_name) for port in placed.facts.host_ports)

    # -- groups

    def put_service(self, service: Service) -> None:
        """Pods of a service are spread over nodes."""
        namespace, name = service.metadata.namespace, service.metadata.name
        self._selectors.setdefault(namespace, {})[name] = label_map_selector(service.spec.selector)
        self._regroup(namespace)

    def remove_service(self, service: Service) -> None:
        """Forget a service."""
        namespace = service.metadata.namespace
        if self._selectors.get(namespace, {}).pop(service.metadata.name, None) is not None:
            self._regroup(namespace)

    def groups_of(self, facts: PodFacts) -> tuple[str, ...]:
        """What the pod is spread by: its owner, and the services that select it."""
        metadata = facts.pod.metadata
        selectors = self._selectors.get(metadata.namespace, {})
        services = (f"service/{metadata.namespace}/{n}" for n, s in selectors.items() if s.matches(metadata.labels))
        return (*((f"owner/{facts.owner}",) if facts.owner else ()), *services)

    def group_counts(self, group: str) -> Values:
        """Pods of a group per node, in the order of `nodes`."""
        counts = np.zeros(len(self.nodes))
        for name, count in self._group_counts.get(group, {}).items():
            row = self._rows.get(name)
            if row is not None:
                counts[row] = count
        return counts

    def _count(self, placed: Placed, change: int) -> None:
        for group in placed.groups:
            counts = self._group_counts.setdefault(group, {})
            counts[placed.node_name] = counts.get(placed.node_name, 0) + change
            if not counts[placed.node_name]:
                del counts[placed.node_name]
            if not counts:
                del self._group_counts[group]

    def _regroup(self, namespace: str) -> None:
        for placed in self.placed.values():
            if placed.facts.pod.metadata.namespace == namespace:
                self._count(placed, -1)
                placed.groups = self.groups_of(placed.facts)
                self._count(placed, 1)


def _constraints(node: Node) -> tuple[Any, ...]:
    return node.metadata.labels, node.spec.taints, node.spec.unschedulable, node.is_ready
