"""Discovery on the real API server, for one test, and the objects of a small mesh."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.discovery.config import DiscoveryConfig, MeshSettings
from controlplane.discovery.service import Discovery
from mesh.api.resources import (
    DESTINATION_RULES,
    ENDPOINT_SLICES,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    VIRTUAL_SERVICES,
    Json,
    Resource,
)
from mesh.client.config import ClientConfig
from mesh.client.rest import ApiClient
from mesh.net.tasks import cancel_and_wait, spawn
from tests.component.apiserver_harness import Api, api_server

NAMESPACE = "shop"


@dataclass(slots=True)
class Mesh:
    """A running control plane without nodes: the test makes pods and endpoints."""

    api: Api
    client: ApiClient
    discovery: Discovery
    ca_file: Path

    async def create(self, resource: Resource, name: str, body: Json, **metadata: Any) -> Json:
        meta: Json = {"name": name, **metadata}
        namespace = NAMESPACE if resource.is_namespaced else None
        if namespace:
            meta["namespace"] = namespace
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, **body}
        return await self.client.create(resource, obj, namespace)

    async def service(self, name: str, *ports: Json) -> None:
        spec = {"selector": {"app": name}, "ports": list(ports) or [{"name": "http", "port": 80, "targetPort": 8080}]}
        await self.create(SERVICES, name, {"spec": spec})

    async def pod(self, name: str, app: str, **labels: str) -> None:
        containers = [{"name": "app", "image": "host", "ports": [{"containerPort": 8080}]}]
        await self.create(PODS, name, {"spec": {"containers": containers}}, labels={"app": app, **labels})

    async def endpoints(self, service: str, *located: tuple[str, int, str]) -> None:
        """(address, port, pod) of every ready endpoint; one slice per port number."""
        for port in sorted({port for _, port, _ in located}):
            ready = {"ready": True, "serving": True, "terminating": False}
            members = [
                {
                    "addresses": [address],
                    "conditions": ready,
                    "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": pod},
                }
                for address, number, pod in located
                if number == port
            ]
            body = {
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                "endpoints": members,
            }
            labels = {"kubernetes.io/service-name": service}
            await self.create(ENDPOINT_SLICES, f"{service}-{port}", body, labels=labels)

    async def split(self, v1: int, v2: int, **more: Any) -> Json:
        """A VirtualService for `web` over its two subsets; created or replaced."""
        branches = [
            {"destination": {"host": "web", "subset": subset}, "weight": weight}
            for subset, weight in (("v1", v1), ("v2", v2))
        ]
        spec = {"hosts": ["web"], "http": [{"name": "split", "route": branches, **more}]}
        found = await self.client.list(VIRTUAL_SERVICES, NAMESPACE)
        if found["items"]:
            return await self.client.patch(VIRTUAL_SERVICES, "web", {"spec": spec}, NAMESPACE)
        return await self.create(VIRTUAL_SERVICES, "web", {"spec": spec})

    async def subsets(self) -> None:
        spec = {
            "host": "web",
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}],
        }
        await self.create(DESTINATION_RULES, "web", {"spec": spec})

    async def token(self, pod: str = "") -> str:
        """A token of the namespace's default account, bound to `pod` unless it is empty."""
        spec: Json = {"audiences": ["meshwork"], "expirationSeconds": 3600}
        if pod:
            found = await self.client.get(PODS, pod, NAMESPACE)
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": found["metadata"]["uid"]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self.client.create(SERVICE_ACCOUNTS, body, NAMESPACE, subresource="token", name="default")
        return str(answer["status"]["token"])

    async def condition(self, type_: str, resource: Resource = VIRTUAL_SERVICES, name: str = "web") -> Json:
        """The condition of this type once it is about the object's present generation."""

        async def current() -> Json | None:
            obj = await self.client.get(resource, name, NAMESPACE)
            for condition in (obj.get("status") or {}).get("conditions", ()):
                if condition["type"] == type_ and condition.get("observedGeneration") == obj["metadata"]["generation"]:
                    return dict(condition)
            return None

        found: Json = await eventually(current)
        return found


async def eventually(probe: Callable[[], Awaitable[Any]], timeout_s: float = 5.0) -> Any:
    """The first true answer of `probe`."""
    async with asyncio.timeout(timeout_s):
        while not (found := await probe()):
            await asyncio.sleep(0.005)
        return found


@asynccontextmanager
async def running_mesh(home: Path, **settings: Any) -> AsyncIterator[Mesh]:
    """API server and discovery on loopback; `settings` are fields of DiscoveryConfig."""
    async with api_server(home, cluster_address="127.0.0.1", api_addresses=("127.0.0.1:0",)) as api:
        pki = api.server.pki
        pair = pki.control_plane
        config = ClientConfig(
            server=api.server.url, ca_file=str(pki.ca_file), cert_file=str(pair.cert_file), key_file=str(pair.key_file)
        )
        async with ApiClient(config) as client:
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            await client.create(SERVICE_ACCOUNTS, account, NAMESPACE)
            discovery = Discovery(client, discovery_config(api, **settings))
            async with asyncio.TaskGroup() as group:
                task = spawn(group, discovery.run(), name="discovery")
                await asyncio.wait_for(discovery.is_serving.wait(), 10)
                yield Mesh(api, client, discovery, pki.ca_file)
                await cancel_and_wait(task)


def discovery_config(api: Api, **settings: Any) -> DiscoveryConfig:
    """Free ports on loopback."""
    pki = api.server.pki
    values: dict[str, Any] = {
        "cluster_address": "127.0.0.1",
        "ads_port": 0,
        "monitor_port": 0,
        "ca_file": str(pki.ca_file),
        "cert_file": str(pki.discovery.cert_file),
        "key_file": str(pki.discovery.key_file),
        "mesh": MeshSettings(traces_address="127.0.0.1", access_log_path=""),
    }
    return DiscoveryConfig(**{**values, **settings})
