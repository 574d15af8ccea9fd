"""Reads of the store: the present from memory, the past by undoing the changes since."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from controlplane.store.errors import CompactedError, FutureRevisionError
from controlplane.store.history import History
from controlplane.store.index import Entry, KeyIndex
from controlplane.store.protocol import KeyValue, RangeResult, Revision
from controlplane.store.reader import Reader


@dataclass(slots=True)
class Position:
    """How far the store is. Shared by its parts, changed by the store alone."""

    revision: int
    """The newest durable revision."""
    compacted: int
    """Reads at or below are refused."""

    def check_readable(self, revision: int) -> None:
        """Raises FutureRevisionError, CompactedError. 0 means now."""
        if revision > self.revision:
            raise FutureRevisionError(revision, self.revision)
        if revision and revision <= self.compacted:
            raise CompactedError(revision, self.compacted)


class Reads:
    """Answers get and range."""

    def __init__(self, position: Position, index: KeyIndex, history: History, reader: Reader) -> None:
        self._position = position
        self._index = index
        self._history = history
        self._reader = reader

    async def get(self, key: bytes, revision: int) -> KeyValue | None:
        """As Store.get."""
        if revision and revision != self._position.revision:
            result = await self.range(key, key + b"\0", 0, revision)
            return result.kvs[0] if result.kvs else None
        self._position.check_readable(revision)
        while (entry := self._index.get(key)) is not None:
            if entry.kv is not None:
                return entry.kv
            found = (await self._read_back([entry])).get(entry.row)
            if found is not None:
                return found
            self._position.check_readable(revision)  # it was replaced and compacted away meanwhile
        return None

    async def range(
        self, start: bytes, end: bytes, limit: int, revision: int, *, keys_only: bool = False
    ) -> RangeResult:
        """As Store.range."""
        self._position.check_readable(revision)
        if revision and revision < self._position.revision:
            return await self._past(start, end, limit, revision, keys_only)
        while True:
            entries, count = self._index.page(start, end, limit)
            at = Revision(self._position.revision)
            kvs = await self._with_values(entries, keys_only)
            if kvs is not None:
                return RangeResult(kvs=kvs, has_more=count > len(kvs), count=count, revision=at)
            # A version was replaced and compacted away while it was being read: read the newer state.
            self._position.check_readable(revision)

    async def _past(self, start: bytes, end: bytes, limit: int, revision: int, keys_only: bool) -> RangeResult:
        """The state at `revision` is the present one with every later change undone."""
        now = Revision(self._position.revision)
        states: dict[bytes, Entry | KeyValue] = {entry.key: entry for entry in self._index.between(start, end)}
        if self._history.covers(revision + 1):
            for key, kv in self._history.before(revision, start, end).items():
                _set_or_pop(states, key, kv)
        else:
            for earlier in await self._reader.earlier(revision, now, start, end):
                _set_or_pop(states, earlier.key, Entry(earlier.key, earlier.row, 0, 1) if earlier.row else None)
        chosen = [states[key] for key in sorted(states)]
        page = chosen[:limit] if limit else chosen
        kvs = await self._past_values(page)
        self._position.check_readable(revision)
        if keys_only:
            kvs = [_without_value(kv) for kv in kvs]
        return RangeResult(kvs=tuple(kvs), has_more=len(chosen) > len(kvs), count=len(chosen), revision=now)

    async def _past_values(self, states: Sequence[Entry | KeyValue]) -> list[KeyValue]:
        missing = [state.row for state in states if isinstance(state, Entry) and state.kv is None]
        values = await self._reader.values(missing) if missing else {}
        found = (state if isinstance(state, KeyValue) else state.kv or values.get(state.row) for state in states)
        return [kv for kv in found if kv is not None]

    async def _with_values(self, entries: Sequence[Entry], keys_only: bool) -> tuple[KeyValue, ...] | None:
        """The entries' versions in order; None when one has been compacted away meanwhile."""
        if keys_only:
            return tuple([entry.without_value() for entry in entries])
        kvs = [entry.kv for entry in entries]
        if None not in kvs:
            return cast(tuple[KeyValue, ...], tuple(kvs))
        values = await self._read_back([entry for entry, kv in zip(entries, kvs, strict=True) if kv is None])
        found = [kv or values.get(entry.row) for entry, kv in zip(entries, kvs, strict=True)]
        return None if None in found else cast(tuple[KeyValue, ...], tuple(found))

    async def _read_back(self, entries: Sequence[Entry]) -> dict[int, KeyValue]:
        values = await self._reader.values([entry.row for entry in entries])
        for entry in entries:
            if entry.row in values:
                self._index.restore(entry, values[entry.row])
        return values


def _set_or_pop(states: dict[bytes, Entry | KeyValue], key: bytes, state: Entry | KeyValue | None) -> None:
    if state is None:
        states.pop(key, None)
    else:
        states[key] = state


def _without_value(kv: KeyValue) -> KeyValue:
    return KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.version, kv.lease)
