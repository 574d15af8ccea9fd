"""The embedded store: an append-only log in SQLite, written by a process of its own, with the live keys in memory.

    store = await open_sqlite_store(Path("store.db"))

Reads of live keys come from memory; values that no longer fit, and the past, are read by a thread. Writes are decided in
memory and told once they are on disk. Measured: docs/benchmarks/store.json.
"""

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from controlplane.store.channel import WriterChannel, start_writer
from controlplane.store.config import SqliteConfig
from controlplane.store.errors import (
    CompactedError,
    FutureRevisionError,
    StoreClosedError,
    StoreError,
    StoreFullError,
)
from controlplane.store.history import History
from controlplane.store.index import KeyIndex
from controlplane.store.leases import Lease, Leases
from controlplane.store.lock import lock_store
from controlplane.store.pending import Commit, Pending
from controlplane.store.protocol import (
    NO_LEASE,
    Compare,
    Delete,
    Event,
    KeyValue,
    LeaseId,
    Op,
    Put,
    RangeResult,
    Revision,
    TxnResult,
    Watch,
)
from controlplane.store.reader import Loaded, Reader
from controlplane.store.reads import Position, Reads
from controlplane.store.replay import Replay
from controlplane.store.watches import Watcher, Watches
from controlplane.store.wire import Batch, Column

_LEASE_RETRY_S: Final = 1.0


async def open_sqlite_store(path: Path, config: SqliteConfig | None = None) -> "SqliteStore":
    """Open or create the store at `path`. The directory must exist; the file gets mode 0600.

    Raises StoreLockedError (another process has it), StoreOpenError (not a store, no permission, bad disk).
    """
    config = config or SqliteConfig()
    lock_fd = lock_store(path)
    try:
        channel = await start_writer(path, lock_fd, config.quota_bytes)
        reader = Reader(str(path))
        try:
            loaded = await reader.load()
        except BaseException:
            await reader.close()
            await channel.close()
            raise
    except BaseException:
        os.close(lock_fd)
        raise
    return SqliteStore(config, channel, reader, loaded, lock_fd)


