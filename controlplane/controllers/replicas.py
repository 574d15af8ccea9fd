"""How many pods a ReplicaSet or ReplicationController should make or delete, and its status. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.controllers.pods import available_in_s, deletion_order, is_active, ready_since
from mesh.api.meta import Condition
from mesh.api.pod import Pod

BURST = 500
"""Pods made or deleted in one go. Source: kube-controller-manager's BurstReplicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaState:
    """What is known about one set of replicas. Times are wall seconds."""

    replicas: int
    """Wanted, >= 0."""
    min_ready_s: int
    template_labels: Mapping[str, str]
    pods: Sequence[Pod]
    """Owned pods the cache shows, without those whose deletion was asked for a moment ago."""
    pending_creations: int
    """Pods made that the cache does not show yet."""
    siblings: Sequence[Pod] = ()
    """Active pods of the other ReplicaSets of the same Deployment."""
    is_terminating: bool = False
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPlan:
    """What to do about it."""

    create: int
    delete: tuple[Pod, ...]
    status: Mapping[str, int]
    """replicas, fullyLabeledReplicas, readyReplicas, availableReplicas."""
    again_after_s: float | None
    """When a ready pod becomes available by min_ready_s."""


def plan(state: ReplicaState) -> ReplicaPlan:
    """Create the missing pods, or delete the surplus in `deletion_order`; never both. A terminating set does neither."""
    active = [pod for pod in state.pods if is_active(pod)]
    difference = state.replicas - len(active) - state.pending_creations
    create = 0
    delete: tuple[Pod, ...] = ()
    if not state.is_terminating and difference > 0:
        create = min(difference, BURST)
    elif not state.is_terminating and difference < 0:
        # A surplus is decided among pods that are seen: ones still unseen count, but can't be chosen.
        surplus = min(-difference, len(active), BURST)
        delete = tuple(deletion_order(active, state.siblings)[:surplus])
    waits = [available_in_s(pod, state.min_ready_s, state.now) for pod in active]
    later = [wait for wait in waits if wait]
    return ReplicaPlan(
        create=create,
        delete=delete,
        status={
            "replicas": len(active),
            "fullyLabeledReplicas": sum(_has_labels(pod, state.template_labels) for pod in active),
            "readyReplicas": sum(ready_since(pod) is not None for pod in active),
            "availableReplicas": sum(wait == 0.0 for wait in waits),
        },
        again_after_s=min(later) if later else None,
    )


def slow_start(count: int, initial: int = 1) -> list[int]:
    """Batch sizes that double: 1, 2, 4, ... A fault (quota, admission) then costs one request, not `count`."""
    batches = []
    size = initial
    while count > 0:
        batches.append(min(size, count))
        count -= batches[-1]
        size *= 2
    return batches


def failure_condition(old: Sequence[Condition], message: str, now_text: str) -> list[dict[str, str]]:
    """The conditions of a set that could not create pods (`message`), or that can again ("")."""
    kept = [
        {k: v for k, v in c.to_json().items() if v and k != "observedGeneration"}
        for c in old
        if c.type != "ReplicaFailure"
    ]
    if not message:
        return kept
    before = next((c for c in old if c.type == "ReplicaFailure"), None)
    since = before.last_transition_time if before is not None and before.is_true else now_text
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": message,
        "lastTransitionTime": since,
    }
    return [*kept, failure]


def _has_labels(pod: Pod, labels: Mapping[str, str]) -> bool:
    return all(pod.metadata.labels.get(name) == value for name, value in labels.items())
