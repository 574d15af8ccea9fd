"""What every namespace has from the start: the service account `default` and the cluster's CA certificate."""

import logging

from controlplane.controllers.caches import Caches
from mesh.api.core import Namespace
from mesh.api.meta import ObjectMeta
from mesh.api.resources import CONFIG_MAPS, SERVICE_ACCOUNTS
from mesh.client.controller import Controller
from mesh.client.errors import AlreadyExistsError, ForbiddenError, NotFoundError
from mesh.client.informer import Change
from mesh.client.rest import ApiClient

logger = logging.getLogger(__name__)

ROOT_CA = "kube-root-ca.crt"
_KEY = "ca.crt"


class NamespaceContents:
    """The control loop. A key is a namespace's name."""

    def __init__(self, client: ApiClient, caches: Caches, *, root_ca_pem: str, workers: int = 2) -> None:
        self._client = client
        self._caches = caches
        self._root_ca_pem = root_ca_pem
        self._controller: Controller[str] = Controller("service-accounts", self._reconcile, workers=workers)
        caches.namespaces.add_handler(self._on_namespace)
        caches.service_accounts.add_handler(lambda change: self._on_content(change.object.metadata, "default"))
        caches.config_maps.add_handler(lambda change: self._on_content(change.object.metadata, ROOT_CA))

    async def run(self) -> None:
        """Work until cancelled."""
        caches = self._caches
        await self._controller.run(
            caches.namespaces.wait_synced, caches.service_accounts.wait_synced, caches.config_maps.wait_synced
        )

    def _on_namespace(self, change: Change[Namespace]) -> None:
        if change.new is not None:
            self._controller.queue.add(change.new.metadata.name)

    def _on_content(self, meta: ObjectMeta, name: str) -> None:
        if meta.name == name:
            self._controller.queue.add(meta.namespace)

    async def _reconcile(self, name: str) -> None:
        namespace = self._caches.namespaces.get("", name)
        if namespace is None or namespace.metadata.is_terminating:
            return
        try:
            await self._ensure_account(name)
            await self._ensure_root_ca(name)
        except AlreadyExistsError:
            return  # the cache will show it
        except (ForbiddenError, NotFoundError):
            fresh = self._caches.namespaces.get("", name)
            if fresh is not None and not fresh.metadata.is_terminating:
                raise

    async def _ensure_account(self, namespace: str) -> None:
        if self._caches.service_accounts.get(namespace, "default") is None:
            body = {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": namespace},
            }
            await self._client.create(SERVICE_ACCOUNTS, body, namespace)

    async def _ensure_root_ca(self, namespace: str) -> None:
        if not self._root_ca_pem:
            return
        existing = self._caches.config_maps.get(namespace, ROOT_CA)
        data = {_KEY: self._root_ca_pem}
        if existing is None:
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": ROOT_CA, "namespace": namespace},
                "data": data,
            }
            await self._client.create(CONFIG_MAPS, body, namespace)
        elif dict(existing.data) != data:
            await self._client.patch(
                CONFIG_MAPS, ROOT_CA, {"data": {**dict.fromkeys(existing.data), **data}}, namespace
            )
