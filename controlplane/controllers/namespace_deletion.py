"""Empties a namespace that is being deleted, of every kind, then lets it go."""

import logging

from controlplane.controllers.caches import Caches
from controlplane.controllers.kinds import served_resources
from mesh.api.core import Namespace
from mesh.api.resources import NAMESPACES, Json, Resource
from mesh.client.controller import Controller
from mesh.client.errors import ApiError, ConflictError, NotFoundError
from mesh.client.informer import Change
from mesh.client.rest import ApiClient

logger = logging.getLogger(__name__)

_FINALIZER = "kubernetes"
_LOOK_AGAIN_S = 0.3


class NamespaceDeletion:
    """The control loop. Pods end gracefully: their namespace stays Terminating until the nodes have confirmed them."""

    def __init__(self, client: ApiClient, caches: Caches, *, workers: int = 2) -> None:
        self._client = client
        self._caches = caches
        self._controller: Controller[str] = Controller("namespace-deletion", self._reconcile, workers=workers)
        caches.namespaces.add_handler(self._on_namespace)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._controller.run(
            self._caches.namespaces.wait_synced, self._caches.custom_resource_definitions.wait_synced
        )

    def _on_namespace(self, change: Change[Namespace]) -> None:
        if change.new is not None and change.new.metadata.is_terminating:
            self._controller.queue.add(change.new.metadata.name)

    async def _reconcile(self, name: str) -> float | None:
        namespace = self._caches.namespaces.get("", name)
        if namespace is None or not namespace.metadata.is_terminating or _FINALIZER not in namespace.spec.finalizers:
            return None
        resources = [
            r for r in served_resources(self._caches.custom_resource_definitions.all()).values() if r.is_namespaced
        ]
        left = {r.plural: count for r in resources if (count := await self._empty(r, name))}
        if left:
            logger.debug("namespace still holds objects", extra={"namespace": name, "left": left})
            return _LOOK_AGAIN_S
        await self._let_go(name)
        return None

    async def _empty(self, resource: Resource, namespace: str) -> int:
        """Ask for the deletion of all objects of a kind; how many there were."""
        try:
            items = (await self._client.list(resource, namespace))["items"]
        except NotFoundError:
            return 0  # the kind was removed meanwhile
        for item in items:
            meta = item["metadata"]
            if meta.get("deletionTimestamp"):
                continue
            try:
                await self._client.delete(
                    resource, meta["name"], namespace, uid=meta.get("uid", ""), propagation="Background"
                )
            except (NotFoundError, ConflictError):
                continue
        return len(items)

    async def _let_go(self, name: str) -> None:
        """Take our finalizer away through the finalize subresource; the server then removes the namespace."""
        try:
            fresh: Json = await self._client.get(NAMESPACES, name)
            kept = [f for f in fresh.get("spec", {}).get("finalizers") or [] if f != _FINALIZER]
            body = {**fresh, "spec": {**fresh.get("spec", {}), "finalizers": kept}}
            await self._client.update(NAMESPACES, body, subresource="finalize")
        except NotFoundError:
            return
        except ApiError:
            logger.info("namespace not finalized yet", extra={"namespace": name})
            raise
        logger.info("namespace removed", extra={"namespace": name})
