"""The node is up.

DEVIATION: kube-scheduler relies on the not-ready taint alone; a node that has just registered has none yet.
"""

from controlplane.scheduler.filters.refusal import Refusal
from controlplane.scheduler.filters.taints import tolerates
from mesh.api.core import Node, Pod, Taint

_TAINT = Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule")


def check(pod: Pod, node: Node) -> Refusal | None:
    """The Ready condition is True, or the pod tolerates node.kubernetes.io/not-ready."""
    if node.is_ready or tolerates(pod, _TAINT):
        return None
    return Refusal("node(s) were not ready")
