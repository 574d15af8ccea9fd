"""The live keys in memory: the newest durable version of each, with its value while there is room.

Cost: about 300 bytes a key beside the values. Values past the budget are dropped, oldest first; the reader fetches them.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from sortedcontainers import SortedDict

from controlplane.store.protocol import NO_LEASE, KeyValue, LeaseId, Revision
from controlplane.store.wire import ROW_BITS

_OVERHEAD_BYTES = 250
"""What one cached version costs besides its key and value."""
TOMBSTONE_BYTES = 350
"""What the memory of a deletion costs, with the event that shows it."""


@dataclass(slots=True, eq=False)
class Entry:
    """One version of one key. Only `kv` ever changes: None once the value has left the cache."""

    key: bytes
    row: int
    """Where it is in the log."""
    create_revision: int
    version: int
    """0 marks a deletion."""
    lease: LeaseId = NO_LEASE
    kv: KeyValue | None = None

    @property
    def mod_revision(self) -> int:
        return self.row >> ROW_BITS

    def without_value(self) -> KeyValue:
        """The key with an empty value."""
        return KeyValue(
            self.key, b"", Revision(self.create_revision), Revision(self.row >> ROW_BITS), self.version, self.lease
        )


class SortedKeys(Protocol):
    """What this room uses of sortedcontainers, which has no types of its own."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: bytes) -> Entry: ...

    def __setitem__(self, key: bytes, entry: Entry) -> None: ...

    def get(self, key: bytes) -> Entry | None: ...

    def pop(self, key: bytes, default: None) -> Entry | None: ...

    def irange(self, minimum: bytes, maximum: bytes, inclusive: tuple[bool, bool]) -> Iterable[bytes]: ...

    def bisect_left(self, key: bytes) -> int: ...


def size_of(kv: KeyValue) -> int:
    """Bytes that one cached version takes, roughly."""
    return len(kv.key) + len(kv.value) + _OVERHEAD_BYTES


class KeyIndex:
    """Key -> newest durable version, in byte order."""

    def __init__(self, cache_bytes: int) -> None:
        self._keys: SortedKeys = SortedDict()
        self._cache_bytes = cache_bytes
        self._cached = 0
        self._ages: deque[Entry] = deque()
        """Entries that got their value, oldest first; holds stale ones until they are met or swept."""

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def cached_bytes(self) -> int:
        """What the cached values take now."""
        return self._cached

    def get(self, key: bytes) -> Entry | None:
        """The newest durable version."""
        return self._keys.get(key)

    def between(self, start: bytes, end: bytes) -> list[Entry]:
        """All of [start, end), in byte order."""
        keys = self._keys
        return [keys[key] for key in keys.irange(start, end, (True, False))]

    def page(self, start: bytes, end: bytes, limit: int) -> tuple[list[Entry], int]:
        """The first `limit` (0 = all) of [start, end), and how many there are."""
        if not limit:
            entries = self.between(start, end)
            return entries, len(entries)
        keys = self._keys
        taken: list[Entry] = []
        for key in keys.irange(start, end, (True, False)):
            if len(taken) == limit:
                break
            taken.append(keys[key])
        return taken, max(keys.bisect_left(end) - keys.bisect_left(start), 0)

    def put(self, entry: Entry) -> None:
        """`entry` is now the newest durable version of its key."""
        self._forget(self._keys.get(entry.key))
        self._keys[entry.key] = entry
        if entry.kv is not None:
            self._remember(entry)

    def remove(self, key: bytes) -> None:
        """The key is gone."""
        self._forget(self._keys.pop(key, None))

    def restore(self, entry: Entry, kv: KeyValue) -> None:
        """A value was read back; keep it if `entry` is still the newest version."""
        if entry.kv is None and self._keys.get(entry.key) is entry:
            entry.kv = kv
            self._remember(entry)

    def _remember(self, entry: Entry) -> None:
        assert entry.kv is not None
        self._cached += size_of(entry.kv)
        self._ages.append(entry)
        while self._cached > self._cache_bytes and len(self._ages) > 1:
            self._forget(self._ages.popleft())
        if len(self._ages) > 2 * len(self._keys) + 1024:
            self._ages = deque(aged for aged in self._ages if aged.kv is not None)

    def _forget(self, entry: Entry | None) -> None:
        if entry is not None and entry.kv is not None:
            self._cached -= size_of(entry.kv)
            entry.kv = None
