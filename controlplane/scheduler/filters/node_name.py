"""The pod asks for one node by name."""

from controlplane.scheduler.filters.refusal import Refusal
from mesh.api.core import Node, Pod


def check(pod: Pod, node: Node) -> Refusal | None:
    """spec.nodeName is this node, or empty."""
    if not pod.spec.node_name or pod.spec.node_name == node.metadata.name:
        return None
    return Refusal("node(s) didn't match the requested node name")
