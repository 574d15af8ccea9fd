"""The node is cordoned."""

from controlplane.scheduler.filters.refusal import Refusal
from controlplane.scheduler.filters.taints import tolerates
from mesh.api.core import Node, Pod, Taint

_TAINT = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


def check(pod: Pod, node: Node) -> Refusal | None:
    """spec.unschedulable is false, or the pod tolerates the taint that stands for it."""
    if not node.spec.unschedulable or tolerates(pod, _TAINT):
        return None
    return Refusal("node(s) were unschedulable")
