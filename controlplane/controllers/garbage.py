"""The graph of owners and dependents, and what to do about one object in it. Pure.

Source: Kubernetes documentation, "Garbage Collection" (background, foreground, orphan).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from mesh.api.meta import ObjectMeta, OwnerReference
from mesh.api.resources import Json, Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of the graph."""

    resource: Resource
    meta: ObjectMeta

    @property
    def uid(self) -> str:
        return self.meta.uid

    @property
    def is_deleting_dependents(self) -> bool:
        """Deleted in the foreground: waits for its blocking dependents."""
        return self.meta.is_terminating and FOREGROUND in self.meta.finalizers

    @property
    def is_orphaning(self) -> bool:
        """Deleted with its dependents to be kept."""
        return self.meta.is_terminating and ORPHAN in self.meta.finalizers

    def blocks(self, owner_uid: str) -> bool:
        """A foreground deletion of that owner waits for this object."""
        return any(ref.uid == owner_uid and ref.block_owner_deletion for ref in self.meta.owner_references)


class Graph:
    """Things by uid, and who depends on whom."""

    def __init__(self) -> None:
        self._things: dict[str, Thing] = {}
        self._dependents: dict[str, dict[str, None]] = {}

    def put(self, thing: Thing) -> None:
        """Add or replace."""
        self.remove(thing.uid)
        self._things[thing.uid] = thing
        for owner in thing.meta.owner_references:
            self._dependents.setdefault(owner.uid, {})[thing.uid] = None

    def remove(self, uid: str) -> None:
        """Take out; its dependents stay known as such."""
        thing = self._things.pop(uid, None)
        if thing is None:
            return
        for owner in thing.meta.owner_references:
            if (dependents := self._dependents.get(owner.uid)) is not None:
                dependents.pop(uid, None)
                if not dependents:
                    del self._dependents[owner.uid]

    def get(self, uid: str) -> Thing | None:
        return self._things.get(uid)

    def dependents(self, uid: str) -> list[Thing]:
        """Things with an ownerReference to `uid`, whether that exists or not."""
        return [self._things[dependent] for dependent in self._dependents.get(uid, {})]


class OwnerState(Enum):
    """What became of an owner."""

    SOLID = "there"
    WAITING = "deleted in the foreground, waiting for its dependents"
    ABSENT = "gone"


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Detach:
    """Take the references to these owners out: others still hold the object."""

    uids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Delete:
    """Nobody holds the object."""

    propagation: str


@dataclass(frozen=True, slots=True)
class Release:
    """Take this finalizer away: the deletion may end."""

    finalizer: str


@dataclass(frozen=True, slots=True)
class OrphanDependents:
    """Take the reference to the object out of these, then release the finalizer."""

    dependents: tuple[Thing, ...]


@dataclass(frozen=True, slots=True)
class AwaitDependents:
    """Look at these: they hold the foreground deletion up."""

    dependents: tuple[Thing, ...]


Verdict = Keep | Detach | Delete | Release | OrphanDependents | AwaitDependents


def plan(thing: Thing, owners: Sequence[tuple[OwnerReference, OwnerState]], dependents: Collection[Thing]) -> Verdict:
    """Decide about `thing`. `owners` are its references and their state; `dependents` the things that refer to it."""
    if thing.is_orphaning:
        return OrphanDependents(tuple(dependents)) if dependents else Release(ORPHAN)
    if thing.is_deleting_dependents:
        blocking = tuple(dependent for dependent in dependents if dependent.blocks(thing.uid))
        return AwaitDependents(blocking) if blocking else Release(FOREGROUND)
    if thing.meta.is_terminating or not owners:
        return Keep()
    loose = frozenset(ref.uid for ref, state in owners if state is not OwnerState.SOLID)
    if not loose:
        return Keep()
    if len(loose) < len({ref.uid for ref, _ in owners}):
        return Detach(loose)
    is_awaited = any(state is OwnerState.WAITING for _, state in owners)
    return Delete(_propagation(thing, is_awaited=is_awaited and bool(dependents)))


def _propagation(thing: Thing, *, is_awaited: bool) -> str:
    """A foreground deletion goes on through the levels; otherwise the object's own finalizers say."""
    if is_awaited or FOREGROUND in thing.meta.finalizers:
        return "Foreground"
    return "Orphan" if ORPHAN in thing.meta.finalizers else "Background"


def detach_patch(meta: ObjectMeta, uids: Collection[str]) -> Json:
    """A conditional merge patch that drops the references to `uids`."""
    references = [ref.to_json() for ref in meta.owner_references if ref.uid not in uids]
    return {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": references}}


def release_patch(meta: ObjectMeta, finalizer: str) -> Json:
    """A conditional merge patch that drops one finalizer."""
    kept = [name for name in meta.finalizers if name != finalizer]
    return {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": kept}}
