"""A cluster for tests of the controllers: the real store and API server, all controllers, and a kubelet of a few lines."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from controlplane.apiserver.config import ApiServerConfig
from controlplane.apiserver.server import running
from controlplane.controllers import run as controllers
from controlplane.controllers.config import ControllersConfig
from controlplane.store.sqlite import open_sqlite_store
from mesh.api.pod import Pod
from mesh.api.resources import DEPLOYMENTS, LEASES, NODES, PODS, Json, Resource
from mesh.client.errors import ApiError, NotFoundError
from mesh.client.informer import Change, Informer
from mesh.client.rest import ApiClient, ClientConfig
from mesh.client.work_queue import WorkQueue
from mesh.identity.pki import KeyPair
from mesh.net.tasks import spawn

WAIT_S = 20.0


def now_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class FakeKubelet:
    """Binds pods to its nodes in turn, says they are ready, and confirms their end. Nodes in `dead` do nothing."""

    client: ApiClient
    nodes: tuple[str, ...]
    dead: set[str] = field(default_factory=set)
    is_ready: Callable[[Pod], bool] = lambda pod: True
    seen_available: list[int] = field(default_factory=list)
    _turn: int = 0

    async def run(self) -> None:
        queue: WorkQueue[tuple[str, str]] = WorkQueue()
        informer = Informer(self.client, PODS, Pod.of)

        def on_change(change: Change[Pod]) -> None:
            queue.add((change.object.metadata.namespace, change.object.metadata.name))
            self.seen_available.append(sum(pod.is_ready and not pod.metadata.is_terminating for pod in informer.all()))

        informer.add_handler(on_change)
        self.pods = informer
        async with asyncio.TaskGroup() as group:
            spawn(group, informer.run(), name="fake-kubelet-pods")
            for name in self.nodes:
                spawn(group, self._beat(name), name=f"fake-kubelet-{name}")
            while True:
                key = await queue.get()
                with contextlib.suppress(ApiError):
                    await self._sync(informer.get(*key))
                queue.done(key)

    async def _beat(self, name: str) -> None:
        while True:
            with contextlib.suppress(ApiError):
                if name not in self.dead:
                    patch = {"spec": {"renewTime": now_text()}}
                    await self.client.patch(LEASES, name, patch, "kube-node-lease")
            await asyncio.sleep(0.2)

    async def _sync(self, pod: Pod | None) -> None:
        if pod is None or pod.spec.node_name in self.dead:
            return
        meta = pod.metadata
        if not pod.spec.node_name:
            alive = [name for name in self.nodes if name not in self.dead]
            self._turn += 1
            target = {"kind": "Node", "name": alive[self._turn % len(alive)]}
            body = {"metadata": {"name": meta.name}, "target": target}
            await self.client.create(PODS, body, meta.namespace, subresource="binding", name=meta.name)
        elif meta.is_terminating:
            await self.client.delete(PODS, meta.name, meta.namespace, grace_period_s=0)
        elif self.is_ready(pod) != pod.is_ready or not pod.status.pod_ip:
            await self._report(pod)

    async def _report(self, pod: Pod) -> None:
        digits = int(pod.metadata.uid.replace("-", "")[:6], 16)
        ready = "True" if self.is_ready(pod) else "False"
        condition = {"type": "Ready", "status": ready, "lastTransitionTime": now_text()}
        address = f"10.{digits >> 16}.{digits >> 8 & 255}.{digits & 255}"
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]}
        meta = pod.metadata
        await self.client.patch(PODS, meta.name, {"status": status}, meta.namespace, subresource="status")

    async def poke(self) -> None:
        """Look at every pod again (after `is_ready` changed)."""
        for pod in self.pods.all():
            with contextlib.suppress(ApiError):
                await self._sync(pod)


@dataclass
class Cluster:
    """What tests use."""

    client: ApiClient
    kubelet: FakeKubelet
    admin: KeyPair

    async def until(self, claim: Callable[[], object], *, within_s: float = WAIT_S) -> None:
        """Wait until `claim()` (about the kubelet's cache) holds."""
        async with asyncio.timeout(within_s):
            while not claim():
                await asyncio.sleep(0.02)

    async def until_object(
        self, resource: Resource, name: str, namespace: str | None, claim: Callable[[Json], object]
    ) -> Json:
        """Wait until the object is there and `claim(object)` holds."""
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(NotFoundError):
                    obj = await self.client.get(resource, name, namespace)
                    if claim(obj):
                        return obj
                await asyncio.sleep(0.03)

    async def until_gone(self, resource: Resource, name: str, namespace: str | None = None) -> None:
        """Wait until the object is not there."""
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    await self.client.get(resource, name, namespace)
                except NotFoundError:
                    return
                await asyncio.sleep(0.03)

    async def until_rolled_out(self, name: str, *, namespace: str = "default", generation: int = 0) -> Json:
        """Wait until the Deployment has every pod of its newest template available."""

        def is_done(obj: Json) -> bool:
            status, wanted = obj.get("status", {}), obj["spec"]["replicas"]
            return bool(
                status.get("observedGeneration", 0) >= max(generation, obj["metadata"]["generation"])
                and status.get("updatedReplicas", 0) == status.get("replicas", 0) == wanted
                and status.get("availableReplicas", 0) == wanted
            )

        return await self.until_object(DEPLOYMENTS, name, namespace, is_done)

    async def until_revision(self, name: str, revision: str) -> None:
        """Wait until the Deployment carries this revision."""
        key = "deployment.kubernetes.io/revision"
        await self.until_object(
            DEPLOYMENTS, name, "default", lambda obj: obj["metadata"].get("annotations", {}).get(key) == revision
        )

    def pods(self, namespace: str = "default") -> list[Pod]:
        """Pods that are neither finished nor on their way out, as the kubelet's cache has them."""
        return [pod for pod in self.kubelet.pods.all(namespace) if not pod.metadata.is_terminating]


async def _add_node(client: ApiClient, name: str) -> None:
    conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]
    await client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    await client.patch(NODES, name, {"status": {"conditions": conditions}}, subresource="status")
    lease = {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"holderIdentity": name}}
    await client.create(LEASES, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease})


@asynccontextmanager
async def controlled_cluster(home: Path, *, nodes: int = 2) -> AsyncIterator[Cluster]:
    """The cluster, for the time of the block."""
    store = await open_sqlite_store(home / "store.db")
    config = ApiServerConfig(home=home, external_server="https://127.0.0.1:1")
    settings = ControllersConfig(
        root_ca_pem="PEM",
        node_grace_s=1.5,
        node_check_interval_s=0.2,
        eviction_after_s=0.5,
        node_quarantine_s=0.5,
        force_delete_after_s=0.5,
    )
    try:
        async with running(config, store) as server:
            pki = server.pki
            client_config = ClientConfig(
                server=server.url,
                ca_file=str(pki.ca_file),
                cert_file=str(pki.admin.cert_file),
                key_file=str(pki.admin.key_file),
            )
            async with ApiClient(client_config) as client, ApiClient(client_config) as own:
                names = tuple(f"node-{number}" for number in range(1, nodes + 1))
                for name in names:
                    await _add_node(client, name)
                kubelet = FakeKubelet(own, names)
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        spawn(group, controllers.run(own, settings), name="controllers"),
                        spawn(group, kubelet.run(), name="fake-kubelet"),
                    ]
                    yield Cluster(client, kubelet, pki.admin)
                    for task in tasks:
                        task.cancel()
    finally:
        await store.close()
