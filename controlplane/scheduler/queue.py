"""Pods waiting for a node: active, backing off, or parked until something changes. Pure: time is an argument.

Source: kube-scheduler's scheduling queue. Bounded by the number of pods without a node.
"""

import heapq
import random
from dataclasses import dataclass, field

from mesh.backoff import Backoff


@dataclass(slots=True)
class _Entry:
    priority: int
    order: int
    """Of arrival: first come, first served within a priority."""
    attempts: int = 0
    ready_at: float = 0.0
    """Not tried again before this. Monotonic seconds."""
    turn: int = 0
    """Grows with every move between the states, so that what a heap still holds of an earlier one is known as stale."""


@dataclass(slots=True)
class SchedulingQueue:
    """Keys are pods (namespace/name). Of the active ones, the highest priority comes first, then the oldest.

    A popped pod is in flight: it comes back by `park` or `retry`, and leaves by `remove`.
    """

    backoff: Backoff
    flush_after_s: float
    rng: random.Random
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _active: list[tuple[int, int, int, str]] = field(default_factory=list)
    """(-priority, order, turn, key)."""
    _waiting: list[tuple[float, int, int, str]] = field(default_factory=list)
    """(due, order, turn, key)."""
    _parked: set[str] = field(default_factory=set)
    _counter: int = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def add(self, key: str, priority: int) -> None:
        """A new pod, or one whose spec changed: it is tried at once, its back-off forgotten."""
        self._counter += 1
        entry = _Entry(priority, self._counter)
        self._entries[key] = entry
        self._parked.discard(key)
        self._activate(key, entry)

    def remove(self, key: str) -> None:
        """The pod is bound or gone."""
        self._entries.pop(key, None)
        self._parked.discard(key)

    def pop(self, now: float) -> str | None:
        """The next pod to try, or None when none is due."""
        self._release(now)
        while self._active:
            _, order, turn, key = heapq.heappop(self._active)
            entry = self._current(key, order, turn)
            if entry is not None:
                entry.attempts += 1
                entry.turn += 1
                return key
        return None

    def park(self, key: str, now: float) -> None:
        """The pod fits nowhere: it waits for `wake`, or for `flush_after_s`, and in any case for its back-off."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.ready_at = now + self._delay_s(entry)
            self._parked.add(key)
            self._wait(key, entry, now + self.flush_after_s)

    def retry(self, key: str, now: float) -> None:
        """Binding failed: the pod is tried again after its back-off."""
        entry = self._entries.get(key)
        if entry is not None:
            self._parked.discard(key)
            self._wait(key, entry, now + self._delay_s(entry))

    def wake(self) -> None:
        """The cluster changed so that parked pods may fit: each is tried when its back-off is over."""
        for key in self._parked:
            entry = self._entries[key]
            self._wait(key, entry, entry.ready_at)
        self._parked.clear()

    def next_due_s(self, now: float) -> float | None:
        """Seconds until `pop` is worth a call (0: now); None when nothing waits."""
        if self._active:
            return 0.0
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None

    def _delay_s(self, entry: _Entry) -> float:
        return self.backoff.delay_s(max(entry.attempts, 1), self.rng)

    def _current(self, key: str, order: int, turn: int) -> _Entry | None:
        entry = self._entries.get(key)
        return entry if entry is not None and (entry.order, entry.turn) == (order, turn) else None

    def _activate(self, key: str, entry: _Entry) -> None:
        entry.turn += 1
        heapq.heappush(self._active, (-entry.priority, entry.order, entry.turn, key))

    def _wait(self, key: str, entry: _Entry, due: float) -> None:
        entry.turn += 1
        heapq.heappush(self._waiting, (due, entry.order, entry.turn, key))

    def _release(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            _, order, turn, key = heapq.heappop(self._waiting)
            entry = self._current(key, order, turn)
            if entry is not None:
                self._parked.discard(key)
                self._activate(key, entry)
