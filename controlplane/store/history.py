"""The newest transactions in memory, so that watches and reads a little in the past need no disk."""

from collections import deque
from collections.abc import Iterator
from itertools import islice

from controlplane.store.protocol import Event, KeyValue


class History:
    """A window of consecutive revisions, oldest dropped first. Bounded in bytes and in transactions."""

    def __init__(self, limit_bytes: int, limit_revisions: int) -> None:
        self._limit_bytes = limit_bytes
        self._limit_revisions = limit_revisions
        self._bytes = 0
        self._window: deque[tuple[int, tuple[Event, ...]]] = deque()
        self._sizes: deque[int] = deque()

    def covers(self, revision: int) -> bool:
        """Every transaction from `revision` on is here."""
        return bool(self._window) and self._window[0][0] <= revision

    def append(self, revision: int, events: tuple[Event, ...], size: int) -> None:
        """Add the next transaction. `size`: bytes that its new versions take; the old ones are those of earlier ones."""
        self._window.append((revision, events))
        self._sizes.append(size)
        self._bytes += size
        while len(self._window) > self._limit_revisions or (self._bytes > self._limit_bytes and len(self._window) > 1):
            self._window.popleft()
            self._bytes -= self._sizes.popleft()

    def since(self, revision: int, limit: int) -> list[tuple[int, tuple[Event, ...]]]:
        """Up to `limit` transactions from `revision` on, in order. Call only when `covers(revision)`."""
        start = revision - self._window[0][0]
        return list(islice(self._window, start, start + limit))

    def before(self, revision: int, start: bytes, end: bytes) -> dict[bytes, KeyValue | None]:
        """For each key of [start, end) changed after `revision`: what it was at `revision`."""
        earlier: dict[bytes, KeyValue | None] = {}
        for event in self._events_after(revision):
            key = event.kv.key
            if start <= key < end and key not in earlier:
                earlier[key] = event.previous
        return earlier

    def _events_after(self, revision: int) -> Iterator[Event]:
        for _, events in islice(self._window, max(revision + 1 - self._window[0][0], 0), None):
            yield from events
