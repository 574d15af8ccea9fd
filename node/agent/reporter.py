"""Writes one pod's status to the API, when it differs from what was written last."""

import asyncio
import logging

from mesh.api.meta import Condition
from mesh.api.resources import PODS, Json
from mesh.backoff import Backoff
from mesh.client.errors import ApiError, NotFoundError
from mesh.client.rest import PatchType
from node.agent.plan import restart_at, wants_restart
from node.agent.pod_view import PodEvents, PodView, WorkerTools
from node.agent.status import pod_status

logger = logging.getLogger(__name__)

_RETRY = Backoff(base_s=0.5, cap_s=30.0, jitter=0.0)


class StatusReporter:
    """The status of one pod. Changes that come together are written as one."""

    def __init__(self, tools: WorkerTools, view: PodView, events: PodEvents) -> None:
        self._tools = tools
        self._view = view
        self._events = events
        self._wake = asyncio.Event()
        self._reported: Json | None = None
        self._known_conditions: tuple[Condition, ...] = ()

    def touch(self) -> None:
        """What is known of the pod may have changed."""
        self._wake.set()

    def seen(self) -> None:
        """The object was read again: write anew what somebody else has overruled."""
        if self._is_overruled():
            self._reported, self._known_conditions = None, ()
        self.touch()

    def _is_overruled(self) -> bool:
        """Somebody called the pod not ready while this node was silent (docs/contracts.md, "Silent nodes"): say again what is so."""
        reported = (self._reported or {}).get("conditions", ())
        said_ready = any(one["type"] == "Ready" and one["status"] == "True" for one in reported)
        return said_ready and not self._view.pod.is_ready

    async def run(self) -> None:
        """Write whenever something may have changed, until cancelled. An API server that is away is waited for."""
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.write()
                failures = 0
            except NotFoundError:
                continue
            except ApiError as exc:
                failures += 1
                logger.info("pod status not written", extra={"pod": self._view.pod.key, "error": str(exc)})
                await asyncio.sleep(_RETRY.ceiling_s(failures))
                self._wake.set()

    async def write(self) -> None:
        """Patch the status when it differs from what was written last. Raises ApiError."""
        if self._view.state.is_gone:
            return
        self._announce_backoff()
        status = pod_status(
            self._view.pod,
            self._view.state,
            self._tools.clock.wall(),
            self._tools.settings,
            host_ip=self._tools.host_ip,
            known=self._known_conditions,
        )
        if status == self._reported:
            return
        meta = self._view.pod.metadata
        patch = {"metadata": {"uid": meta.uid}, "status": status}
        await self._tools.client.patch(
            PODS, meta.name, patch, meta.namespace, patch_type=PatchType.STRATEGIC, subresource="status"
        )
        self._reported = status
        self._known_conditions = tuple(Condition.of(one) for one in status["conditions"])

    def _announce_backoff(self) -> None:
        now = self._tools.clock.wall()
        if self._view.state.terminating_since is not None or self._view.state.final_phase:
            return
        init_names = {c.name for c in self._view.pod.spec.init_containers}
        for container in (*self._view.pod.spec.init_containers, *self._view.pod.spec.containers):
            facts = self._view.state.facts(container.name)
            if facts.last is None or facts.running is not None or now >= restart_at(facts, self._tools.settings):
                continue
            if wants_restart(self._view.pod, container, facts.last.exit_code, is_init=container.name in init_names):
                text = f"Back-off restarting failed container {container.name} in pod {self._view.pod.metadata.name}"
                self._events.event("Warning", "BackOff", text, container)
