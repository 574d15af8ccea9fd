"""No other pod on the node has the host ports the pod wants."""

import numpy as np

from controlplane.scheduler.filters.refusal import Refusal
from controlplane.scheduler.pods import PodFacts, ports_conflict
from controlplane.scheduler.state import ClusterState, Mask


def mask(facts: PodFacts, state: ClusterState) -> Mask:
    """Nodes where every wanted host port is free. Pods without host ports cost nothing."""
    if not facts.host_ports:
        return np.ones(len(state.nodes), dtype=np.bool_)
    free = [ports_conflict(facts.host_ports, state.used_ports(node.metadata.name)) is None for node in state.nodes]
    return np.array(free, dtype=np.bool_)


def refusals(facts: PodFacts, state: ClusterState, row: int) -> tuple[Refusal, ...]:
    """The port that is taken on one node."""
    taken = ports_conflict(facts.host_ports, state.used_ports(state.nodes[row].metadata.name))
    if taken is None:
        return ()
    return (Refusal("node(s) didn't have free ports for the requested pod ports", f"{taken[0]} {taken[2]} is taken"),)
