"""Preferred node affinity, and PreferNoSchedule taints."""

from controlplane.scheduler.filters.node_affinity import term_matches
from controlplane.scheduler.filters.taints import tolerates
from mesh.api.core import Node, Pod


def preference(pod: Pod, node: Node) -> float:
    """1 when every preferred term holds and no PreferNoSchedule taint is untolerated; less in proportion to the weights."""
    affinity = pod.spec.affinity.node_affinity
    terms = affinity.preferred if affinity is not None else ()
    total = sum(term.weight for term in terms)
    held = sum(term.weight for term in terms if term_matches(term.preference, node))
    wanted = held / total if total else 1.0
    disliked = sum(1 for t in node.spec.taints if t.effect == "PreferNoSchedule" and not tolerates(pod, t))
    return wanted / (1.0 + disliked)
