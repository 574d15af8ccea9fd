"""Reading and writing single objects in the store: keys, values, compare-and-swap, events' time to live."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.apiserver.admission import Claim
from controlplane.apiserver.kinds import Kind, KindRegistry
from controlplane.apiserver.objects import object_key, parse, to_stored
from controlplane.store.protocol import NO_LEASE, Compare, Delete, KeyValue, LeaseId, Op, Put, Store, TxnResult
from mesh.api.resources import EVENTS, Json, Resource
from mesh.clock import Clock

LEASE_SHARED_S = 60.0
"""Events written within this time share one lease, so an event lives up to that much longer."""


@dataclass(frozen=True, slots=True)
class Written:
    """A write that took place."""

    obj: Json
    """As stored, with its new resourceVersion."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A write that did not: something changed meanwhile."""

    is_object: bool
    """It was the object itself, not a claimed key."""


class ObjectStorage:
    """Objects over a store."""

    def __init__(self, store: Store, kinds: KindRegistry, clock: Clock, event_ttl_s: float) -> None:
        self.store = store
        self._kinds = kinds
        self._leases = _SharedLease(store, clock, event_ttl_s)

    async def read(self, kind: Kind, namespace: str, name: str) -> KeyValue | None:
        """The newest stored value."""
        return await self.store.get(object_key(kind.resource, namespace, name))

    async def lookup(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """A built-in kind's object, parsed: the `lookup` of admission requests."""
        kind = self._kinds.preferred(resource)
        kv = await self.read(kind, namespace, name)
        return None if kv is None else parse(kind.resource, kv)

    async def create(self, kind: Kind, obj: Json, claims: Sequence[Claim]) -> Written | Lost:
        """Store a new object and take its claims."""
        compares = [Compare(_key(kind, obj), 0), *(Compare(claim.key, 0) for claim in claims)]
        ops: list[Op] = [await self._put(kind, obj), *(Put(claim.key, claim.value) for claim in claims)]
        return _outcome(obj, await self.store.txn(compares, ops))

    async def replace(
        self, kind: Kind, obj: Json, read: KeyValue, claims: Sequence[Claim] = (), releases: Sequence[bytes] = ()
    ) -> Written | Lost:
        """Store `obj` in place of what was read."""
        compares = [Compare(read.key, read.mod_revision), *(Compare(claim.key, 0) for claim in claims)]
        ops: list[Op] = [await self._put(kind, obj), *(Put(claim.key, claim.value) for claim in claims)]
        ops += [Delete(key) for key in releases]
        return _outcome(obj, await self.store.txn(compares, ops))

    async def remove(self, obj: Json, read: KeyValue, releases: Sequence[bytes] = ()) -> Written | Lost:
        """Take away what was read; `obj` is it, for the answer."""
        ops: list[Op] = [Delete(read.key), *(Delete(key) for key in releases)]
        return _outcome(obj, await self.store.txn([Compare(read.key, read.mod_revision)], ops))

    async def _put(self, kind: Kind, obj: Json) -> Put:
        lease = await self._leases.current() if kind.resource.key == EVENTS.key else NO_LEASE
        return Put(_key(kind, obj), to_stored(kind.stored, obj), lease)


def _key(kind: Kind, obj: Json) -> bytes:
    metadata = obj["metadata"]
    return object_key(kind.resource, metadata.get("namespace", ""), metadata["name"])


def _outcome(obj: Json, result: TxnResult) -> Written | Lost:
    if not result.succeeded:
        return Lost(is_object=_object_changed(result))
    obj["metadata"]["resourceVersion"] = str(result.revision)
    return Written(obj)


def _object_changed(result: TxnResult) -> bool:
    """Claims all compare with "absent", so a claim is the loser's reason only if one of them is there now."""
    return not any(kv is not None for kv in result.current[1:])


class _SharedLease:
    """One lease for all events of a short time: leases cost memory, events come in crowds."""

    def __init__(self, store: Store, clock: Clock, ttl_s: float) -> None:
        self._store = store
        self._clock = clock
        self._ttl_s = ttl_s
        self._lease = NO_LEASE
        self._until = 0.0

    async def current(self) -> LeaseId:
        if self._clock.now() >= self._until:
            self._lease = await self._store.lease_grant(self._ttl_s + LEASE_SHARED_S)
            self._until = self._clock.now() + LEASE_SHARED_S
        return self._lease
