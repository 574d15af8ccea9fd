"""The workers as one: a configuration is put in force by all of them or by none, and a new worker is brought up to it first.

Two rounds: every worker prepares (decodes, compiles, binds), then every worker commits. What can be wrong with a configuration is found in
the first. A worker that ends or hangs meanwhile does not count: its successor gets the configuration before it listens.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from sidecar.workers.errors import WorkerLostError, WorkerRefusedError
from sidecar.workers.link import WorkerLink
from sidecar.workers.messages import Stage

logger: Final = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A whole configuration, as a worker needs it."""

    stages: Callable[[], Iterable[Stage]] = tuple
    """All resources, for a worker that has none."""
    ports: Mapping[str, int] = field(default_factory=dict)


class WorkerGroup:
    """The workers that live. `kill` is called for one that hangs."""

    def __init__(self, kill: Callable[[WorkerLink], None]) -> None:
        self._kill = kill
        self._turn = asyncio.Lock()
        self._current: Configuration | None = None
        self.links: dict[int, WorkerLink] = {}
        """Those that have the current configuration, by index."""
        self.has_all: Final = asyncio.Condition()

    async def join(self, link: WorkerLink) -> None:
        """Take a new worker in, with the current configuration."""
        async with self._turn:
            if self._current is not None and not await self._bring_up(link, self._current):
                return
            if not link.is_lost:
                self.links[link.index] = link
        async with self.has_all:
            self.has_all.notify_all()

    def leave(self, link: WorkerLink) -> None:
        """A worker has ended."""
        if self.links.get(link.index) is link:
            del self.links[link.index]

    async def wait_for(self, count: int) -> None:
        """Until so many workers are there."""
        async with self.has_all:
            await self.has_all.wait_for(lambda: len(self.links) >= count)

    async def apply(self, change: Iterable[Stage], whole: Configuration) -> None:
        """Put `whole` in force, which `change` makes of the current one. Raises WorkerRefusedError; then nothing has changed."""
        async with self._turn:
            links = list(self.links.values())
            for stage in change:
                for link in links:
                    link.stage(stage)
            ports = dict(whole.ports)
            problems = await self._each(links, lambda link: link.prepare(ports))
            found = next((problem for problem in problems.values() if problem), "")
            if found:
                await self._each(links, lambda link: link.discard())
                raise WorkerRefusedError(found)
            await self._each([link for link in links if link in problems], lambda link: link.commit())
            self._current = whole

    async def scrape(self) -> dict[int, bytes | None]:
        """The metrics page of each worker; None for one that did not answer in time."""
        links = list(self.links.values())
        pages = await self._each(links, lambda link: link.scrape(), is_vital=False)
        return {link.index: pages.get(link) for link in links}

    async def show(self, path: str) -> dict[int, tuple[bytes, str]]:
        """The admin page at `path` of each worker that has it, with its content type."""
        shown = await self._each(list(self.links.values()), lambda link: link.show(path), is_vital=False)
        return {link.index: (done.body, done.content_type) for link, done in shown.items() if not done.error}

    async def drain(self, timeout_s: float) -> None:
        """Let every worker finish and end."""
        await self._each(list(self.links.values()), lambda link: link.drain(timeout_s), is_vital=False)

    async def _bring_up(self, link: WorkerLink, current: Configuration) -> bool:
        try:
            for stage in current.stages():
                link.stage(stage)
            problem = await link.prepare(dict(current.ports))
            if not problem:
                await link.commit()
                return True
        except WorkerLostError as exc:
            problem = str(exc)
        logger.error("a new worker can't take the configuration", extra={"worker": link.index, "error": problem})
        self._kill(link)
        return False

    async def _each(
        self, links: list[WorkerLink], ask: Callable[[WorkerLink], Awaitable[T]], *, is_vital: bool = True
    ) -> dict[WorkerLink, T]:
        """Ask all at once. Those that are lost are missing in the result; when the question was vital they are killed."""
        answers = await asyncio.gather(*(ask(link) for link in links), return_exceptions=True)
        found: dict[WorkerLink, T] = {}
        for link, given in zip(links, answers, strict=True):
            if not isinstance(given, BaseException):
                found[link] = given
            elif not isinstance(given, WorkerLostError):
                raise given
            elif is_vital:
                logger.error("worker lost while the configuration changed", extra={"error": str(given)})
                self.leave(link)
                self._kill(link)
        return found
