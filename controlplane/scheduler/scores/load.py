"""Prefer nodes with much room, used evenly. Source: kube-scheduler's LeastAllocated and BalancedAllocation."""

import numpy as np

from controlplane.scheduler.pods import PodFacts
from controlplane.scheduler.state import ClusterState, Values


def shares(facts: PodFacts, state: ClusterState) -> tuple[Values, Values]:
    """Used share of cpu and of memory per node, with the pod on it, in [0, 1]. A node without a figure counts as full."""
    cpu, memory = facts.scoring
    return (
        np.minimum((state.scoring[:, 0] + cpu) * state.scoring_inverse[:, 0], 1.0),
        np.minimum((state.scoring[:, 1] + memory) * state.scoring_inverse[:, 1], 1.0),
    )


def least_allocated(cpu: Values, memory: Values) -> Values:
    """The mean free share, from `shares`."""
    return 1.0 - (cpu + memory) * 0.5


def balanced(cpu: Values, memory: Values) -> Values:
    """1 when cpu and memory would be used to the same share, from `shares`."""
    return 1.0 - np.abs(cpu - memory)
