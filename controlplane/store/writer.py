"""The store's writer process: `python -m controlplane.store.writer PATH SOCKET_FD LOCK_FD QUOTA_BYTES`.

A process of its own because a thread would wait for the interpreter lock behind a busy loop (its p50 goes to seconds). It
takes every batch that has arrived and commits them together: while one commit waits for the disk, the next group gathers.
It ends when its socket closes, so it never outlives the store.
"""

import os
import select
import socket
import sqlite3
import sys
import time
from collections.abc import Sequence
from itertools import chain
from typing import Final

import msgspec

from controlplane.store import schema
from controlplane.store.wal import Checkpointer, WalSpace, connect
from controlplane.store.wire import ROW_COLUMNS, Answer, AnswerKind, Batch, Column, FrameBuffer, first_row, frame

_ROWS_PER_INSERT: Final = 128
_GROUP_BYTES: Final = 8 << 20
"""Stop gathering a group at this size, so that one commit stays short."""
_SCRUB_ROWS: Final = 200
_SCRUB_EVERY_S: Final = 0.005
"""While writes wait, compaction takes at most one step in this time."""


class Scrubber:
    """Frees superseded versions in small steps. Follows the log upward: each row names the version it replaced."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._end = first_row(schema.number(db, "compacted") + 1)
        self._position = schema.number(db, "scrubbed")

    @property
    def is_busy(self) -> bool:
        """There is something left to free."""
        return self._position + 1 < self._end

    def compact(self, revision: int) -> None:
        """Allow everything superseded at or before `revision` to go."""
        self._end = max(self._end, first_row(revision + 1))

    def step(self) -> None:
        """One short transaction. It needs no wait for the disk: lost on a crash, it is simply done again."""
        rows = self._db.execute(
            "SELECT id, previous, version FROM log WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
            (self._position, self._end, _SCRUB_ROWS),
        ).fetchall()
        position = rows[-1][0] if len(rows) == _SCRUB_ROWS else self._end - 1
        gone = [(previous,) for _, previous, _ in rows if previous] + [
            (id_,) for id_, _, version in rows if not version
        ]
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM log WHERE id = ?", gone)
        self._db.execute("UPDATE numbers SET value = ? WHERE name = 'scrubbed'", (position,))
        self._db.execute("COMMIT")
        self._db.execute("PRAGMA synchronous = FULL")
        self._position = position


class Writer:
    """Takes batches from the socket, commits them in groups, answers."""

    def __init__(self, path: str, channel: socket.socket, quota_bytes: int) -> None:
        self._channel = channel
        self._frames = FrameBuffer()
        self._decoder = msgspec.msgpack.Decoder(Batch)
        self._encoder = msgspec.msgpack.Encoder()
        self._db = connect(path)
        schema.prepare(self._db)
        self._page_size = int(self._db.execute("PRAGMA page_size").fetchone()[0])
        if quota_bytes:
            self._db.execute(f"PRAGMA max_page_count = {max(quota_bytes // self._page_size, 16)}")
        self._checkpointer = Checkpointer(path)
        self._scrubber = Scrubber(self._db)
        self._space = WalSpace(path)
        self._refused_epoch = -1
        self._taken = 0
        """Bytes of the last group, as they came."""

    def run(self) -> None:
        """Serve until the store closes its end."""
        self._answer(AnswerKind.READY, 0)
        last_step = 0.0
        while True:
            is_busy = self._scrubber.is_busy or self._space.is_short
            waiting = self._has_input(0.0 if is_busy else None)
            if self._scrubber.is_busy and (not waiting or time.monotonic() - last_step > _SCRUB_EVERY_S):
                self._scrub()
                last_step = time.monotonic()
            elif self._space.is_short and not waiting:
                self._space.grow()
            if waiting:
                batches = self._gather()
                if batches is None:
                    return
                self._commit(batches)
                self._checkpointer.finish(self._db)
                self._checkpointer.note(self._taken)

    def close(self) -> None:
        """Fold the log into the file and release it."""
        self._db.close()

    def _has_input(self, timeout_s: float | None) -> bool:
        return bool(select.select([self._channel], [], [], timeout_s)[0])

    def _gather(self) -> list[Batch] | None:
        """At least one batch and all that is already here; None when the store has closed."""
        batches: list[Batch] = []
        self._taken = 0
        while not batches or (self._taken < _GROUP_BYTES and self._has_input(0.0)):
            data = self._channel.recv(1 << 20)
            if not data:
                return batches or None
            self._taken += len(data)
            batches.extend(self._decoder.decode(payload) for payload in self._frames.feed(data))
        return batches

    def _commit(self, batches: Sequence[Batch]) -> None:
        wanted = [batch for batch in batches if batch.epoch > self._refused_epoch]
        if not wanted:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._insert(list(chain.from_iterable(batch.rows for batch in wanted)))
            self._store_numbers(wanted)
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            self._refuse(wanted[-1].epoch, str(exc))
            return
        for batch in wanted:
            self._scrubber.compact(batch.compact)
        self._answer(AnswerKind.ACK, wanted[-1].seq)

    def _refuse(self, epoch: int, reason: str) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._refused_epoch = epoch
        self._answer(AnswerKind.REFUSED, epoch, reason)

    def _insert(self, columns: Sequence[Column]) -> None:
        most = _ROWS_PER_INSERT * ROW_COLUMNS
        for start in range(0, len(columns), most):
            part = columns[start : start + most]
            marks = ",".join(["(?,?,?,?,?,?,?)"] * (len(part) // ROW_COLUMNS))
            self._db.execute(f"INSERT INTO log VALUES {marks}", part)

    def _store_numbers(self, batches: Sequence[Batch]) -> None:
        granted = [lease for batch in batches for lease in batch.granted]
        dropped = [(lease,) for batch in batches for lease in batch.dropped]
        compact = max(batch.compact for batch in batches)
        if granted:
            self._db.executemany("INSERT OR REPLACE INTO leases VALUES (?, ?)", granted)
        if dropped:
            self._db.executemany("DELETE FROM leases WHERE id = ?", dropped)
        if compact:
            self._db.execute("UPDATE numbers SET value = max(value, ?) WHERE name = 'compacted'", (compact,))

    def _scrub(self) -> None:
        try:
            self._scrubber.step()
        except sqlite3.OperationalError as exc:
            # A full disk must not stop the writer from freeing space later; anything else must.
            if exc.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._db.execute("PRAGMA synchronous = FULL")
            time.sleep(0.1)

    def _answer(self, kind: AnswerKind, number: int, text: str = "") -> None:
        self._channel.sendall(frame(self._encoder.encode(Answer(kind=kind, number=number, text=text))))


def _report_fatal(channel: socket.socket, exc: Exception) -> None:
    answer = Answer(kind=AnswerKind.FATAL, number=0, text=f"{type(exc).__name__}: {exc}")
    try:
        channel.sendall(frame(msgspec.msgpack.encode(answer)))
    except OSError:
        print(answer.text, file=sys.stderr)


def main(argv: Sequence[str]) -> int:
    """Serve one store. Exit codes: 0 the store closed, 1 the file or the disk failed."""
    path, socket_fd, _lock_fd, quota_bytes = argv[0], int(argv[1]), int(argv[2]), int(argv[3])
    # The lock descriptor is only held: the file stays locked until this process, too, has ended.
    channel = socket.socket(fileno=socket_fd)
    try:
        writer = Writer(path, channel, quota_bytes)
        writer.run()
        writer.close()
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the store was killed; nobody is left to answer
    except (sqlite3.Error, OSError, ValueError, msgspec.MsgspecError) as exc:
        _report_fatal(channel, exc)
        return 1
    return 0


if __name__ == "__main__":
    # Ctrl-C goes to the whole foreground group; the store decides when its writer ends.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
