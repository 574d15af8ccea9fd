"""What to do next about a Deployment: one step of its rollout, its history, its status. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.controllers.caches import Stored
from controlplane.controllers.deployment_status import StatusPlan, plan_status
from controlplane.controllers.revisions import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    REVISION,
    StoredSet,
    created_at,
    find_new_set,
    new_set_object,
    next_revision,
    revision_of,
    set_annotations,
    surplus_sets,
)
from controlplane.controllers.rollout import Limits, SetSize, next_new_size, next_old_sizes, scaled_sizes
from mesh.api.apps import Deployment
from mesh.api.resources import Json


@dataclass(frozen=True, slots=True)
class CreateSet:
    """Make the ReplicaSet of the present template."""

    obj: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSet:
    """Bring a ReplicaSet to this size and these annotations (None: leave as they are)."""

    target: StoredSet
    replicas: int | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    min_ready_s: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteSet:
    """Remove an old, empty ReplicaSet beyond the history limit."""

    target: StoredSet


Step = CreateSet | ChangeSet | DeleteSet


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPlan:
    """Steps to take now, in order, then the status to write. What follows is decided when the caches show their effect."""

    steps: tuple[Step, ...]
    revision: int | None
    """The Deployment's own revision annotation, when it should change."""
    status: StatusPlan


def plan(
    deployment: Stored[Deployment], sets: Sequence[StoredSet], *, old_pods_running: bool, now: float
) -> DeploymentPlan:
    """Decide from the owned ReplicaSets (each with its own status). `old_pods_running` matters to Recreate only: pods of older
    templates still exist, terminating ones included. `now` is wall seconds."""
    view = deployment.view
    limits = Limits.of(view.spec)
    new = find_new_set(deployment.json["spec"]["template"], sets)
    old = [item for item in sets if new is None or item.view.metadata.uid != new.view.metadata.uid]
    status = plan_status(view, new, old, limits, now)
    revision = max(revision_of(new) if new is not None else 0, next_revision(old))
    if view.metadata.is_terminating:
        return DeploymentPlan(steps=(), revision=None, status=status)
    if view.spec.paused or _is_scaling(view, [*old, *([new] if new is not None else [])]):
        steps = _scale_steps(view, new, old, limits)
    elif new is None:
        steps = _create_steps(deployment, old, limits, revision, old_pods_running)
    else:
        steps = _rollout_steps(view, new, old, limits, revision, old_pods_running)
    if not steps and status.is_complete:
        steps = [DeleteSet(item) for item in surplus_sets(old, view.spec.revision_history_limit)]
    own = view.metadata.annotations.get(REVISION)
    # A Deployment without a set of its present template has no new revision yet (paused before its first rollout, say).
    has_revision = new is not None or any(isinstance(step, CreateSet) for step in steps)
    return DeploymentPlan(
        steps=tuple(steps),
        revision=revision if has_revision and not view.spec.paused and own != str(revision) else None,
        status=status,
    )


def _is_scaling(view: Deployment, sets: Sequence[StoredSet]) -> bool:
    """spec.replicas changed since an active set was last scaled."""
    wanted = str(view.spec.replicas)
    return any(
        item.view.spec.replicas > 0 and item.view.metadata.annotations.get(DESIRED_REPLICAS, wanted) != wanted
        for item in sets
    )


def _scale_steps(view: Deployment, new: StoredSet | None, old: Sequence[StoredSet], limits: Limits) -> list[Step]:
    sizes = scaled_sizes(view.spec.replicas, _size(new) if new is not None else None, [_size(s) for s in old], limits)
    annotations = _size_annotations(view, limits)
    steps: list[Step] = []
    for item in (*old, *([new] if new is not None else [])):
        replicas = sizes.get(item.view.metadata.name)
        is_active = (replicas if replicas is not None else item.view.spec.replicas) > 0
        changed = _changed(item, annotations) if is_active else {}
        if replicas is not None or changed:
            steps.append(ChangeSet(target=item, replicas=replicas, annotations=changed))
    return steps


def _create_steps(
    deployment: Stored[Deployment], old: Sequence[StoredSet], limits: Limits, revision: int, old_pods_running: bool
) -> list[Step]:
    view = deployment.view
    if view.spec.strategy.type == "Recreate":
        shrink: list[Step] = [ChangeSet(target=item, replicas=0) for item in old if item.view.spec.replicas > 0]
        if shrink or old_pods_running:
            return shrink
    nothing = SetSize(name="", replicas=0, available=0, created_at=0.0)
    replicas = next_new_size(view.spec.replicas, nothing, [_size(item) for item in old], limits)
    annotations = {**set_annotations(view, None, revision), **_size_annotations(view, limits)}
    return [CreateSet(new_set_object(deployment, replicas, annotations))]


def _rollout_steps(
    view: Deployment,
    new: StoredSet,
    old: Sequence[StoredSet],
    limits: Limits,
    revision: int,
    old_pods_running: bool,
) -> list[Step]:
    wanted = view.spec.replicas
    sizes = [_size(item) for item in old]
    steps: list[Step] = []
    if view.spec.strategy.type == "Recreate":
        steps += [ChangeSet(target=item, replicas=0) for item in old if item.view.spec.replicas > 0]
        replicas = new.view.spec.replicas if steps or old_pods_running else wanted
    else:
        replicas = next_new_size(wanted, _size(new), sizes, limits)
        if replicas == new.view.spec.replicas:
            shrink = next_old_sizes(wanted, _size(new), sizes, limits)
            by_name = {item.view.metadata.name: item for item in old}
            steps += [ChangeSet(target=by_name[name], replicas=size) for name, size in shrink.items()]
    annotations = {**set_annotations(view, new, revision), **_size_annotations(view, limits)}
    changed = _changed(new, annotations)
    new_size = replicas if replicas != new.view.spec.replicas else None
    min_ready = view.spec.min_ready_seconds if view.spec.min_ready_seconds != new.view.spec.min_ready_seconds else None
    if new_size is not None or changed or min_ready is not None:
        steps.insert(0, ChangeSet(target=new, replicas=new_size, annotations=changed, min_ready_s=min_ready))
    return steps


def _size_annotations(view: Deployment, limits: Limits) -> dict[str, str]:
    return {DESIRED_REPLICAS: str(view.spec.replicas), MAX_REPLICAS: str(view.spec.replicas + limits.surge)}


def _changed(item: StoredSet, annotations: Mapping[str, str]) -> dict[str, str]:
    present = item.view.metadata.annotations
    return {k: v for k, v in annotations.items() if present.get(k) != v}


def _size(item: StoredSet) -> SetSize:
    text = item.view.metadata.annotations.get(MAX_REPLICAS, "0")
    return SetSize(
        name=item.view.metadata.name,
        replicas=item.view.spec.replicas,
        available=item.view.status.available_replicas,
        created_at=created_at(item),
        max_replicas=int(text) if text.isdecimal() else 0,
    )
