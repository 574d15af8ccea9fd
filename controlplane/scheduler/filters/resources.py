"""The node has room for what the pod requests."""

import numpy as np

from controlplane.scheduler.filters.refusal import Refusal
from controlplane.scheduler.pods import PodFacts
from controlplane.scheduler.requests import CPU, MEMORY, PODS
from controlplane.scheduler.state import ClusterState, Mask

_UNITS = ((1024.0**3, "Gi"), (1024.0**2, "Mi"), (1024.0, "Ki"))


def mask(facts: PodFacts, state: ClusterState) -> Mask:
    """Nodes where every requested resource fits beside what is there."""
    fits = np.ones(len(state.nodes), dtype=np.bool_)
    for name, amount in facts.requests.items():
        column = state.column(name)
        if column is None:
            return np.zeros(len(state.nodes), dtype=np.bool_)
        fits &= state.requested[:, column] + amount <= state.allocatable[:, column]
    return fits


def refusals(facts: PodFacts, state: ClusterState, row: int) -> tuple[Refusal, ...]:
    """Every resource that is short on one node, with figures."""
    found: list[Refusal] = []
    for name, amount in sorted(facts.requests.items()):
        column = state.column(name)
        total = 0.0 if column is None else float(state.allocatable[row, column])
        free = total if column is None else total - float(state.requested[row, column])
        if amount <= free:
            continue
        if name == PODS:
            found.append(Refusal("Too many pods", f"{total:g} pods at most"))
        else:
            shown = f"wants {_shown(name, amount)}, {_shown(name, max(free, 0.0))} of {_shown(name, total)} free"
            found.append(Refusal(f"Insufficient {name}", shown))
    return tuple(found)


def _shown(name: str, amount: float) -> str:
    if name == CPU:
        return f"{amount:g}m" if amount % 1000 else f"{amount / 1000:g}"
    if name == MEMORY:
        for size, suffix in _UNITS:
            if amount >= size:
                return f"{round(amount / size, 1):g}{suffix}"
    return f"{amount:g}"
