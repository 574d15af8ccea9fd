"""The scheduler: follows pods, nodes and services, decides, and binds through the API.

Entry point: `run(client, config)`. Decisions are made one by one in a sync function against the cluster as it is known, counting the
pods whose binding is still on its way; bindings travel in parallel.
"""

import asyncio
import logging
import random
from datetime import UTC, datetime

from controlplane.scheduler.config import SchedulerConfig
from controlplane.scheduler.decide import Binding, Decider, Unschedulable, explain
from controlplane.scheduler.pods import PodFacts, facts_of
from controlplane.scheduler.queue import SchedulingQueue
from controlplane.scheduler.state import ClusterState
from mesh.api.core import Node, Pod, Service
from mesh.api.meta import ObjectReference, condition_of
from mesh.api.resources import NODES, PODS, SERVICES, Json
from mesh.client.errors import ApiError, ConflictError, NotFoundError
from mesh.client.events import EventRecorder
from mesh.client.informer import Change, Informer
from mesh.client.rest import ApiClient, PatchType
from mesh.clock import Clock, SystemClock
from mesh.errors import MeshError
from mesh.net.tasks import spawn

logger = logging.getLogger(__name__)

_DECISIONS_PER_TURN = 64
"""Then other tasks of the process get a turn."""


async def run(client: ApiClient, config: SchedulerConfig | None = None) -> None:
    """Place pods until cancelled. Several schedulers need different scheduler names: there is no leader election here."""
    await Scheduler(client, config or SchedulerConfig()).run()


