"""A queue of keys for reconcilers: no key twice, no key with two workers, delays and back-off per key."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from mesh.backoff import Backoff
from mesh.errors import MeshError

K = TypeVar("K", bound=Hashable)

RECONCILE_BACKOFF = Backoff(base_s=0.01, cap_s=60.0, jitter=0.2)
"""Waits of `add_rate_limited`. DEVIATION: client-go starts at 5 ms and ends at 1000 s, without jitter."""


class QueueClosedError(MeshError):
    """The queue was closed and is empty: the worker ends."""


class Timer(Protocol):
    """A call that may still be cancelled."""

    def cancel(self) -> None: ...


class CallLater(Protocol):
    """The part of an event loop that the queue needs."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


class WorkQueue(Generic[K]):
    """Keys waiting to be worked on, in the order of their first `add`.

    A key added while it waits is not queued again; one added while a worker has it is queued once more when that worker calls
    `done`. So its size is bounded by the number of distinct keys. All methods are for the loop's thread.
    """

    def __init__(self, *, backoff: Backoff = RECONCILE_BACKOFF, call_later: CallLater | None = None) -> None:
        self._backoff = backoff
        self._call_later = call_later
        self._rng = random.Random()
        self._waiting: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._timers: dict[K, tuple[float, Timer]] = {}
        self._failures: dict[K, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._is_closed = False

    def __len__(self) -> int:
        """Keys that wait for a worker (not those delayed or being worked on)."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Queue `key` now, unless it waits already. Nothing happens after `close`."""
        if self._is_closed or key in self._dirty:
            return
        self._cancel_timer(key)
        self._dirty.add(key)
        if key not in self._processing:
            self._waiting.append(key)
            self._wake_one()

    def add_after(self, key: K, delay_s: float) -> None:
        """Queue `key` in `delay_s` seconds; when that was asked before, the earlier time counts."""
        if delay_s <= 0:
            self.add(key)
            return
        if self._is_closed or key in self._dirty:
            return
        due = self._now() + delay_s
        if (pending := self._timers.get(key)) is not None:
            if pending[0] <= due:
                return
            pending[1].cancel()
        later = self._call_later or asyncio.get_running_loop().call_later
        self._timers[key] = (due, later(delay_s, lambda: self._fire(key)))

    def add_rate_limited(self, key: K) -> None:
        """Queue `key` after its next back-off; each call makes the next wait longer, until `forget`."""
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        self.add_after(key, self._backoff.delay_s(failures, self._rng))

    def forget(self, key: K) -> None:
        """The key's work succeeded: its back-off starts anew."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Calls of `add_rate_limited` since the last `forget`."""
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """The next key; call `done` with it afterwards. Raises QueueClosedError when closed and empty."""
        while not self._waiting:
            if self._is_closed:
                raise QueueClosedError("the work queue is closed")
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake_one()  # the wake-up was ours: hand it on
                raise
        key = self._waiting.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker is finished with `key`; it is queued again if it was added meanwhile."""
        self._processing.discard(key)
        if key in self._dirty:
            self._waiting.append(key)
            self._wake_one()

    def close(self) -> None:
        """Take no more keys, forget the delayed ones, and end the workers once the queue is empty. Idempotent."""
        self._is_closed = True
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while self._getters:
            self._wake_one()

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: K) -> None:
        if (pending := self._timers.pop(key, None)) is not None:
            pending[1].cancel()

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
