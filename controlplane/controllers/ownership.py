"""Which objects a controller owns, should adopt, and should let go, by selector and controller reference. Pure.

Source: Kubernetes design proposal "ControllerRef".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mesh.api.meta import ObjectMeta, ObjectView
from mesh.api.resources import Json
from mesh.api.selectors import Selector

V = TypeVar("V", bound=ObjectView)


@dataclass(frozen=True, slots=True)
class Owner:
    """A controller's identity as it goes into an ownerReference."""

    api_version: str
    kind: str
    name: str
    uid: str

    def reference(self) -> Json:
        """The controller reference for metadata.ownerReferences."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


@dataclass(frozen=True, slots=True)
class Claim(Generic[V]):
    """What belongs to an owner, now and after the writes."""

    owned: tuple[V, ...]
    """Referenced and matching already."""
    adopt: tuple[V, ...]
    """Orphans that match: give them a reference."""
    release: tuple[V, ...]
    """Referenced, but no longer matching: take the reference away."""


def plan_claim(owner: Owner, selector: Selector, candidates: Iterable[V], *, owner_is_terminating: bool) -> Claim[V]:
    """Decide for each candidate of the owner's namespace. A terminating owner adopts nothing and lets nothing go."""
    owned: list[V] = []
    adopt: list[V] = []
    release: list[V] = []
    for candidate in candidates:
        meta = candidate.metadata
        controller = meta.controller
        matches = selector.matches(meta.labels)
        if controller is not None:
            if controller.uid != owner.uid:
                continue
            if matches or owner_is_terminating:
                owned.append(candidate)
            else:
                release.append(candidate)
        elif matches and not owner_is_terminating and not meta.is_terminating:
            adopt.append(candidate)
    return Claim(tuple(owned), tuple(adopt), tuple(release))


def adoption_patch(meta: ObjectMeta, owner: Owner) -> Json:
    """A merge patch that adds the controller reference; fails with a conflict if the object changed meanwhile."""
    references = [reference.to_json() for reference in meta.owner_references]
    return _references_patch(meta, [*references, owner.reference()])


def release_patch(meta: ObjectMeta, owner_uid: str) -> Json:
    """A merge patch that drops the references to `owner_uid`, under the same condition."""
    return _references_patch(meta, [r.to_json() for r in meta.owner_references if r.uid != owner_uid])


def _references_patch(meta: ObjectMeta, references: list[Json]) -> Json:
    return {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": references}}