class Scheduler:
    """One scheduler. All methods are for the loop's thread."""

    def __init__(
        self,
        client: ApiClient,
        config: SchedulerConfig,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._config = config
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._state = ClusterState()
        self._decider = Decider()
        self._queue = SchedulingQueue(config.backoff, config.flush_unschedulable_s, self._rng)
        self._pending: dict[str, PodFacts] = {}
        """Pods without a node, by key."""
        self._binding: set[str] = set()
        """uids of pods whose binding is on its way: they count as placed."""
        self._has_work = asyncio.Event()
        self._free_bindings = asyncio.Semaphore(config.max_bindings)
        self._recorder = EventRecorder(client, config.scheduler_name)
        self._pods: Informer[Pod] = Informer(client, PODS, Pod.of)
        self._nodes: Informer[Node] = Informer(client, NODES, Node.of)
        self._services: Informer[Service] = Informer(client, SERVICES, Service.of)
        self._pods.add_handler(self._on_pod)
        self._nodes.add_handler(self._on_node)
        self._services.add_handler(self._on_service)

    async def run(self) -> None:
        """Follow the cluster and place pods until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in (self._nodes, self._services, self._pods):
                spawn(group, informer.run(), name=f"scheduler-{informer.resource.plural}")
            spawn(group, self._recorder.run(), name="scheduler-events")
            for informer in (self._nodes, self._services, self._pods):
                await informer.wait_synced()
            await self._place_pods(group)

    # -- what changed

    def _on_node(self, change: Change[Node]) -> None:
        if change.new is None:
            self._state.remove_node(change.object.metadata.name)
        elif self._state.put_node(change.new):
            self._wake()

    def _on_service(self, change: Change[Service]) -> None:
        if change.new is None:
            self._state.remove_service(change.object)
        elif change.old is None or change.old.spec.selector != change.new.spec.selector:
            self._state.put_service(change.new)

    def _on_pod(self, change: Change[Pod]) -> None:
        pod = change.new
        if change.old is not None and (pod is None or pod.metadata.uid != change.old.metadata.uid):
            self._forget(change.old)
        if pod is None:
            return
        if pod.is_finished:
            self._forget(pod)
        elif pod.spec.node_name:
            self._on_placed(pod)
        elif pod.metadata.is_terminating:
            self._forget(pod)
        elif pod.spec.scheduler_name == self._config.scheduler_name:
            self._on_waiting(pod, change.old)

    def _forget(self, pod: Pod) -> None:
        uid = pod.metadata.uid or pod.key
        self._binding.discard(uid)
        waiting = self._pending.get(pod.key)
        if waiting is not None and waiting.uid == uid:
            del self._pending[pod.key]
            self._queue.remove(pod.key)
        if self._state.remove_pod(uid):
            self._wake()

    def _on_placed(self, pod: Pod) -> None:
        facts = facts_of(pod)
        self._binding.discard(facts.uid)
        self._pending.pop(facts.key, None)
        self._queue.remove(facts.key)
        known = self._state.placed.get(facts.uid)
        if known is None or known.node_name != pod.spec.node_name or _matters(known.facts.pod, pod):
            self._state.put_pod(facts, pod.spec.node_name)

    def _on_waiting(self, pod: Pod, old: Pod | None) -> None:
        if (pod.metadata.uid or pod.key) in self._binding:
            return
        if old is not None and pod.key in self._pending and not _matters(old, pod):
            return  # Its status changed; trying at once would defeat the back-off.
        self._pending[pod.key] = facts_of(pod)
        self._queue.add(pod.key, pod.spec.priority)
        self._has_work.set()

    def _wake(self) -> None:
        self._queue.wake()
        self._has_work.set()

    # -- decide and bind

    async def _place_pods(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._has_work.clear()
            for _ in range(_DECISIONS_PER_TURN):
                await self._free_bindings.acquire()
                key = self._queue.pop(self._clock.now())
                facts = self._pending.get(key) if key is not None else None
                if facts is None:
                    self._free_bindings.release()
                    break
                spawn(group, self._carry_out(facts, self._decide(facts)), name=f"bind-{facts.key}")
            await self._wait_for_work()

    def _decide(self, facts: PodFacts) -> Binding | Unschedulable:
        """Decide, and count the pod as placed at once, so that the next decision sees it."""
        outcome = self._decider.decide(facts, self._state, self._rng)
        if isinstance(outcome, Binding):
            self._binding.add(facts.uid)
            self._state.put_pod(facts, outcome.node_name)
        else:
            self._queue.park(facts.key, self._clock.now())
        return outcome

    async def _wait_for_work(self) -> None:
        due_s = self._queue.next_due_s(self._clock.now())
        if due_s == 0.0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(due_s):
                await self._has_work.wait()
        except TimeoutError:
            return

    async def _carry_out(self, facts: PodFacts, outcome: Binding | Unschedulable) -> None:
        try:
            if isinstance(outcome, Binding):
                await self._bind(facts, outcome.node_name)
            else:
                await self._report(facts, outcome)
        finally:
            self._free_bindings.release()

    async def _bind(self, facts: PodFacts, node_name: str) -> None:
        meta = facts.pod.metadata
        try:
            await self._client.create(
                PODS, _binding_of(facts, node_name), meta.namespace, subresource="binding", name=meta.name
            )
        except MeshError as exc:
            self._unbind(facts, exc)
            return
        if self._is_pending(facts):
            del self._pending[facts.key]
            self._queue.remove(facts.key)
        message = f"Successfully assigned {facts.key} to {node_name}"
        self._recorder.event(_reference(facts), "Normal", "Scheduled", message)

    def _is_pending(self, facts: PodFacts) -> bool:
        """This very pod still waits; not a new one of the same name."""
        waiting = self._pending.get(facts.key)
        return waiting is not None and waiting.uid == facts.uid

    def _unbind(self, facts: PodFacts, error: MeshError) -> None:
        """Take the room back and try again. A conflict means that the pod changed: the watch tells what it is now."""
        fields = {"pod": facts.key, "error": str(error)}
        if isinstance(error, ConflictError | NotFoundError):
            logger.debug("pod changed before it was bound", extra=fields)
        else:
            logger.warning("binding failed, trying again", extra=fields)
        if facts.uid not in self._binding:
            return  # The watch was faster: the pod is gone, or bound by someone else.
        self._binding.discard(facts.uid)
        self._state.remove_pod(facts.uid)
        if self._is_pending(facts):
            self._queue.retry(facts.key, self._clock.now())
        self._wake()

    async def _report(self, facts: PodFacts, outcome: Unschedulable) -> None:
        message = explain(outcome, max_named=self._config.max_named_nodes)
        self._recorder.event(_reference(facts), "Warning", "FailedScheduling", message)
        latest = self._pods.get(facts.pod.metadata.namespace, facts.pod.metadata.name)
        known = condition_of(latest.status.conditions, "PodScheduled") if latest is not None else None
        if known is not None and known.status == "False" and known.message == message:
            return
        try:
            await self._client.patch(
                PODS,
                facts.pod.metadata.name,
                self._condition_patch(message),
                facts.pod.metadata.namespace,
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
        except NotFoundError:
            return
        except ApiError as exc:
            logger.warning("pod condition not written", extra={"pod": facts.key, "error": str(exc)})

    def _condition_patch(self, message: str) -> Json:
        now = datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return {"status": {"conditions": [{**condition, "lastTransitionTime": now}]}}


def _matters(old: Pod, new: Pod) -> bool:
    """The change is one that placement depends on."""
    return old.spec != new.spec or old.metadata.labels != new.metadata.labels


def _reference(facts: PodFacts) -> ObjectReference:
    meta = facts.pod.metadata
    return ObjectReference(api_version="v1", kind="Pod", namespace=meta.namespace, name=meta.name, uid=meta.uid)


def _binding_of(facts: PodFacts, node_name: str) -> Json:
    meta = facts.pod.metadata
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
    }
