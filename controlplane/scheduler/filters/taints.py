"""Taints keep pods away that don't tolerate them. Source: Kubernetes, "Taints and Tolerations"."""

from controlplane.scheduler.filters.refusal import Refusal
from mesh.api.core import Node, Pod, Taint, Toleration


def check(pod: Pod, node: Node) -> Refusal | None:
    """The pod tolerates every NoSchedule and NoExecute taint of the node."""
    for taint in node.spec.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(pod, taint):
            return Refusal(f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}")
    return None


def tolerates(pod: Pod, taint: Taint) -> bool:
    """One of the pod's tolerations covers the taint."""
    return any(covers(toleration, taint) for toleration in pod.spec.tolerations)


def covers(toleration: Toleration, taint: Taint) -> bool:
    """Effect, key and value agree; "" as effect or key (with Exists) agrees with all."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value
