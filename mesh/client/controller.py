"""The worker side of a controller: take keys, reconcile, try again with back-off, log once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from mesh.client.errors import ConflictError, NotFoundError
from mesh.client.work_queue import QueueClosedError, WorkQueue
from mesh.errors import MeshError
from mesh.net.tasks import spawn

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

_WARN_AFTER_FAILURES = 6


class Controller(Generic[K]):
    """Runs `reconcile(key)` for the keys of its queue with a fixed number of workers.

    `reconcile` brings the world of one key to the wanted state and must be safe to repeat. It may return seconds after which the
    key should be looked at again. What it raises is logged and tried again: conflicts and objects that are gone quietly (the
    cache was behind), a bug with its traceback, so that one bad object does not stop the others.
    """

    def __init__(
        self,
        name: str,
        reconcile: Callable[[K], Awaitable[float | None]],
        *,
        workers: int = 2,
        queue: WorkQueue[K] | None = None,
    ) -> None:
        self.name = name
        self.queue: WorkQueue[K] = queue if queue is not None else WorkQueue()
        self._reconcile = reconcile
        self._workers = workers

    async def run(self, *ready: Callable[[], Awaitable[None]]) -> None:
        """Wait for `ready` (`informer.wait_synced` of each cache it reads), then work until the queue is closed or this is cancelled."""
        for condition in ready:
            await condition()
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                spawn(group, self._work(), name=f"{self.name}-{number}")

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueClosedError:
                return
            try:
                await self._handle(key)
            finally:
                self.queue.done(key)

    async def _handle(self, key: K) -> None:
        try:
            again_after_s = await self._reconcile(key)
        except Exception as exc:
            self._note_failure(key, exc)
            self.queue.add_rate_limited(key)
            return
        self.queue.forget(key)
        if again_after_s is not None:
            self.queue.add_after(key, again_after_s)

    def _note_failure(self, key: K, error: Exception) -> None:
        failures = self.queue.failures(key) + 1
        fields = {"controller": self.name, "key": str(key), "failures": failures, "error": str(error)}
        if not isinstance(error, MeshError):
            logger.error("reconcile failed by a bug", extra=fields, exc_info=error)
        elif isinstance(error, ConflictError | NotFoundError) and failures < _WARN_AFTER_FAILURES:
            logger.debug("reconcile met a newer state, trying again", extra=fields)
        else:
            logger.warning("reconcile failed, trying again", extra=fields)
