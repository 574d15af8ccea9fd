"""Is a node alive, what taints does it carry, and which of its pods must go. Pure.

Source: Kubernetes documentation, "Nodes" (heartbeats), "Taints and Tolerations" (taint based evictions).
"""

from collections.abc import Sequence
from enum import Enum

from controlplane.controllers.pods import format_time
from mesh.api.core import Node, Taint
from mesh.api.meta import Condition, condition_of
from mesh.api.pod import Pod, Toleration
from mesh.api.resources import Json

UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
_MANAGED = (UNREACHABLE, NOT_READY)
_EFFECTS = ("NoExecute", "NoSchedule")


class Health(Enum):
    """What a node's heartbeats and its own Ready condition say."""

    READY = "ready"
    NOT_READY = "not ready"
    """It reports, and says it is not ready."""
    UNREACHABLE = "unreachable"
    """It does not report."""


def health_of(node: Node, silent_s: float, grace_s: float) -> Health:
    """`silent_s`: seconds since a heartbeat was last seen to change, by the watcher's own clock."""
    if silent_s > grace_s:
        return Health.UNREACHABLE
    ready = condition_of(node.status.conditions, "Ready")
    if ready is None:
        return Health.NOT_READY
    # Unknown is our own mark: a node whose Lease moves again stays not ready until it says itself that it is.
    return Health.READY if ready.is_true else Health.NOT_READY


def wanted_taints(node: Node, health: Health, now: float) -> list[Json] | None:
    """spec.taints as they should be, foreign taints kept; None when they are right already."""
    key = {Health.READY: "", Health.NOT_READY: NOT_READY, Health.UNREACHABLE: UNREACHABLE}[health]
    present = {(taint.key, taint.effect) for taint in node.spec.taints if taint.key in _MANAGED}
    wanted = {(key, effect) for effect in _EFFECTS} if key else set()
    if present == wanted:
        return None
    kept = [t for t in node.spec.taints if t.key not in _MANAGED or (t.key, t.effect) in wanted]
    taints = [{k: v for k, v in taint.to_json().items() if v} for taint in kept]
    for name, effect in sorted(wanted - present):
        taint: Json = {"key": name, "effect": effect}
        if effect == "NoExecute":
            taint["timeAdded"] = format_time(now)
        taints.append(taint)
    return taints


def unknown_conditions(node: Node, now: float) -> list[Json] | None:
    """The conditions of a node that fell silent: everything it said about itself is unknown. None when that is written."""
    is_ready_known = condition_of(node.status.conditions, "Ready") is not None
    if is_ready_known and all(c.status == "Unknown" for c in node.status.conditions):
        return None
    result: list[Json] = []
    types = [c.type for c in node.status.conditions]
    for type_ in [*types, *([] if "Ready" in types else ["Ready"])]:
        before = condition_of(node.status.conditions, type_) or Condition(type=type_)
        changed = before.status != "Unknown" or not before.last_transition_time
        fields = {
            "type": type_,
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastHeartbeatTime": before.last_heartbeat_time,
            "lastTransitionTime": format_time(now) if changed else before.last_transition_time,
        }
        result.append({k: v for k, v in fields.items() if v})
    return result


def not_ready_conditions(pod: Pod, now: float) -> list[Json] | None:
    """A pod's conditions with Ready=False, so that it leaves the endpoints; None when it is not ready anyway."""
    if not pod.is_ready:
        return None
    result: list[Json] = []
    for condition in pod.status.conditions:
        fields = {k: v for k, v in condition.to_json().items() if v}
        if condition.type == "Ready":
            fields |= {"status": "False", "reason": "NodeNotReady", "lastTransitionTime": format_time(now)}
        result.append(fields)
    return result


def evict_after_s(pod: Pod, taints: Sequence[Taint], default_s: float) -> float | None:
    """How long the pod may stay under the node's NoExecute taints; None: for ever.

    A taint that nothing tolerates evicts at once, except the two a node gets for its health: those give `default_s`.
    """
    waits: list[float] = []
    for taint in taints:
        if taint.effect != "NoExecute":
            continue
        matching = [t for t in pod.spec.tolerations if _tolerates(t, taint)]
        if not matching:
            waits.append(default_s if taint.key in _MANAGED else 0.0)
            continue
        limited = [max(0.0, float(t.toleration_seconds)) for t in matching if t.toleration_seconds is not None]
        if limited:
            waits.append(min(limited))
    return min(waits) if waits else None


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if not toleration.key:
        return toleration.operator == "Exists"
    if toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or toleration.value == taint.value
