"""Stops containers as Kubernetes does: hook, SIGTERM, a time of grace, SIGKILL."""

import asyncio
import contextlib
import logging
import signal

import msgspec

from mesh.api.pod import Container, LifecycleHandler
from mesh.net.errors import SpawnerGoneError
from mesh.net.tasks import spawn
from node.agent.commands import ContainerCommands
from node.agent.plan import MINIMUM_GRACE_S
from node.agent.pod_view import ChangingPod, PodEvents, WorkerTools
from node.agent.state import ContainerFacts, container_id

logger = logging.getLogger(__name__)

_SPAWNER_AWAY_S = 0.5


async def wait_exit(ended: asyncio.Event, hurry: asyncio.Event, timeout_s: float) -> None:
    """Wait for `ended`, at most `timeout_s`, and not longer than the minimum grace once `hurry` is set."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(deadline) as limit, asyncio.TaskGroup() as group:
            shorten = spawn(group, _shorten(limit, hurry), name="hurry")
            await ended.wait()
            shorten.cancel()


async def _shorten(limit: asyncio.Timeout, hurry: asyncio.Event) -> None:
    await hurry.wait()
    when = asyncio.get_running_loop().time() + MINIMUM_GRACE_S
    if (current := limit.when()) is not None and current > when:
        limit.reschedule(when)


class ContainerStopper:
    """Stops the containers of one pod."""

    def __init__(self, tools: WorkerTools, view: ChangingPod, events: PodEvents, commands: ContainerCommands) -> None:
        self._tools = tools
        self._view = view
        self._events = events
        self._commands = commands
        self._exits: dict[str, asyncio.Event] = {}
        self.hurry = asyncio.Event()
        """Set when the pod must go now: no run gets more than the minimum grace any more."""

    def ended(self, id_: str) -> None:
        """A run has ended; whoever waits for it goes on."""
        if (waiting := self._exits.get(id_)) is not None:
            waiting.set()

    async def stop(self, container: Container, grace_s: float, why: str) -> None:
        """preStop, SIGTERM, SIGKILL after `grace_s` seconds. Returns when the run has ended, or its spawner is away."""
        name = container.name
        facts = self._view.state.facts(name)
        if facts.running is None:
            return
        id_ = container_id(self._view.pod.metadata.uid, name, facts.attempt)
        ended_event = self._exits.setdefault(id_, asyncio.Event())
        self._events.event(
            "Normal", "Killing", f"Stopping container {name}" + (f": {why}" if "probe" in why else ""), container
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        try:
            if grace_s and container.lifecycle.pre_stop is not None:
                await self._pre_stop(container, container.lifecycle.pre_stop, facts, grace_s)
            if grace_s:
                await self._tools.runtime.signal(id_, signal.SIGTERM, is_forked=facts.is_forked)
                await wait_exit(ended_event, self.hurry, max(MINIMUM_GRACE_S, deadline - loop.time()))
            if not ended_event.is_set():
                await self._tools.runtime.signal(id_, signal.SIGKILL, is_forked=facts.is_forked)
                await ended_event.wait()
        except SpawnerGoneError as exc:
            logger.info("a stop waits for its spawner", extra={"pod": self._view.pod.key, "error": str(exc)})
            await asyncio.sleep(_SPAWNER_AWAY_S)
            current = self._view.state.facts(name)
            if current.running is not None and current.attempt == facts.attempt:
                self._view.set_facts(name, msgspec.structs.replace(current, is_stopping=False))
        finally:
            if ended_event.is_set():
                self._exits.pop(id_, None)

    async def _pre_stop(
        self, container: Container, hook: LifecycleHandler, facts: ContainerFacts, grace_s: float
    ) -> None:
        try:
            async with asyncio.timeout(grace_s):
                problem = await self._commands.run_hook(container, hook, facts, grace_s)
        except TimeoutError:
            problem = f"not finished within {grace_s:g} s"
        if problem:
            self._events.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {problem}", container)
