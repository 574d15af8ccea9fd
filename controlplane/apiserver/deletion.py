"""What a DELETE does to an object: remove it, mark it, or nothing more than has been done. Pure.

Source: Kubernetes API concepts, "Resource deletion"; "Garbage collection"; "Pod lifecycle", termination.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from controlplane.apiserver import errors
from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.objects import copied
from controlplane.apiserver.request import parse_count, parse_dry_run
from controlplane.apiserver.strategy import timestamp
from mesh.api.resources import NAMESPACES, PODS, Json

DEFAULT_POD_GRACE_S = 30
MAX_GRACE_S = 2**31 - 1
_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"


class Propagation(Enum):
    """What becomes of dependents; DEFAULT leaves the object's finalizers as they are, which means Background."""

    DEFAULT = ""
    ORPHAN = "Orphan"
    BACKGROUND = "Background"
    FOREGROUND = "Foreground"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """The body and query of a DELETE."""

    grace_period_s: int | None = None
    propagation: Propagation = Propagation.DEFAULT
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any], query: Mapping[str, str]) -> "DeleteOptions":
        """The query wins over the body. Raises ApiStatusError (400)."""
        preconditions = body.get("preconditions") or {}
        dry_run = query.get("dryRun") or "".join(body.get("dryRun") or ())
        return cls(
            grace_period_s=_grace(body, query),
            propagation=_propagation(body, query),
            uid=str(preconditions.get("uid") or ""),
            resource_version=str(preconditions.get("resourceVersion") or ""),
            dry_run=parse_dry_run(dry_run),
        )


def _grace(body: Mapping[str, Any], query: Mapping[str, str]) -> int | None:
    if text := query.get("gracePeriodSeconds"):
        return parse_count("gracePeriodSeconds", text, maximum=MAX_GRACE_S)
    grace = body.get("gracePeriodSeconds")
    if grace is None:
        return None
    if not isinstance(grace, int) or isinstance(grace, bool) or not 0 <= grace <= MAX_GRACE_S:
        raise errors.bad_request(f"gracePeriodSeconds: {grace!r} is not a number of seconds >= 0")
    return grace


def _propagation(body: Mapping[str, Any], query: Mapping[str, str]) -> Propagation:
    policy = query.get("propagationPolicy") or body.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents")
    if policy and orphan is not None:
        raise errors.bad_request("orphanDependents and propagationPolicy cannot both be set")
    if orphan is not None:
        return Propagation.ORPHAN if orphan else Propagation.BACKGROUND
    try:
        return Propagation(policy)
    except ValueError as exc:
        raise errors.bad_request(
            f"propagationPolicy: {policy!r} is not supported; use Orphan, Background or Foreground"
        ) from exc


@dataclass(frozen=True, slots=True)
class Remove:
    """Take the object out of the store."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Store this instead: the object on its way out."""

    obj: Json


@dataclass(frozen=True, slots=True)
class Nothing:
    """It is on its way out already."""


Plan = Remove | Mark | Nothing


def check_preconditions(kind: Kind, obj: Json, options: DeleteOptions) -> None:
    """Raises ApiStatusError (409) when the object is not the one meant."""
    metadata = obj["metadata"]
    for field, want, got in (
        ("UID", options.uid, metadata.get("uid")),
        ("ResourceVersion", options.resource_version, metadata.get("resourceVersion")),
    ):
        if want and want != got:
            why = f"the {field} in the precondition ({want}) does not match the {field} in record ({got})"
            raise errors.conflict(kind.resource, metadata["name"], why)


def plan_deletion(kind: Kind, old: Json, options: DeleteOptions, *, now_s: float) -> Plan:
    """Decide on `old` (left untouched)."""
    grace_s = _grace_of(kind, old, options)
    finalizers = _finalizers(old, options.propagation)
    if not finalizers and grace_s == 0 and not has_namespace_finalizers(kind, old):
        return Remove()
    new = copied(old)
    metadata = new["metadata"]
    _set_finalizers(metadata, finalizers)
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = timestamp(now_s + grace_s)
        metadata["deletionGracePeriodSeconds"] = grace_s
        if "generation" in metadata:
            metadata["generation"] += 1
        if kind.resource.key == NAMESPACES.key:
            new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}
    elif grace_s < int(metadata.get("deletionGracePeriodSeconds") or 0):
        metadata["deletionTimestamp"] = timestamp(now_s + grace_s)
        metadata["deletionGracePeriodSeconds"] = grace_s
    return Nothing() if new == old else Mark(new)


def is_to_be_removed(kind: Kind, obj: Json) -> bool:
    """Whether an update has taken the last thing away that kept a deleted object."""
    metadata = obj["metadata"]
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("finalizers")
        and not int(metadata.get("deletionGracePeriodSeconds") or 0)
        and not has_namespace_finalizers(kind, obj)
    )


def has_namespace_finalizers(kind: Kind, obj: Json) -> bool:
    """Whether it is a namespace that still waits for its content to go."""
    return kind.resource.key == NAMESPACES.key and bool((obj.get("spec") or {}).get("finalizers"))


def _grace_of(kind: Kind, obj: Json, options: DeleteOptions) -> int:
    """Only pods go gracefully, and of those only ones that a node may be running."""
    if kind.resource.key != PODS.key:
        return 0
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace_period_s is not None:
        return options.grace_period_s
    set_already = obj["metadata"].get("deletionGracePeriodSeconds")
    if set_already is not None:
        return int(set_already)
    own = spec.get("terminationGracePeriodSeconds")
    return DEFAULT_POD_GRACE_S if own is None else int(own)


def _finalizers(obj: Json, propagation: Propagation) -> list[str]:
    finalizers = list(obj["metadata"].get("finalizers") or ())
    if propagation is Propagation.DEFAULT:
        return finalizers
    kept = [name for name in finalizers if name not in (_ORPHAN, _FOREGROUND)]
    match propagation:
        case Propagation.ORPHAN:
            return [*kept, _ORPHAN]
        case Propagation.FOREGROUND:
            return [*kept, _FOREGROUND]
        case _:
            return kept


def _set_finalizers(metadata: Json, finalizers: list[str]) -> None:
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
