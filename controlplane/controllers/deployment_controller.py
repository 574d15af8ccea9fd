"""Deployment: carries out the steps of `deployment.plan` through the API."""

import logging
from collections.abc import Sequence
from typing import assert_never

from controlplane.controllers.caches import BY_OWNER, Caches, Stored
from controlplane.controllers.deployment import ChangeSet, CreateSet, DeleteSet, DeploymentPlan, Step, plan
from controlplane.controllers.deployment_status import same_status
from controlplane.controllers.ownership import Owner, adoption_patch, plan_claim, release_patch
from controlplane.controllers.revisions import REVISION, StoredSet, find_new_set, same_template
from mesh.api.apps import Deployment, ReplicaSet
from mesh.api.pod import Pod
from mesh.api.resources import DEPLOYMENTS, REPLICA_SETS, Json
from mesh.api.selectors import NOTHING, Selector, label_selector_of
from mesh.client.controller import Controller
from mesh.client.errors import AlreadyExistsError, ConflictError, NotFoundError
from mesh.client.events import EventRecorder
from mesh.client.informer import Change
from mesh.client.rest import ApiClient
from mesh.clock import Clock, SystemClock

logger = logging.getLogger(__name__)


class DeploymentController:
    """The control loop. Reads Deployments, ReplicaSets and pods; writes Deployments' status and ReplicaSets."""

    def __init__(
        self,
        client: ApiClient,
        caches: Caches,
        recorder: EventRecorder,
        *,
        workers: int = 4,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._caches = caches
        self._recorder = recorder
        self._clock: Clock = clock or SystemClock()
        self._controller: Controller[str] = Controller("deployment", self._reconcile, workers=workers)
        caches.deployments.add_handler(self._on_deployment)
        caches.replica_sets.add_handler(self._on_set)
        caches.pods.add_handler(self._on_pod)

    async def run(self) -> None:
        """Work until cancelled."""
        caches = self._caches
        await self._controller.run(
            caches.deployments.wait_synced, caches.replica_sets.wait_synced, caches.pods.wait_synced
        )

    # -- what to look at

    def _on_deployment(self, change: Change[Stored[Deployment]]) -> None:
        self._controller.queue.add(change.object.view.key)

    def _on_set(self, change: Change[StoredSet]) -> None:
        for item in (change.old, change.new):
            if item is not None:
                self._queue_owner(item.view)
        if change.new is not None and change.new.view.metadata.controller is None:
            meta = change.new.view.metadata
            for deployment in self._caches.deployments.all(meta.namespace):
                if _selector(deployment.view).matches(meta.labels):
                    self._controller.queue.add(deployment.view.key)

    def _queue_owner(self, view: ReplicaSet) -> None:
        controller = view.metadata.controller
        if controller is not None and controller.kind == "Deployment":
            self._controller.queue.add(f"{view.metadata.namespace}/{controller.name}")

    def _on_pod(self, change: Change[Pod]) -> None:
        """The last pod of an old template is gone: Recreate may go on."""
        if change.new is not None or change.old is None:
            return
        controller = change.old.metadata.controller
        if controller is not None and controller.kind == "ReplicaSet":
            owner = self._caches.replica_sets.get(change.old.metadata.namespace, controller.name)
            if owner is not None:
                self._queue_owner(owner.view)

    # -- what to do

    async def _reconcile(self, key: str) -> float | None:
        namespace, _, name = key.partition("/")
        deployment = self._caches.deployments.get(namespace, name)
        if deployment is None:
            return None
        sets = await self._claim(deployment.view)
        decision = plan(
            deployment, sets, old_pods_running=self._old_pods_running(deployment, sets), now=self._clock.wall()
        )
        for step in decision.steps:
            await self._take(deployment, step)
        await self._write(deployment.view, decision)
        return decision.status.again_after_s

    async def _claim(self, view: Deployment) -> list[StoredSet]:
        meta = view.metadata
        items = [
            *self._caches.replica_sets.by_index(BY_OWNER, meta.uid),
            *(
                s
                for s in self._caches.replica_sets.by_index(BY_OWNER, "")
                if s.view.metadata.namespace == meta.namespace
            ),
        ]
        by_uid = {item.view.metadata.uid: item for item in items}
        owner = Owner(DEPLOYMENTS.api_version, DEPLOYMENTS.kind, meta.name, meta.uid)
        claim = plan_claim(
            owner, _selector(view), [item.view for item in items], owner_is_terminating=meta.is_terminating
        )
        sets = [by_uid[owned.metadata.uid] for owned in claim.owned]
        for adopted in claim.adopt:
            patch = adoption_patch(adopted.metadata, owner)
            patched = await self._client.patch(REPLICA_SETS, adopted.metadata.name, patch, meta.namespace)
            sets.append(Stored(ReplicaSet.of(patched), patched))
        for released in claim.release:
            patch = release_patch(released.metadata, meta.uid)
            await self._client.patch(REPLICA_SETS, released.metadata.name, patch, meta.namespace)
        return sets

    def _old_pods_running(self, deployment: Stored[Deployment], sets: Sequence[StoredSet]) -> bool:
        new = find_new_set(deployment.json["spec"]["template"], sets)
        old = (item for item in sets if item is not new)
        return any(
            not pod.is_finished for item in old for pod in self._caches.pods.by_index(BY_OWNER, item.view.metadata.uid)
        )

    async def _take(self, deployment: Stored[Deployment], step: Step) -> None:
        match step:
            case CreateSet():
                await self._create(deployment, step.obj)
            case ChangeSet():
                await self._change(deployment.view, step)
            case DeleteSet():
                meta = step.target.view.metadata
                try:
                    await self._client.delete(
                        REPLICA_SETS,
                        meta.name,
                        meta.namespace,
                        uid=meta.uid,
                        resource_version=meta.resource_version,
                        propagation="Background",
                    )
                except NotFoundError:
                    return
            case _:
                assert_never(step)

    async def _create(self, deployment: Stored[Deployment], obj: Json) -> None:
        meta = deployment.view.metadata
        name = obj["metadata"]["name"]
        try:
            await self._client.create(REPLICA_SETS, obj, meta.namespace)
        except AlreadyExistsError:
            await self._meet_existing(deployment, obj)
            return
        self._recorder.event(
            deployment.view, "Normal", "ScalingReplicaSet", f"Scaled up replica set {name} to {obj['spec']['replicas']}"
        )

    async def _meet_existing(self, deployment: Stored[Deployment], obj: Json) -> None:
        """The name is taken: by our own set that the cache does not show yet, or by a different one (a hash collision)."""
        meta = deployment.view.metadata
        there = await self._client.get(REPLICA_SETS, obj["metadata"]["name"], meta.namespace)
        controller = ReplicaSet.of(there).metadata.controller
        if (
            controller is not None
            and controller.uid == meta.uid
            and same_template(there["spec"]["template"], obj["spec"]["template"])
        ):
            return
        count = deployment.view.status.collision_count + 1
        patch = {"metadata": {"resourceVersion": meta.resource_version}, "status": {"collisionCount": count}}
        await self._client.patch(DEPLOYMENTS, meta.name, patch, meta.namespace, subresource="status")
        raise ConflictError(
            f"ReplicaSet {meta.namespace}/{obj['metadata']['name']} exists and is another's: trying another name",
            status=409,
            reason="Conflict",
        )

    async def _change(self, view: Deployment, step: ChangeSet) -> None:
        meta = step.target.view.metadata
        patch: Json = {"metadata": {"resourceVersion": meta.resource_version}, "spec": {}}
        if step.annotations:
            patch["metadata"]["annotations"] = dict(step.annotations)
        if step.replicas is not None:
            patch["spec"]["replicas"] = step.replicas
        if step.min_ready_s is not None:
            patch["spec"]["minReadySeconds"] = step.min_ready_s
        await self._client.patch(REPLICA_SETS, meta.name, patch, meta.namespace)
        if step.replicas is not None:
            before = step.target.view.spec.replicas
            direction = "up" if step.replicas > before else "down"
            message = f"Scaled {direction} replica set {meta.name} from {before} to {step.replicas}"
            self._recorder.event(view, "Normal", "ScalingReplicaSet", message)

    async def _write(self, view: Deployment, decision: DeploymentPlan) -> None:
        meta = view.metadata
        if decision.revision is not None:
            patch = {"metadata": {"annotations": {REVISION: str(decision.revision)}}}
            await self._client.patch(DEPLOYMENTS, meta.name, patch, meta.namespace)
        if not same_status(view, decision.status.status):
            patch = {"status": decision.status.status}
            await self._client.patch(DEPLOYMENTS, meta.name, patch, meta.namespace, subresource="status")


def _selector(view: Deployment) -> Selector:
    selector = label_selector_of(view.spec.selector)
    return NOTHING if selector.is_empty else selector
