"""The contract every store backend keeps: etcd's data model.

One store is one ordered map from byte keys to byte values, plus one counter, the revision, which grows by one with each
transaction that writes. Source: etcd API v3 documentation ("KV API guarantees", "Data model", "Interacting with etcd").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NewType, Protocol

Revision = NewType("Revision", int)
"""A point in the store's history; 1 is the empty store, the first write makes revision 2 (as in etcd)."""
LeaseId = NewType("LeaseId", int)
"""A lease; 0 means none."""

NO_LEASE = LeaseId(0)


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key at one revision."""

    key: bytes
    value: bytes
    create_revision: Revision
    """The revision that created this incarnation of the key."""
    mod_revision: Revision
    """The revision of the last write."""
    version: int
    """Writes since creation; 1 = just created."""
    lease: LeaseId = NO_LEASE


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeResult:
    """A page of keys in byte order."""

    kvs: tuple[KeyValue, ...]
    has_more: bool
    """There are keys in the range beyond the page."""
    count: int
    """How many keys the whole range holds at that revision."""
    revision: Revision
    """The store's revision when the range was read (not the revision asked for)."""


class EventType(Enum):
    """What happened to a key."""

    PUT = "PUT"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class Event:
    """One change. For DELETE, `kv.value` is empty and `kv.mod_revision` is the revision of the deletion."""

    type: EventType
    kv: KeyValue
    previous: KeyValue | None
    """The key before the change; None when it was created, or when that version has been compacted away."""


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition of a transaction: the key's mod_revision equals `mod_revision` (0 = the key does not exist)."""

    key: bytes
    mod_revision: Revision | int


@dataclass(frozen=True, slots=True)
class Put:
    """Write `value` under `key`."""

    key: bytes
    value: bytes
    lease: LeaseId = NO_LEASE


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key`; removing a missing key changes nothing."""

    key: bytes


Op = Put | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnResult:
    """The outcome of a transaction."""

    succeeded: bool
    """Every compare held and the operations were applied."""
    revision: Revision
    """After success: the revision of this transaction (the current one if nothing was written). Else: the current one."""
    current: tuple[KeyValue | None, ...] = ()
    """After failure: the present state of each compared key, in the order of the compares."""
    previous: tuple[KeyValue | None, ...] = ()
    """After success: the state before of each written key, in the order of the operations."""


class Watch(Protocol):
    """A registered watcher."""

    def cancel(self) -> None:
        """Stop; no callback follows. Idempotent."""
        ...


class Store(Protocol):
    """The store. Every method may raise StoreError and its children from `controlplane.store.errors`."""

    @property
    def revision(self) -> Revision:
        """The newest revision this process knows to be durable."""
        ...

    @property
    def compacted_revision(self) -> Revision:
        """Reads and watches at or below it raise CompactedError. 0 when nothing was compacted."""
        ...

    async def get(self, key: bytes, *, revision: Revision | int = 0) -> KeyValue | None:
        """One key, now (revision 0) or as it was at `revision`. Raises CompactedError, FutureRevisionError."""
        ...

    async def range(
        self, start: bytes, end: bytes, *, limit: int = 0, revision: Revision | int = 0, keys_only: bool = False
    ) -> RangeResult:
        """Keys in [start, end) in byte order, at most `limit` (0 = all), now or at `revision`.

        Raises CompactedError, FutureRevisionError.
        """
        ...

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        """Apply all `ops` at one new revision if every compare holds, else none.

        Returns once the write is on disk: it survives kill -9 and power loss. A compare that fails is a value, not an
        error. Raises StoreClosedError, StoreFullError (disk), ValueError (a key twice in one transaction).
        """
        ...

    def watch(
        self,
        start: bytes,
        end: bytes,
        *,
        from_revision: Revision | int,
        on_events: Callable[[Revision, Sequence[Event]], None],
        on_lost: Callable[[Exception], None],
    ) -> Watch:
        """Call `on_events(revision, events)` for every transaction that touched [start, end), from `from_revision` on.

        Each call holds the events of one revision, in order, without gap or repeat; only durable changes are shown.
        Callbacks run on the event loop, must not block and must not raise. `from_revision` may lie in the past (replayed
        before this method's caller next yields to the loop, or soon after) or be the next one (`revision + 1`).
        `on_lost` is called once, last, when the watch can't go on (CompactedError, StoreClosedError).
        Raises CompactedError at once when `from_revision` <= compacted_revision.
        """
        ...

    async def compact(self, revision: Revision | int) -> None:
        """Forget versions superseded at or before `revision`. Raises CompactedError, FutureRevisionError.

        Returns when reads below are refused; the space is freed in small steps off the commit path.
        """
        ...

    async def lease_grant(self, ttl_s: float, *, lease: LeaseId = NO_LEASE) -> LeaseId:
        """A new lease (chosen id when `lease` is 0). Keys put with it are deleted when it expires."""
        ...

    async def lease_keep_alive(self, lease: LeaseId) -> float:
        """Restart the lease's time; returns its TTL in seconds. Raises LeaseNotFoundError."""
        ...

    async def lease_revoke(self, lease: LeaseId) -> None:
        """End the lease and delete its keys in one transaction. Raises LeaseNotFoundError."""
        ...

    async def close(self) -> None:
        """Flush, stop, release. Idempotent. Pending calls raise StoreClosedError."""
        ...