class SqliteStore:
    """`controlplane.store.protocol.Store` on SQLite. Use it from one event loop; make it with `open_sqlite_store`."""

    def __init__(
        self, config: SqliteConfig, channel: WriterChannel, reader: Reader, loaded: Loaded, lock_fd: int
    ) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._reader = reader
        self._lock_fd = lock_fd
        self._random = random.SystemRandom()
        self._index = KeyIndex(config.cache_bytes)
        self._history = History(config.history_bytes, config.history_revisions)
        self._watches = Watches()
        self._leases = Leases()
        self._lease_timer: asyncio.TimerHandle | None = None
        self._position = Position(loaded.revision, loaded.compacted)
        self._reads = Reads(self._position, self._index, self._history, reader)
        self._replay = Replay(self._position, self._watches, self._history, reader)
        self._pending = Pending(self._index.get, loaded.revision)
        self._epoch = 0
        self._seq = 0
        self._acknowledged = 0
        self._next = Batch(0, 0, [], [], [], 0)
        self._is_flush_due = False
        self._unshown_bytes = 0
        self._room: list[asyncio.Future[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._closed_because: StoreError | None = None
        self._is_closing = False
        self._load(loaded)
        channel.attach(self)

    @property
    def revision(self) -> Revision:
        return Revision(self._position.revision)

    @property
    def compacted_revision(self) -> Revision:
        return Revision(self._position.compacted)

    @property
    def writer_pid(self) -> int:
        """The writer's process id; for tests and status pages."""
        return self._channel.pid

    @property
    def cached_bytes(self) -> int:
        """What the values of live keys take in memory now."""
        return self._index.cached_bytes

    # Reads

    async def get(self, key: bytes, *, revision: Revision | int = 0) -> KeyValue | None:
        self._check_open()
        return await self._reads.get(key, revision)

    async def range(
        self, start: bytes, end: bytes, *, limit: int = 0, revision: Revision | int = 0, keys_only: bool = False
    ) -> RangeResult:
        self._check_open()
        return await self._reads.range(start, end, limit, revision, keys_only=keys_only)

    # Writes

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        self._check_open()
        while self._unshown_bytes > self._config.pending_bytes:
            room = self._loop.create_future()
            self._room.append(room)
            await room
            self._check_open()
        return await self._submit(compares, ops)

    def _submit(self, compares: Sequence[Compare], ops: Sequence[Op]) -> asyncio.Future[TxnResult]:
        """Decide a transaction and send it on its way. No await: nothing comes between the compares and the writes."""
        for op in ops:
            if isinstance(op, Put) and op.lease != NO_LEASE:
                self._leases.require(op.lease).keys.add(op.key)
        commit, rows = self._pending.decide(compares, ops)
        outcome: asyncio.Future[TxnResult] = self._loop.create_future()
        commit.outcome = outcome
        if commit.holes:
            self._fetch(commit)
        self._enqueue(commit, rows)
        return outcome

    def _enqueue(self, commit: Commit, rows: list[Column]) -> None:
        self._unshown_bytes += commit.size
        if rows:
            self._next.rows += rows
            commit.seq = self._schedule_flush()
        else:
            commit.seq = self._seq + 1 if self._is_flush_due else self._seq
            self._show_durable()

    def _schedule_flush(self) -> int:
        """The next batch goes out at the end of this tick; returns its number."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        return self._seq + 1

    def _flush(self) -> None:
        if not self._is_flush_due:
            return
        self._is_flush_due = False
        self._seq += 1
        self._next.seq, self._next.epoch = self._seq, self._epoch
        batch, self._next = self._next, Batch(0, 0, [], [], [], 0)
        self._channel.send(batch)

    def _fetch(self, commit: Commit) -> None:
        """Read back the old values that `commit` will show; started now, it is done before the disk is."""
        entries = [entry for _, entry in commit.holes]
        reading = self._reader.values([entry.row for entry in entries])

        def fill(done: asyncio.Future[dict[int, KeyValue]]) -> None:
            if done.cancelled() or self._closed_because is not None:
                return
            error = done.exception()
            if error is not None:
                self._fail(StoreClosedError(f"the store's file can't be read: {error}"))
                return
            commit.fill(done.result())
            self._show_durable()

        reading.add_done_callback(fill)

    def on_acknowledged(self, seq: int) -> None:
        self._acknowledged = max(self._acknowledged, seq)
        self._show_durable()

    def on_refused(self, epoch: int, reason: str) -> None:
        if epoch < self._epoch:
            return
        self._epoch = epoch + 1
        self._next = Batch(0, 0, [], [], [], 0)
        self._is_flush_due = False
        kept = sum(1 for commit in self._pending.commits if commit.seq <= self._acknowledged)
        dropped = self._pending.drop(kept)
        self._pending.rewind(max([self._position.revision] + [commit.revision for commit in self._pending.commits]))
        self._acknowledged = self._seq
        error = f"the store could not write ({reason}): free disk space or raise the quota; nothing was stored"
        for commit in dropped:
            self._unshown_bytes -= commit.size
            commit.fail(StoreFullError(error))
        self._show_durable()

    def on_writer_ended(self, reason: str) -> None:
        self._fail(StoreClosedError(f"{reason}; writes without an answer may or may not be on disk"))

    def _show_durable(self) -> None:
        """Show every durable transaction, in order: index, callers, watchers."""
        commits = self._pending.commits
        while commits and commits[0].seq <= self._acknowledged and not commits[0].holes:
            commit = commits.popleft()
            self._unshown_bytes -= commit.size
            if commit.changes:
                self._show(commit)
            commit.finish(self._position.revision)
        if not commits:
            _wake(self._idle)
        if self._room and self._unshown_bytes <= self._config.pending_bytes:
            _wake(self._room)

    def _show(self, commit: Commit) -> None:
        events = commit.events()
        self._pending.shown(commit)
        for change in commit.changes:
            entry, previous = change.entry, change.previous
            if entry.version:
                self._index.put(entry)
            else:
                self._index.remove(entry.key)
            if previous is not None and previous.lease not in (NO_LEASE, entry.lease):
                self._detach(previous.lease, entry.key)
        self._position.revision = commit.revision
        self._history.append(commit.revision, events, commit.size)
        self._watches.show(commit.revision, events)

    # Watches

    def watch(
        self,
        start: bytes,
        end: bytes,
        *,
        from_revision: Revision | int,
        on_events: Callable[[Revision, Sequence[Event]], None],
        on_lost: Callable[[Exception], None],
    ) -> Watch:
        self._check_open()
        if from_revision <= self._position.compacted:
            raise CompactedError(from_revision, self._position.compacted)
        watcher = Watcher(self._watches, (start, end), int(from_revision), on_events, on_lost)
        self._replay.start(watcher)
        return watcher

    # Compaction

    async def compact(self, revision: Revision | int) -> None:
        self._check_open()
        if revision > self._position.revision:
            raise FutureRevisionError(revision, self._position.revision)
        if revision <= self._position.compacted:
            raise CompactedError(revision, self._position.compacted)
        before, self._position.compacted = self._position.compacted, int(revision)
        # Refused from here on, before the writer frees anything, so that no read sees half of a state.
        self._next.compact = int(revision)
        try:
            await self._stored()
        except StoreFullError:
            if self._position.compacted == revision:
                self._position.compacted = before
            raise

    def _stored(self) -> asyncio.Future[TxnResult]:
        """Done when the batch under construction is on disk."""
        seq = self._schedule_flush()
        outcome = self._submit((), ())
        assert seq == self._pending.commits[-1].seq
        return outcome

    # Leases

    async def lease_grant(self, ttl_s: float, *, lease: LeaseId = NO_LEASE) -> LeaseId:
        self._check_open()
        if not ttl_s > 0:
            raise ValueError(f"a lease's TTL must be greater than 0 s, not {ttl_s}")
        if lease != NO_LEASE and lease in self._leases:
            raise ValueError(f"lease {lease} exists already: choose another id, or 0 to get a free one")
        while lease == NO_LEASE or lease in self._leases:
            lease = LeaseId(self._random.getrandbits(62) + 1)
        self._leases.grant(lease, ttl_s, self._loop.time())
        self._next.granted.append((lease, ttl_s))
        try:
            await self._stored()
        except StoreError:
            if lease in self._leases:
                self._leases.end(lease)
            raise
        self._set_lease_timer()
        return lease

    async def lease_keep_alive(self, lease: LeaseId) -> float:
        self._check_open()
        return self._leases.keep_alive(lease, self._loop.time())

    async def lease_revoke(self, lease: LeaseId) -> None:
        self._check_open()
        await self._end_lease(self._leases.require(lease))

    def _end_lease(self, lease: Lease) -> asyncio.Future[TxnResult]:
        """Delete the lease's keys and the lease itself in one transaction."""
        held = [key for key in sorted(lease.keys) if self._holds(lease.lease, key)]
        self._leases.end(lease.lease)
        self._next.dropped.append(lease.lease)
        self._schedule_flush()
        outcome = self._submit((), [Delete(key) for key in held])

        def check(done: asyncio.Future[TxnResult]) -> None:
            if not done.cancelled() and isinstance(done.exception(), StoreFullError):
                self._leases.restore(lease, self._loop.time() + _LEASE_RETRY_S)
                self._set_lease_timer()

        outcome.add_done_callback(check)
        return outcome

    def _holds(self, lease: LeaseId, key: bytes) -> bool:
        entry = self._pending.latest(key)
        return entry is not None and entry.version > 0 and entry.lease == lease

    def _detach(self, lease: LeaseId, key: bytes) -> None:
        if not self._holds(lease, key):
            self._leases.detach(lease, (key,))

    def _set_lease_timer(self) -> None:
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None
        deadline = self._leases.next_deadline()
        if deadline is not None and self._closed_because is None and not self._is_closing:
            self._lease_timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._lease_timer = None
        for lease in self._leases.expired(self._loop.time()):
            if lease in self._leases:
                # Its failure is dealt with by the callback in _end_lease; nobody else waits for it.
                self._end_lease(self._leases.require(lease))
        self._set_lease_timer()

    # Life

    async def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if self._lease_timer is not None:
            self._lease_timer.cancel()
        if self._pending.commits and self._closed_because is None:
            idle = self._loop.create_future()
            self._idle.append(idle)
            await idle
        await self._channel.close()
        self._fail(StoreClosedError("the store was closed"))
        await self._reader.close()
        os.close(self._lock_fd)

    def _fail(self, reason: StoreError) -> None:
        """Nothing can be written any more: everyone who waits is told."""
        if self._closed_because is not None:
            return
        self._closed_because = reason
        if self._lease_timer is not None:
            self._lease_timer.cancel()
        for commit in self._pending.drop(0):
            commit.fail(StoreClosedError(str(reason)))
        _wake(self._room)
        _wake(self._idle)
        self._watches.lose_all(reason)

    def _check_open(self) -> None:
        if self._closed_because is not None:
            raise StoreClosedError(str(self._closed_because))
        if self._is_closing:
            raise StoreClosedError("the store is being closed")

    def _load(self, loaded: Loaded) -> None:
        now = self._loop.time()
        for lease, ttl_s in loaded.leases:
            self._leases.grant(lease, ttl_s, now)
        for entry in loaded.entries.values():
            self._index.put(entry)
            self._leases.attach(entry.lease, entry.key)
        self._set_lease_timer()


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
