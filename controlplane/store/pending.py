"""Transactions between being decided and being durable. Pure: no loop, no disk.

A transaction is decided at once, against the newest state including what is still on its way to the disk; its outcome is
told, and its changes are shown, only when it and all before it are on disk.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controlplane.store.index import TOMBSTONE_BYTES, Entry, size_of
from controlplane.store.protocol import (
    Compare,
    Delete,
    Event,
    EventType,
    KeyValue,
    LeaseId,
    Op,
    Put,
    Revision,
    TxnResult,
)
from controlplane.store.wire import MAX_OPS, ROW_BITS, Column


class Outcome(Protocol):
    """What this room uses of asyncio.Future."""

    def done(self) -> bool: ...

    def set_result(self, result: TxnResult, /) -> None: ...

    def set_exception(self, exception: Exception, /) -> None: ...


@dataclass(slots=True)
class Change:
    """One key's change: the new version and the place of the old one in `Commit.report`."""

    entry: Entry
    report_index: int
    previous: Entry | None


@dataclass(slots=True, eq=False)
class Commit:
    """A decided transaction on its way. With `revision` 0 it changes nothing and only keeps its place in the order."""

    revision: int
    succeeded: bool
    changes: list[Change] = field(default_factory=list)
    report: list[KeyValue | None] = field(default_factory=list)
    holes: list[tuple[int, Entry]] = field(default_factory=list)
    """Places in `report` whose values must be read back first."""
    size: int = 0
    seq: int = 0
    """The batch that carries it."""
    outcome: Outcome | None = None
    """Whom to tell."""

    def finish(self, revision: int) -> None:
        """Tell the caller that it is durable; `revision` is the store's."""
        if self.outcome is not None and not self.outcome.done():
            self.outcome.set_result(self.result(revision))

    def fail(self, error: Exception) -> None:
        """Tell the caller that it was not stored."""
        if self.outcome is not None and not self.outcome.done():
            self.outcome.set_exception(error)

    def describe(self, entry: Entry | None) -> int:
        """Add a key's state to the report; returns its place."""
        place = len(self.report)
        if entry is None or not entry.version:
            self.report.append(None)
        else:
            self.report.append(entry.kv)
            if entry.kv is None:
                self.holes.append((place, entry))
        return place

    def fill(self, values: dict[int, KeyValue]) -> None:
        """Values that were read back, by row."""
        for place, entry in self.holes:
            self.report[place] = values.get(entry.row)
        self.holes = []

    def events(self) -> tuple[Event, ...]:
        """What watchers see."""
        return tuple([self._event(change) for change in self.changes])

    def result(self, revision: int) -> TxnResult:
        """What the caller is told."""
        if self.succeeded:
            return TxnResult(succeeded=True, revision=Revision(self.revision or revision), previous=tuple(self.report))
        return TxnResult(succeeded=False, revision=Revision(revision), current=tuple(self.report))

    def _event(self, change: Change) -> Event:
        entry = change.entry
        previous = self.report[change.report_index]
        if entry.version:
            assert entry.kv is not None
            return Event(EventType.PUT, entry.kv, previous)
        return Event(EventType.DELETE, entry.without_value(), previous)


class Pending:
    """The overlay of undurable versions, and the deciding of transactions on top of it."""

    def __init__(self, durable: Callable[[bytes], Entry | None], revision: int) -> None:
        self._durable = durable
        self._overlay: dict[bytes, Entry] = {}
        self._revision = revision
        self.commits: deque[Commit] = deque()
        """Decided and not yet shown, oldest first."""

    @property
    def revision(self) -> int:
        """The newest revision given out."""
        return self._revision

    def latest(self, key: bytes) -> Entry | None:
        """The newest decided version; one with version 0 is a deletion."""
        entry = self._overlay.get(key)
        return self._durable(key) if entry is None else entry

    def decide(self, compares: Sequence[Compare], ops: Sequence[Op]) -> tuple[Commit, list[Column]]:
        """Decide a transaction and queue it. Returns it with the rows to store. Raises ValueError."""
        if len(ops) > 1:
            _check_ops(ops)
        latest = self.latest
        for compare in compares:
            entry = latest(compare.key)
            found = entry.row >> ROW_BITS if entry is not None and entry.version else 0
            if found != compare.mod_revision:
                return self._failed(compares), []
        return self._succeeded(ops)

    def shown(self, commit: Commit) -> None:
        """`commit`, the oldest, is durable and in the index now."""
        for change in commit.changes:
            key = change.entry.key
            if self._overlay.get(key) is change.entry:
                del self._overlay[key]

    def drop(self, keep: int) -> list[Commit]:
        """Forget all commits but the `keep` oldest; the revision goes back to where those end (or the durable one)."""
        dropped = [self.commits.pop() for _ in range(len(self.commits) - keep)]
        dropped.reverse()
        self._overlay = {change.entry.key: change.entry for commit in self.commits for change in commit.changes}
        return dropped

    def rewind(self, revision: int) -> None:
        """The next transaction makes `revision + 1`."""
        self._revision = revision

    def _failed(self, compares: Sequence[Compare]) -> Commit:
        commit = Commit(0, succeeded=False)
        for compare in compares:
            commit.describe(self.latest(compare.key))
        self.commits.append(commit)
        return commit

    def _succeeded(self, ops: Sequence[Op]) -> tuple[Commit, list[Column]]:
        revision = self._revision + 1
        commit = Commit(revision, succeeded=True)
        rows: list[Column] = []
        for op in ops:
            previous = self.latest(op.key)
            if previous is not None and not previous.version:
                previous = None
            place = commit.describe(previous)
            if previous is None and isinstance(op, Delete):
                continue
            entry = _next_version(op, revision, (revision << ROW_BITS) + len(commit.changes), previous)
            commit.changes.append(Change(entry, place, previous))
            rows += _row(entry, previous, op)
            commit.size += size_of(entry.kv) if entry.kv is not None else TOMBSTONE_BYTES
            self._overlay[op.key] = entry
        if rows:
            self._revision = revision
        else:
            commit.revision = 0
        self.commits.append(commit)
        return commit, rows


def _check_ops(ops: Sequence[Op]) -> None:
    if len(ops) > MAX_OPS:
        raise ValueError(f"a transaction has {len(ops)} operations, at most {MAX_OPS} are possible")
    seen: set[bytes] = set()
    for op in ops:
        if op.key in seen:
            raise ValueError(f"key {op.key!r} twice in one transaction: write each key once")
        seen.add(op.key)


def _next_version(op: Op, revision: int, row: int, previous: Entry | None) -> Entry:
    if isinstance(op, Put):
        created = previous.create_revision if previous is not None else revision
        version = previous.version + 1 if previous is not None else 1
        kv = KeyValue(op.key, op.value, Revision(created), Revision(revision), version, op.lease)
        return Entry(op.key, row, created, version, op.lease, kv)
    return Entry(op.key, row, 0, 0, LeaseId(0), None)


def _row(entry: Entry, previous: Entry | None, op: Op) -> tuple[Column, ...]:
    value = op.value if isinstance(op, Put) else None
    before = previous.row if previous is not None else 0
    return (entry.row, before, entry.create_revision, entry.version, entry.lease, entry.key, value)
