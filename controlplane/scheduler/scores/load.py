"""Prefer nodes with much room, used evenly. Source: kube-scheduler's LeastAllocated and BalancedAllocation."""

import numpy as np

from controlplane.scheduler.pods import PodFacts
from controlplane.scheduler.state import ClusterState, Values


def _fractions(facts: PodFacts, state: ClusterState) -> Values:
    """Used share of cpu and memory per node, with the pod on it, in [0, 1]. A node without a figure counts as full."""
    total = state.allocatable[:, :2]  # The first columns are cpu and memory.
    used = state.scoring + np.array(facts.scoring)
    shares: Values = np.minimum(np.divide(used, total, out=np.ones_like(used), where=total > 0), 1.0)
    return shares


def least_allocated(facts: PodFacts, state: ClusterState) -> Values:
    """The mean free share of cpu and memory."""
    mean: Values = 1.0 - _fractions(facts, state).mean(axis=1)
    return mean


def balanced(facts: PodFacts, state: ClusterState) -> Values:
    """1 when cpu and memory would be used to the same share."""
    shares = _fractions(facts, state)
    even: Values = 1.0 - np.abs(shares[:, 0] - shares[:, 1])
    return even
