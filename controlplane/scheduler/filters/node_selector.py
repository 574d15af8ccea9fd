"""The pod asks for labels of the node."""

from controlplane.scheduler.filters.refusal import Refusal
from mesh.api.core import Node, Pod


def check(pod: Pod, node: Node) -> Refusal | None:
    """The node has every label of spec.nodeSelector."""
    labels = node.metadata.labels
    for key, value in pod.spec.node_selector.items():
        if labels.get(key) != value:
            return Refusal(
                "node(s) didn't match Pod's node affinity/selector", _difference(key, value, labels.get(key))
            )
    return None


def _difference(key: str, wanted: str, found: str | None) -> str:
    return f"no label {key}, wants {wanted}" if found is None else f"{key}={found}, wants {wanted}"
