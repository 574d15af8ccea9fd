"""ReplicaSet and ReplicationController: keep the wanted number of pods. One core for both kinds."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from controlplane.controllers.caches import BY_OWNER, Caches, Stored, metadata_view
from controlplane.controllers.ownership import Owner, adoption_patch, plan_claim, release_patch
from controlplane.controllers.pods import format_time, is_active
from controlplane.controllers.replicas import ReplicaPlan, ReplicaState, failure_condition, plan, slow_start
from controlplane.controllers.unseen import UnseenWrites
from mesh.api.apps import ReplicaSet
from mesh.api.core import ReplicationController
from mesh.api.pod import Pod
from mesh.api.resources import PODS, Json, Resource
from mesh.api.selectors import NOTHING, Selector, label_map_selector, label_selector_of
from mesh.client.controller import Controller
from mesh.client.errors import ApiError, ConflictError, NotFoundError
from mesh.client.events import EventRecorder
from mesh.client.informer import Change, Informer
from mesh.client.rest import ApiClient
from mesh.clock import Clock, SystemClock
from mesh.net.tasks import spawn

logger = logging.getLogger(__name__)


class ReplicaController:
    """The control loop of one of the two kinds (`informer.resource`)."""

    def __init__(
        self,
        client: ApiClient,
        caches: Caches,
        informer: Informer[Stored[ReplicaSet]] | Informer[Stored[ReplicationController]],
        recorder: EventRecorder,
        *,
        workers: int = 4,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._caches = caches
        self._informer: Informer[Any] = informer
        self._resource: Resource = informer.resource
        self._recorder = recorder
        self._clock: Clock = clock or SystemClock()
        self._unseen = UnseenWrites(self._clock)
        self._controller: Controller[str] = Controller(self._resource.singular, self._reconcile, workers=workers)
        self._informer.add_handler(self._on_set)
        caches.pods.add_handler(self._on_pod)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._controller.run(self._informer.wait_synced, self._caches.pods.wait_synced)

    # -- what to look at

    def _on_set(self, change: Change[Any]) -> None:
        self._controller.queue.add(change.object.view.key)

    def _on_pod(self, change: Change[Pod]) -> None:
        for pod in (change.old, change.new):
            if pod is None:
                continue
            controller = pod.metadata.controller
            if controller is not None:
                if controller.kind == self._resource.kind:
                    key = f"{pod.metadata.namespace}/{controller.name}"
                    self._unseen.observe(key, pod, is_gone=change.new is None)
                    self._controller.queue.add(key)
            elif change.new is not None:
                for key in self._matching(pod):
                    self._controller.queue.add(key)

    def _matching(self, pod: Pod) -> Iterable[str]:
        """Sets that may want to adopt the orphan."""
        for item in self._informer.all(pod.metadata.namespace):
            if selector_of(item.view).matches(pod.metadata.labels):
                yield item.view.key

    # -- what to do

    async def _reconcile(self, key: str) -> float | None:
        namespace, _, name = key.partition("/")
        item = self._informer.get(namespace, name)
        if item is None:
            self._unseen.forget(key)
            return None
        view = item.view
        pods = await self._claim(view)
        decision = plan(self._state(view, pods))
        problem = await self._act(item, decision)
        await self._write_status(view, decision, problem)
        if problem is not None:
            raise problem
        waits = [s for s in (decision.again_after_s, self._unseen.next_expiry_s(key)) if s is not None]
        return min(waits) if waits else None

    def _state(self, view: ReplicaSet | ReplicationController, pods: Sequence[Pod]) -> ReplicaState:
        template = view.spec.template
        return ReplicaState(
            replicas=view.spec.replicas,
            min_ready_s=view.spec.min_ready_seconds,
            template_labels=template.metadata.labels if template is not None else {},
            pods=[pod for pod in pods if not self._unseen.is_deleted(view.key, pod.metadata.uid)],
            pending_creations=self._unseen.pending_creations(view.key),
            siblings=self._siblings(view),
            is_terminating=view.metadata.is_terminating,
            now=self._clock.wall(),
        )

    def _siblings(self, view: ReplicaSet | ReplicationController) -> list[Pod]:
        """Active pods of the other ReplicaSets under the same Deployment."""
        controller = view.metadata.controller
        if controller is None:
            return []
        sets = self._caches.replica_sets.by_index(BY_OWNER, controller.uid)
        others = [item.view.metadata.uid for item in sets if item.view.metadata.uid != view.metadata.uid]
        return [pod for uid in others for pod in self._caches.pods.by_index(BY_OWNER, uid) if is_active(pod)]

    async def _claim(self, view: ReplicaSet | ReplicationController) -> list[Pod]:
        """The pods of this set, after adopting orphans and letting go of those whose labels no longer match."""
        meta = view.metadata
        owned = self._caches.pods.by_index(BY_OWNER, meta.uid)
        orphans = [pod for pod in self._caches.pods.by_index(BY_OWNER, "") if pod.metadata.namespace == meta.namespace]
        owner = self._owner(view)
        claim = plan_claim(
            owner,
            selector_of(view),
            [*owned, *(pod for pod in orphans if is_active(pod))],
            owner_is_terminating=meta.is_terminating,
        )
        pods = list(claim.owned)
        if claim.adopt:
            await self._check_still_there(view)
        for pod in claim.adopt:
            patched = await self._client.patch(
                PODS, pod.metadata.name, adoption_patch(pod.metadata, owner), meta.namespace
            )
            pods.append(Pod.of(patched))
        for pod in claim.release:
            patch = release_patch(pod.metadata, meta.uid)
            await self._client.patch(PODS, pod.metadata.name, patch, meta.namespace)
        return pods

    async def _check_still_there(self, view: ReplicaSet | ReplicationController) -> None:
        """Before adoption: ask the server itself, so that a set deleted a moment ago adopts nothing."""
        fresh = metadata_view(await self._client.get(self._resource, view.metadata.name, view.metadata.namespace))
        if fresh.metadata.uid != view.metadata.uid or fresh.metadata.is_terminating:
            raise ConflictError(f"{view.kind} {view.key} was deleted meanwhile", status=409, reason="Conflict")

    def _owner(self, view: ReplicaSet | ReplicationController) -> Owner:
        return Owner(self._resource.api_version, self._resource.kind, view.metadata.name, view.metadata.uid)

    async def _act(self, item: Stored[Any], decision: ReplicaPlan) -> ApiError | None:
        """Carry the plan out; the first failure is returned, since the status must still be written."""
        if decision.create:
            body = self._pod_of(item)
            for batch in slow_start(decision.create):
                problem = await _together([self._create_pod(item.view, body) for _ in range(batch)])
                if problem is not None:
                    return problem
        for pod in decision.delete:
            self._unseen.deleted(item.view.key, pod.metadata.uid)
        return await _together([self._delete_pod(item.view, pod) for pod in decision.delete])

    async def _create_pod(self, view: ReplicaSet | ReplicationController, body: Json) -> ApiError | None:
        namespace = view.metadata.namespace
        try:
            created = Pod.of(await self._client.create(PODS, body, namespace))
        except ApiError as exc:
            self._recorder.event(view, "Warning", "FailedCreate", f"Error creating: {exc.message}")
            return exc
        if self._caches.pods.get(namespace, created.metadata.name) is None:
            self._unseen.created(view.key, created.metadata.uid)
        self._recorder.event(view, "Normal", "SuccessfulCreate", f"Created pod: {created.metadata.name}")
        return None

    async def _delete_pod(self, view: ReplicaSet | ReplicationController, pod: Pod) -> ApiError | None:
        meta = pod.metadata
        try:
            await self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid)
        except NotFoundError:
            return None
        except ApiError as exc:
            self._unseen.take_back_deletion(view.key, meta.uid)
            self._recorder.event(view, "Warning", "FailedDelete", f"Error deleting: {exc.message}")
            return exc
        self._recorder.event(view, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name}")
        return None

    def _pod_of(self, item: Stored[Any]) -> Json:
        template = item.json["spec"]["template"]
        meta = template.get("metadata") or {}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": f"{item.view.metadata.name}-",
                "labels": meta.get("labels") or {},
                "annotations": meta.get("annotations") or {},
                "finalizers": meta.get("finalizers") or [],
                "ownerReferences": [self._owner(item.view).reference()],
            },
            "spec": template["spec"],
        }

    async def _write_status(
        self, view: ReplicaSet | ReplicationController, decision: ReplicaPlan, problem: ApiError | None
    ) -> None:
        message = problem.message if problem is not None and decision.create else ""
        conditions = failure_condition(view.status.conditions, message, format_time(self._clock.wall()))
        wanted: Json = {
            **decision.status,
            "observedGeneration": view.metadata.generation,
            "conditions": conditions or None,
        }
        before = view.status
        if (
            decision.status
            == {
                "replicas": before.replicas,
                "fullyLabeledReplicas": before.fully_labeled_replicas,
                "readyReplicas": before.ready_replicas,
                "availableReplicas": before.available_replicas,
            }
            and before.observed_generation == view.metadata.generation
            and [c["type"] for c in conditions] == [c.type for c in before.conditions]
        ):
            return
        meta = view.metadata
        await self._client.patch(self._resource, meta.name, {"status": wanted}, meta.namespace, subresource="status")


async def _together(writes: Sequence[Coroutine[Any, Any, ApiError | None]]) -> ApiError | None:
    """Run the writes side by side (the client bounds how many are under way); the first failure, after all have ended."""
    async with asyncio.TaskGroup() as group:
        tasks = [spawn(group, write, name=f"write-{number}") for number, write in enumerate(writes)]
    return next((task.result() for task in tasks if task.result() is not None), None)


def selector_of(view: ReplicaSet | ReplicationController) -> Selector:
    """What the set selects. An empty selector of a ReplicaSet selects nothing here: it would adopt a whole namespace."""
    if isinstance(view, ReplicaSet):
        selector = label_selector_of(view.spec.selector)
        return NOTHING if selector.is_empty else selector
    return label_map_selector(view.spec.selector)
