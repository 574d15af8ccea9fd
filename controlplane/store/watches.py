"""The registered watchers, and who gets which events."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from controlplane.store.protocol import Event, Revision

logger: Final = logging.getLogger(__name__)

OnEvents = Callable[[Revision, Sequence[Event]], None]
OnLost = Callable[[Exception], None]


class Watcher:
    """One registered watch. `next_revision` is the first it has not been shown."""

    __slots__ = ("_on_events", "_on_lost", "_registry", "end", "is_live", "next_revision", "start")

    def __init__(
        self, registry: "Watches", bounds: tuple[bytes, bytes], next_revision: int, on_events: OnEvents, on_lost: OnLost
    ) -> None:
        self.start, self.end = bounds
        self.next_revision = next_revision
        self.is_live = True
        self._registry = registry
        self._on_events = on_events
        self._on_lost = on_lost

    def cancel(self) -> None:
        """Stop; no callback follows."""
        self.is_live = False
        self._registry.remove(self)

    def show(self, revision: int, events: Sequence[Event]) -> None:
        """Deliver one transaction. A callback that raises loses its watch, so that its neighbours go on."""
        if not self.is_live or revision < self.next_revision:
            return
        self.next_revision = revision + 1
        try:
            self._on_events(Revision(revision), events)
        except Exception as exc:
            logger.exception("a watch callback failed; the watch ends", extra={"revision": revision})
            self.lose(exc)

    def lose(self, reason: Exception) -> None:
        """End the watch and say why."""
        if self.is_live:
            self.cancel()
            self._on_lost(reason)


class Watches:
    """Watchers that are up to date, grouped by range: a change is compared with each distinct range once."""

    def __init__(self) -> None:
        self._ranges: dict[tuple[bytes, bytes], dict[Watcher, None]] = {}
        self._behind: set[Watcher] = set()

    def add_behind(self, watcher: Watcher) -> None:
        """A watcher that is still being shown the past."""
        self._behind.add(watcher)

    def add(self, watcher: Watcher) -> None:
        """From the next transaction on, `watcher` is shown what it asked for."""
        self._behind.discard(watcher)
        self._ranges.setdefault((watcher.start, watcher.end), {})[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        """Idempotent."""
        self._behind.discard(watcher)
        bounds = (watcher.start, watcher.end)
        group = self._ranges.get(bounds)
        if group is not None:
            group.pop(watcher, None)
            if not group:
                del self._ranges[bounds]

    def show(self, revision: int, events: Sequence[Event]) -> None:
        """A transaction became durable."""
        for start, end in list(self._ranges):
            wanted = [event for event in events if start <= event.kv.key < end]
            if wanted:
                for watcher in list(self._ranges.get((start, end), ())):
                    watcher.show(revision, wanted)

    def lose_all(self, reason: Exception) -> None:
        """The store is gone."""
        everyone = [watcher for group in self._ranges.values() for watcher in group] + list(self._behind)
        for watcher in everyone:
            watcher.lose(reason)
