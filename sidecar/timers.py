"""Deadlines of many connections with almost no work per request.

A connection only stores its next deadline. It has one entry in the wheel, at or before that deadline; when the entry comes
up and the deadline has moved on, the entry is put back. So a busy connection costs one comparison per request, not one timer.
"""

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Protocol

_GRAIN_S = 1.0 / 64
"""Deadlines fire up to this much late."""
_HORIZON_S = 4.0
"""Entries are never further away, so that stale ones don't pile up."""

NEVER = float("inf")


class Deadlined(Protocol):
    """Something with a next deadline."""

    deadline: float
    """Monotonic seconds, or NEVER."""
    wheel_at: float
    """When its entry comes up; NEVER without one. Belongs to the wheel."""

    def on_deadline(self, now: float) -> None:
        """The deadline has passed. May set the next one, else it must be NEVER or the item be closed."""
        ...


class DeadlineWheel:
    """Calls `on_deadline` of what it watches. One timer of the loop, set only while something is watched."""

    __slots__ = ("_due", "_loop", "_now", "_slots", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._now = now
        self._slots: dict[int, list[Deadlined]] = {}
        self._due: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0

    def watch(self, item: Deadlined, now: float) -> None:
        """Make sure that `item` is looked at when its deadline comes. Call it when `item.deadline < item.wheel_at`."""
        slot = int(min(item.deadline, now + _HORIZON_S) / _GRAIN_S) + 1
        item.wheel_at = slot * _GRAIN_S
        entries = self._slots.get(slot)
        if entries is None:
            self._slots[slot] = [item]
            heapq.heappush(self._due, slot)
            self._arm(now)
        else:
            entries.append(item)

    def _arm(self, now: float) -> None:
        slot = self._due[0]
        if self._timer is not None:
            if self._timer_at <= slot:
                return
            self._timer.cancel()
        self._timer_at = slot
        self._timer = self._loop.call_later(max(0.0, slot * _GRAIN_S - now), self._turn)

    def _turn(self) -> None:
        self._timer = None
        self.turn(self._now())

    def turn(self, now: float) -> None:
        """Look at everything whose time has come."""
        # Strictly past: an entry put back while turning is later than `now`, so this ends.
        while self._due and self._due[0] * _GRAIN_S <= now:
            slot = heapq.heappop(self._due)
            for item in self._slots.pop(slot):
                self._look_at(item, slot * _GRAIN_S, now)
        if self._due:
            self._arm(now)

    def _look_at(self, item: Deadlined, at: float, now: float) -> None:
        if item.wheel_at != at:
            return  # a newer, earlier entry stands for it
        item.wheel_at = NEVER
        if item.deadline <= now:
            item.on_deadline(now)
        if item.deadline < item.wheel_at:
            self.watch(item, now)

    def close(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()
        self._due.clear()
