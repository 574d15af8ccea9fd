"""When a worker that has ended is started again. Pure: the caller brings the time."""

import random
from dataclasses import dataclass
from typing import Final

from mesh.backoff import Backoff

BACKOFF: Final = Backoff(base_s=0.1, cap_s=5.0, factor=2.0, jitter=0.5)
STABLE_AFTER_S: Final = 10.0
"""A worker that lived this long was a good one: the next end starts the back-off anew."""


@dataclass(slots=True)
class _Slot:
    pid: int | None = None
    started_at: float = 0.0
    attempt: int = 0
    due_at: float | None = 0.0


class RestartPlan:
    """One slot per worker; at first all are due."""

    def __init__(self, count: int, rng: random.Random) -> None:
        self._slots = [_Slot() for _ in range(count)]
        self._rng = rng

    def due(self, now: float) -> list[int]:
        """Workers to start now."""
        return [index for index, slot in enumerate(self._slots) if slot.due_at is not None and slot.due_at <= now]

    def next_due(self) -> float | None:
        """When the next one is due; None: all live."""
        return min((slot.due_at for slot in self._slots if slot.due_at is not None), default=None)

    def on_started(self, index: int, pid: int, now: float) -> None:
        """The worker lives."""
        slot = self._slots[index]
        slot.pid, slot.started_at, slot.due_at = pid, now, None

    def on_ended(self, pid: int, now: float) -> tuple[int, float] | None:
        """A process has ended: the worker's index and in how many seconds it is due; None: it is no worker of ours."""
        found = [one for one in enumerate(self._slots) if one[1].pid == pid]
        if not found:
            return None
        index, slot = found[0]
        return index, self._postpone(slot, now, now - slot.started_at)

    def on_not_started(self, index: int, now: float) -> float:
        """The system would not let us fork: in how many seconds it is due."""
        return self._postpone(self._slots[index], now, 0.0)

    def _postpone(self, slot: _Slot, now: float, lived_s: float) -> float:
        slot.pid = None
        slot.attempt = 1 if lived_s > STABLE_AFTER_S else slot.attempt + 1
        delay_s = BACKOFF.delay_s(slot.attempt, self._rng)
        slot.due_at = now + delay_s
        return delay_s

    def pid_of(self, index: int) -> int | None:
        """The worker's process while it lives."""
        return self._slots[index].pid

    @property
    def pids(self) -> list[int]:
        """Every worker that lives."""
        return [slot.pid for slot in self._slots if slot.pid is not None]
