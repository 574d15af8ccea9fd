"""Reads from the store's file, on a thread of its own: what is no longer in memory, and everything once at the start."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from controlplane.store import schema
from controlplane.store.errors import StoreError
from controlplane.store.index import Entry
from controlplane.store.protocol import Event, EventType, KeyValue, LeaseId, Revision
from controlplane.store.wire import ROW_BITS, first_row

T = TypeVar("T")

_COLUMNS: Final = "id, previous, create_revision, version, lease, key, value"
_IDS_PER_QUERY: Final = 500


class StoreReadError(StoreError):
    """The file can't be read: the disk failed or the file is damaged."""


@dataclass(slots=True)
class Loaded:
    """What a fresh start finds in the file."""

    revision: int = 1
    compacted: int = 0
    entries: dict[bytes, Entry] = field(default_factory=dict)
    leases: list[tuple[LeaseId, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Earlier:
    """The version of a key before its first change after some revision; `row` 0: there was none."""

    key: bytes
    row: int


class Reader:
    """One read-only connection and the thread that uses it. Methods return futures of the running loop."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-reader")

    def load(self) -> asyncio.Future[Loaded]:
        """Everything but the values."""
        return self._submit(_load)

    def values(self, rows: Sequence[int]) -> asyncio.Future[dict[int, KeyValue]]:
        """The versions with these row ids; those compacted away are missing."""
        return self._submit(lambda db: _values(db, rows))

    def events(self, first: int, last: int, start: bytes, end: bytes) -> asyncio.Future[list[tuple[int, list[Event]]]]:
        """The changes of [start, end) in the revisions [first, last], by revision."""
        return self._submit(lambda db: _events(db, first, last, start, end))

    def earlier(self, revision: int, last: int, start: bytes, end: bytes) -> asyncio.Future[list[Earlier]]:
        """For each key of [start, end) changed in (revision, last]: where its version at `revision` is."""
        return self._submit(lambda db: _earlier(db, revision, last, start, end))

    async def close(self) -> None:
        """Wait for reads under way and close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _submit(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._db is None:
                self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                self._db.execute("PRAGMA query_only = ON")
            return work(self._db)
        except sqlite3.Error as exc:
            raise StoreReadError(f"reading {self._path} failed: {exc}") from exc

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _load(db: sqlite3.Connection) -> Loaded:
    db.execute("BEGIN")  # one snapshot for all the queries
    try:
        loaded = Loaded(compacted=schema.number(db, "compacted"))
        newest = loaded.compacted
        rows = db.execute("SELECT id, create_revision, version, lease, key FROM log ORDER BY id")
        for row, create_revision, version, lease, key in rows:
            newest = row >> ROW_BITS
            if version:
                loaded.entries[key] = Entry(key, row, create_revision, version, LeaseId(lease))
            else:
                loaded.entries.pop(key, None)
        loaded.revision = max(1, newest, loaded.compacted)
        loaded.leases = [(LeaseId(lease), ttl_s) for lease, ttl_s in db.execute("SELECT id, ttl_s FROM leases")]
        return loaded
    finally:
        db.execute("COMMIT")


def _values(db: sqlite3.Connection, rows: Sequence[int]) -> dict[int, KeyValue]:
    found: dict[int, KeyValue] = {}
    for start in range(0, len(rows), _IDS_PER_QUERY):
        part = rows[start : start + _IDS_PER_QUERY]
        marks = ",".join("?" * len(part))
        for row in db.execute(f"SELECT {_COLUMNS} FROM log WHERE id IN ({marks})", part):
            found[row[0]] = _key_value(row)
    return found


def _key_value(row: tuple[int, int, int, int, int, bytes, bytes | None]) -> KeyValue:
    id_, _, create_revision, version, lease, key, value = row
    return KeyValue(key, value or b"", Revision(create_revision), Revision(id_ >> ROW_BITS), version, LeaseId(lease))


def _events(db: sqlite3.Connection, first: int, last: int, start: bytes, end: bytes) -> list[tuple[int, list[Event]]]:
    query = f"SELECT {_COLUMNS} FROM log WHERE id >= ? AND id < ? AND key >= ? AND key < ? ORDER BY id"
    rows = db.execute(query, (first_row(first), first_row(last + 1), start, end)).fetchall()
    previous = _values(db, [row[1] for row in rows if row[1]])
    found: list[tuple[int, list[Event]]] = []
    for row in rows:
        kv = _key_value(row)
        event = Event(EventType.PUT if kv.version else EventType.DELETE, kv, previous.get(row[1]))
        if found and found[-1][0] == kv.mod_revision:
            found[-1][1].append(event)
        else:
            found.append((kv.mod_revision, [event]))
    return found


def _earlier(db: sqlite3.Connection, revision: int, last: int, start: bytes, end: bytes) -> list[Earlier]:
    query = "SELECT previous, key FROM log WHERE id >= ? AND id < ? AND key >= ? AND key < ? ORDER BY id"
    found: dict[bytes, Earlier] = {}
    for previous, key in db.execute(query, (first_row(revision + 1), first_row(last + 1), start, end)):
        found.setdefault(key, Earlier(key, previous))
    return list(found.values())
