"""Shows the past to watchers that start behind, until they are live."""

import asyncio
from typing import Final

from controlplane.store.errors import CompactedError, StoreClosedError
from controlplane.store.history import History
from controlplane.store.protocol import Event
from controlplane.store.reader import Reader
from controlplane.store.reads import Position
from controlplane.store.watches import Watcher, Watches

_REPLAY_REVISIONS: Final = 1000
"""Revisions a watch that is behind is shown before the loop gets its turn."""


class Replay:
    """Catches watchers up: from memory where it reaches back far enough, else from the file."""

    def __init__(self, position: Position, watches: Watches, history: History, reader: Reader) -> None:
        self._loop = asyncio.get_running_loop()
        self._position = position
        self._watches = watches
        self._history = history
        self._reader = reader

    def start(self, watcher: Watcher) -> None:
        """Show `watcher` what it asked for, from the next turn of the loop on."""
        if watcher.next_revision > self._position.revision:
            self._watches.add(watcher)
        else:
            self._watches.add_behind(watcher)
            self._loop.call_soon(self._catch_up, watcher)

    def _catch_up(self, watcher: Watcher) -> None:
        """Show a part of the past; from the newest revision on the watcher is live."""
        if not watcher.is_live:
            return
        if watcher.next_revision <= self._position.compacted:
            watcher.lose(CompactedError(watcher.next_revision, self._position.compacted))
        elif watcher.next_revision > self._position.revision:
            self._watches.add(watcher)
        elif self._history.covers(watcher.next_revision):
            self._replay_memory(watcher)
        else:
            self._replay_disk(watcher)

    def _replay_memory(self, watcher: Watcher) -> None:
        last = watcher.next_revision
        for revision, events in self._history.since(watcher.next_revision, _REPLAY_REVISIONS):
            wanted = [event for event in events if watcher.start <= event.kv.key < watcher.end]
            if wanted:
                watcher.show(revision, wanted)
            last = revision
        self._go_on(watcher, last)

    def _replay_disk(self, watcher: Watcher) -> None:
        last = min(watcher.next_revision + _REPLAY_REVISIONS - 1, self._position.revision)

        def show(done: asyncio.Future[list[tuple[int, list[Event]]]]) -> None:
            if done.cancelled() or not watcher.is_live:
                return
            error = done.exception()
            if error is not None:
                watcher.lose(StoreClosedError(f"the store's file can't be read: {error}"))
            elif watcher.next_revision <= self._position.compacted:
                watcher.lose(CompactedError(watcher.next_revision, self._position.compacted))
            else:
                for revision, events in done.result():
                    watcher.show(revision, events)
                self._go_on(watcher, last)

        self._reader.events(watcher.next_revision, last, watcher.start, watcher.end).add_done_callback(show)

    def _go_on(self, watcher: Watcher, shown_to: int) -> None:
        watcher.next_revision = max(watcher.next_revision, shown_to + 1)
        if watcher.next_revision > self._position.revision:
            self._catch_up(watcher)  # joins the live ones now: nothing can come between
        else:
            self._loop.call_soon(self._catch_up, watcher)
