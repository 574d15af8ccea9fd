"""The control process's end of a worker's channel: questions with a time limit."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Final, cast

from sidecar.workers.errors import FrameError, WorkerLostError
from sidecar.workers.messages import (
    Commit,
    Discard,
    Done,
    Drain,
    FrameReader,
    Prepare,
    Scrape,
    Show,
    Stage,
    answer,
    frame,
)

logger: Final = logging.getLogger(__name__)

SCRAPE_TIMEOUT_S: Final = 2.0
APPLY_TIMEOUT_S: Final = 20.0
"""A worker that takes longer to make a configuration ready is as good as dead."""


class WorkerLink(asyncio.Protocol):
    """One worker, from its start to its end."""

    def __init__(self, index: int, pid: int, on_lost: "Callable[[WorkerLink], None]") -> None:
        self.index = index
        self.pid = pid
        self.is_lost = False
        self._on_lost = on_lost
        self._transport: asyncio.WriteTransport = cast(asyncio.WriteTransport, None)
        self._frames = FrameReader()
        self._serials = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Done]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                done = answer(body)
                waiting = self._waiting.pop(done.serial, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(done)
        except FrameError as exc:
            logger.error("a worker's answer can't be read", extra={"worker": self.index, "error": str(exc)})
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(WorkerLostError(f"worker {self.index} (pid {self.pid}) has ended"))
        self._waiting.clear()
        self._on_lost(self)

    def close(self) -> None:
        """Give the worker up; it notices."""
        self._transport.abort()

    def stage(self, message: Stage) -> None:
        """Hand resources over."""
        self._transport.write(frame(message))

    async def prepare(self, ports: dict[str, int]) -> str:
        """Why not, or nothing. Raises WorkerLostError, as the others do."""
        return (await self._ask(lambda serial: Prepare(serial, ports), APPLY_TIMEOUT_S)).error

    async def commit(self) -> None:
        done = await self._ask(Commit, APPLY_TIMEOUT_S)
        if done.error:
            raise WorkerLostError(f"worker {self.index} (pid {self.pid}) prepared but did not commit: {done.error}")

    async def discard(self) -> None:
        await self._ask(Discard, APPLY_TIMEOUT_S)

    async def scrape(self) -> bytes:
        return (await self._ask(Scrape, SCRAPE_TIMEOUT_S)).body

    async def show(self, path: str) -> Done:
        return await self._ask(lambda serial: Show(serial, path), SCRAPE_TIMEOUT_S)

    async def drain(self, timeout_s: float) -> None:
        await self._ask(lambda serial: Drain(serial, timeout_s), timeout_s + 5.0)

    async def _ask(
        self, make: Callable[[int], Prepare | Commit | Discard | Scrape | Show | Drain], timeout_s: float
    ) -> Done:
        who = f"worker {self.index} (pid {self.pid})"
        if self.is_lost:
            raise WorkerLostError(f"{who} has ended")
        serial = next(self._serials)
        waiting: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._waiting[serial] = waiting
        self._transport.write(frame(make(serial)))
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError as exc:
            raise WorkerLostError(f"{who} did not answer within {timeout_s:g} s") from exc
        finally:
            self._waiting.pop(serial, None)
