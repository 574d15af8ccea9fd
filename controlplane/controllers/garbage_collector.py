"""Deletes what its owners left behind: follows every kind, custom ones included."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from controlplane.controllers.caches import Caches, metadata_view
from controlplane.controllers.garbage import (
    ORPHAN,
    AwaitDependents,
    Delete,
    Detach,
    Graph,
    Keep,
    OrphanDependents,
    OwnerState,
    Release,
    Thing,
    Verdict,
    detach_patch,
    plan,
    release_patch,
)
from controlplane.controllers.kinds import served_resources
from mesh.api.meta import OwnerReference
from mesh.api.resources import EVENTS, LEASES, Json, Resource
from mesh.client.controller import Controller
from mesh.client.errors import NotFoundError
from mesh.client.informer import Change, Informer
from mesh.client.rest import ApiClient
from mesh.net.tasks import cancel_and_wait, spawn

logger = logging.getLogger(__name__)

_NOT_FOLLOWED = frozenset({EVENTS.key, LEASES.key})
"""Events expire by themselves; of Leases the nodes' are followed, by the shared informer."""


@dataclass(frozen=True, slots=True)
class _Follower:
    """An informer this controller runs itself."""

    informer: Informer[Any]
    task: asyncio.Task[None]


class GarbageCollector:
    """The control loop. A key is the uid of an object in the graph."""

    def __init__(self, client: ApiClient, caches: Caches, *, workers: int = 8) -> None:
        self._client = client
        self._caches = caches
        self._graph = Graph()
        self._controller: Controller[str] = Controller("garbage-collector", self._reconcile, workers=workers)
        self._followers: dict[tuple[str, str], _Follower] = {}
        self._crds_changed = asyncio.Event()
        caches.custom_resource_definitions.add_handler(lambda _: self._crds_changed.set())
        self._shared = (*caches.watched().values(), caches.leases)
        for informer in self._shared:
            self._follow(informer)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._shared:
                await informer.wait_synced()
            self._follow_new_kinds(group)
            for follower in tuple(self._followers.values()):
                await follower.informer.wait_synced()
            spawn(group, self._follow_crds(group), name="garbage-collector-kinds")
            await self._controller.run()

    # -- the graph

    def _follow(self, informer: Informer[Any]) -> None:
        resource = informer.resource
        informer.add_handler(lambda change: self._on_change(resource, change))

    def _on_change(self, resource: Resource, change: Change[Any]) -> None:
        thing = Thing(resource, metadata_view(change.object).metadata)
        if change.old is not None:
            before = metadata_view(change.old).metadata
            if before.uid != thing.uid:
                self._lost(before.uid)
        if change.new is None:
            self._lost(thing.uid)
            for ref in thing.meta.owner_references:
                self._queue_if_waiting(ref.uid)
            return
        self._graph.put(thing)
        if thing.meta.owner_references or thing.meta.is_terminating:
            self._controller.queue.add(thing.uid)
        if thing.is_deleting_dependents:
            for dependent in self._graph.dependents(thing.uid):
                self._controller.queue.add(dependent.uid)

    def _lost(self, uid: str) -> None:
        self._graph.remove(uid)
        for dependent in self._graph.dependents(uid):
            self._controller.queue.add(dependent.uid)

    def _queue_if_waiting(self, uid: str) -> None:
        owner = self._graph.get(uid)
        if owner is not None and owner.meta.is_terminating:
            self._controller.queue.add(uid)

    # -- custom kinds

    async def _follow_crds(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._crds_changed.wait()
            self._crds_changed.clear()
            self._follow_new_kinds(group)
            await self._leave_old_kinds()

    def _wanted(self) -> dict[tuple[str, str], Resource]:
        shared = self._caches.watched()
        served = served_resources(self._caches.custom_resource_definitions.all())
        return {key: r for key, r in served.items() if key not in shared and key not in _NOT_FOLLOWED}

    def _follow_new_kinds(self, group: asyncio.TaskGroup) -> None:
        for key, resource in self._wanted().items():
            if key not in self._followers:
                informer = self._caches.object_informer(resource)
                self._follow(informer)
                task = spawn(group, informer.run(), name=f"metadata-{resource.plural}")
                self._followers[key] = _Follower(informer, task)

    async def _leave_old_kinds(self) -> None:
        wanted = self._wanted()
        for key in [key for key in self._followers if key not in wanted]:
            follower = self._followers.pop(key)
            await cancel_and_wait(follower.task)
            for value in follower.informer.all():
                self._lost(metadata_view(value).metadata.uid)

    # -- decisions

    async def _reconcile(self, uid: str) -> None:
        thing = self._graph.get(uid)
        if thing is None:
            return
        owners = [(ref, await self._state(thing, ref)) for ref in thing.meta.owner_references]
        await self._carry_out(thing, plan(thing, owners, self._graph.dependents(uid)))

    async def _state(self, thing: Thing, ref: OwnerReference) -> OwnerState:
        """From the graph when the owner is in it, else from the server: absence must be certain."""
        owner = self._graph.get(ref.uid)
        if owner is not None:
            return OwnerState.WAITING if owner.is_deleting_dependents else OwnerState.SOLID
        resource = self._resource_of(ref)
        if resource is None:
            return OwnerState.SOLID  # a kind nobody knows: never delete on a guess
        namespace = thing.meta.namespace if resource.is_namespaced else None
        if resource.is_namespaced and not namespace:
            return OwnerState.ABSENT  # a cluster-scoped object can't have a namespaced owner
        try:
            there = metadata_view(await self._client.get(resource, ref.name, namespace)).metadata
        except NotFoundError:
            return OwnerState.ABSENT
        return OwnerState.SOLID if there.uid == ref.uid else OwnerState.ABSENT

    def _resource_of(self, ref: OwnerReference) -> Resource | None:
        group = ref.api_version.rpartition("/")[0]
        served = served_resources(self._caches.custom_resource_definitions.all())
        return next((r for r in served.values() if (r.group, r.kind) == (group, ref.kind)), None)

    async def _carry_out(self, thing: Thing, verdict: Verdict) -> None:
        match verdict:
            case Keep():
                return
            case Detach(uids):
                await self._patch(thing, detach_patch(thing.meta, uids))
            case Delete(propagation):
                await self._delete(thing, propagation)
            case Release(finalizer):
                await self._patch(thing, release_patch(thing.meta, finalizer))
            case OrphanDependents(dependents):
                for dependent in dependents:
                    await self._patch(dependent, detach_patch(dependent.meta, {thing.uid}))
                await self._patch(thing, release_patch(thing.meta, ORPHAN))
            case AwaitDependents(dependents):
                for dependent in dependents:
                    self._controller.queue.add(dependent.uid)

    async def _patch(self, thing: Thing, patch: Json) -> None:
        namespace = thing.meta.namespace or None
        try:
            await self._client.patch(thing.resource, thing.meta.name, patch, namespace)
        except NotFoundError:
            return

    async def _delete(self, thing: Thing, propagation: str) -> None:
        meta = thing.meta
        logger.info(
            "deleting an object whose owners are gone",
            extra={"resource": thing.resource.plural, "namespace": meta.namespace, "object": meta.name},
        )
        try:
            await self._client.delete(
                thing.resource, meta.name, meta.namespace or None, uid=meta.uid, propagation=propagation
            )
        except NotFoundError:
            return
