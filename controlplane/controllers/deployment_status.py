"""A Deployment's status and conditions, as `kubectl rollout status` and `kubectl wait` read them. Pure.

Source: Kubernetes documentation, "Deployment status" and "Progress deadline seconds".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.controllers.pods import format_time, parse_time
from controlplane.controllers.revisions import StoredSet
from controlplane.controllers.rollout import Limits
from mesh.api.apps import Deployment, DeploymentStatus
from mesh.api.meta import Condition, condition_of
from mesh.api.resources import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusPlan:
    """The status to write, and when to look at the progress deadline again."""

    status: Json
    is_complete: bool
    """Every wanted pod is of the newest template and available, and no other is left."""
    again_after_s: float | None = None


def plan_status(
    deployment: Deployment, new: StoredSet | None, old: Sequence[StoredSet], limits: Limits, now: float
) -> StatusPlan:
    """Count, then judge. `now` is wall seconds."""
    sets = [item.view for item in (*old, *([new] if new is not None else []))]
    available = sum(item.status.available_replicas for item in sets)
    counts = {
        "replicas": sum(item.status.replicas for item in sets),
        "updatedReplicas": new.view.status.replicas if new is not None else 0,
        "readyReplicas": sum(item.status.ready_replicas for item in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(item.spec.replicas for item in sets) - available),
    }
    is_complete = new is not None and _is_complete(deployment, counts)
    progressing, again_after_s = _progressing(deployment, new, counts, is_complete, now)
    conditions = _merge(
        deployment.status.conditions,
        [_available(deployment, available, limits), progressing, _replica_failure([s.status.conditions for s in sets])],
        now,
    )
    status: Json = {**counts, "observedGeneration": deployment.metadata.generation, "conditions": conditions}
    if deployment.status.collision_count:
        status["collisionCount"] = deployment.status.collision_count
    return StatusPlan(status=status, is_complete=is_complete, again_after_s=again_after_s)


def same_status(deployment: Deployment, status: Json) -> bool:
    """Nothing in `status` is news. Times alone are no news."""
    return _fingerprint(DeploymentStatus.of(status)) == _fingerprint(deployment.status)


def _fingerprint(status: DeploymentStatus) -> tuple[object, ...]:
    counts = {k: v for k, v in status.to_json().items() if k != "conditions"}
    conditions = sorted((c.type, c.status, c.reason, c.message, c.last_update_time) for c in status.conditions)
    return tuple(sorted(counts.items())), tuple(conditions)


def _is_complete(deployment: Deployment, counts: Mapping[str, int]) -> bool:
    wanted = deployment.spec.replicas
    return counts["updatedReplicas"] == counts["replicas"] == counts["availableReplicas"] == wanted


def _available(deployment: Deployment, available: int, limits: Limits) -> Condition:
    if available >= deployment.spec.replicas - limits.unavailable:
        return Condition(
            type="Available",
            status="True",
            reason="MinimumReplicasAvailable",
            message="Deployment has minimum availability.",
        )
    return Condition(
        type="Available",
        status="False",
        reason="MinimumReplicasUnavailable",
        message="Deployment does not have minimum availability.",
    )


def _progressing(
    deployment: Deployment, new: StoredSet | None, counts: Mapping[str, int], is_complete: bool, now: float
) -> tuple[Condition, float | None]:
    """The Progressing condition, and seconds until its deadline."""
    before = condition_of(deployment.status.conditions, "Progressing")
    if deployment.spec.paused and not is_complete:
        return _progress("Unknown", "DeploymentPaused", "Deployment is paused", before, None), None
    subject = (
        f'ReplicaSet "{new.view.metadata.name}"' if new is not None else f'Deployment "{deployment.metadata.name}"'
    )
    if is_complete:
        return _progress(
            "True", "NewReplicaSetAvailable", f"{subject} has successfully progressed.", before, None
        ), None
    if before is not None and _was_complete(before, subject, counts):
        return before, None  # the rollout is over; a pod that dies or a new size does not start its clock again
    is_restarted = before is None or before.reason in ("NewReplicaSetAvailable", "DeploymentPaused")
    if before is None or is_restarted or _has_moved(deployment, counts):
        condition = _progress("True", "ReplicaSetUpdated", f"{subject} is progressing.", before, now)
        return condition, float(deployment.spec.progress_deadline_seconds)
    left_s = parse_time(before.last_update_time) + deployment.spec.progress_deadline_seconds - now
    if left_s > 0:
        return before, left_s
    return _progress("False", "ProgressDeadlineExceeded", f"{subject} has timed out progressing.", before, None), None


def _was_complete(before: Condition, subject: str, counts: Mapping[str, int]) -> bool:
    is_current = before.reason == "NewReplicaSetAvailable" and before.message.startswith(subject)
    return is_current and counts["replicas"] == counts["updatedReplicas"]


def _has_moved(deployment: Deployment, counts: Mapping[str, int]) -> bool:
    """Something got nearer to the goal since the last status."""
    before = deployment.status
    return (
        counts["updatedReplicas"] > before.updated_replicas
        or counts["replicas"] - counts["updatedReplicas"] < before.replicas - before.updated_replicas
        or counts["readyReplicas"] > before.ready_replicas
        or counts["availableReplicas"] > before.available_replicas
    )


def _progress(status: str, reason: str, message: str, before: Condition | None, now: float | None) -> Condition:
    """`now` stamps an update; without it, the time of an equal earlier condition is kept."""
    kept = before.last_update_time if before is not None and before.reason == reason else ""
    stamp = format_time(now) if now is not None else kept
    return Condition(type="Progressing", status=status, reason=reason, message=message, last_update_time=stamp)


def _replica_failure(conditions: Sequence[Sequence[Condition]]) -> Condition | None:
    """A set that can't create pods makes its Deployment say so."""
    for group in conditions:
        for condition in group:
            if condition.type == "ReplicaFailure" and condition.is_true:
                return condition
    return None


def _merge(before: Sequence[Condition], after: Sequence[Condition | None], now: float) -> list[Json]:
    """As JSON, with transition and update times kept where nothing changed."""
    result = []
    for condition in after:
        if condition is None:
            continue
        old = condition_of(tuple(before), condition.type)
        is_same = old is not None and (old.status, old.reason, old.message) == (
            condition.status,
            condition.reason,
            condition.message,
        )
        updated = condition.last_update_time or (old.last_update_time if old is not None and is_same else "")
        moved = old.last_transition_time if old is not None and old.status == condition.status else ""
        result.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "lastUpdateTime": updated or format_time(now),
                "lastTransitionTime": moved or format_time(now),
            }
        )
    return result
