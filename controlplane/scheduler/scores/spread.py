"""Prefer nodes with few pods of the same owner and the same services."""

import numpy as np

from controlplane.scheduler.pods import PodFacts
from controlplane.scheduler.state import ClusterState, Values


def spread(facts: PodFacts, state: ClusterState) -> Values:
    """1 on the nodes with the fewest pods of the pod's groups, 0 on those with the most; the mean over the groups."""
    groups = state.groups_of(facts)
    total = np.zeros(len(state.nodes))
    for group in groups:
        counts = state.group_counts(group)
        most = counts.max(initial=0.0)
        total += (most - counts) / most if most > 0 else 1.0
    return total / len(groups) if groups else np.ones(len(state.nodes))
