"""The scheduler against the real API server and store."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.apiserver.config import ApiServerConfig
from controlplane.apiserver.server import running
from controlplane.scheduler.config import SchedulerConfig
from controlplane.scheduler.scheduler import run
from controlplane.store.sqlite import open_sqlite_store
from mesh.api.resources import EVENTS, NODES, PODS, Json, Resource
from mesh.backoff import Backoff
from mesh.client.errors import UnavailableError
from mesh.client.rest import ApiClient, ClientConfig
from mesh.net.tasks import spawn

pytestmark = pytest.mark.component
WAIT_S = 20.0


@dataclass
class Cluster:
    client: ApiClient
    scheduler: asyncio.Task[None]

    async def add_node(self, name: str, **spec: Any) -> None:
        labels = spec.pop("labels", {})
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec}
        await self.client.create(NODES, node)
        amounts = {"cpu": "4", "memory": "8Gi", "pods": "10"}
        status = {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}
        await self.client.patch(NODES, name, {"status": status}, subresource="status")

    async def add_pod(self, name: str, *, cpu: str = "100m", **spec: Any) -> None:
        container = {"name": "app", "image": "host", "resources": {"requests": {"cpu": cpu}}}
        metadata = {"name": name, "namespace": "default", "labels": {"app": "web"}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}
        await self.client.create(PODS, pod)

    async def pod_when(self, name: str, claim: Callable[[Json], object]) -> Json:
        async with asyncio.timeout(WAIT_S):
            while True:
                pod = await self.client.get(PODS, name, "default")
                if claim(pod):
                    return pod
                await asyncio.sleep(0.02)

    async def bound_to(self, name: str) -> str:
        pod = await self.pod_when(name, lambda p: p["spec"].get("nodeName"))
        return str(pod["spec"]["nodeName"])

    async def event_messages(self, pod: str, reason: str) -> list[str]:
        async with asyncio.timeout(WAIT_S):
            while True:
                found = await self.client.list(EVENTS, "default", field_selector=f"involvedObject.name={pod}")
                messages = [str(e["message"]) for e in found["items"] if e["reason"] == reason]
                if messages:
                    return messages
                await asyncio.sleep(0.02)


def _is_unschedulable(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "PodScheduled" and c["status"] == "False" for c in conditions)


class FlakyClient(ApiClient):
    """An API that cannot be reached for the first bindings."""

    def __init__(self, config: ClientConfig, failures: int) -> None:
        super().__init__(config)
        self.failures = failures

    async def create(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str = "",
        name: str = "",
        dry_run: bool = False,
    ) -> Json:
        if subresource == "binding" and self.failures:
            self.failures -= 1
            raise UnavailableError("the API server can't be reached", status=503, reason="ServiceUnavailable")
        return await super().create(resource, obj, namespace, subresource=subresource, name=name, dry_run=dry_run)


@asynccontextmanager
async def _cluster(home: Path, *, failures: int = 0) -> AsyncIterator[Cluster]:
    store = await open_sqlite_store(home / "store.db")
    try:
        async with running(ApiServerConfig(home=home, external_server="https://127.0.0.1:1"), store) as server:
            config = ClientConfig(
                server=server.url,
                ca_file=str(server.pki.ca_file),
                cert_file=str(server.pki.admin.cert_file),
                key_file=str(server.pki.admin.key_file),
            )
            async with ApiClient(config) as client, FlakyClient(config, failures) as own, asyncio.TaskGroup() as group:
                settings = SchedulerConfig(backoff=Backoff(base_s=0.05, cap_s=0.1, jitter=0.0))
                scheduler = spawn(group, run(own, settings), name="scheduler")
                yield Cluster(client, scheduler)
                scheduler.cancel()
    finally:
        await store.close()


def test_pods_are_bound_and_spread_over_nodes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _cluster(tmp_path) as cluster:
            for name in ("node-1", "node-2", "node-3"):
                await cluster.add_node(name)
            for number in range(6):
                await cluster.add_pod(f"web-{number}")
            nodes = [await cluster.bound_to(f"web-{number}") for number in range(6)]
            assert sorted(nodes) == sorted(["node-1", "node-2", "node-3"] * 2)
            events = await cluster.event_messages("web-0", "Scheduled")
            assert events == [f"Successfully assigned default/web-0 to {nodes[0]}"]

    asyncio.run(scenario())


def test_pod_that_fits_nowhere_says_why_for_each_node_and_is_bound_when_room_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _cluster(tmp_path) as cluster:
            await cluster.add_node("node-1", labels={"disk": "hdd"})
            await cluster.add_node("node-2", unschedulable=True)
            await cluster.add_pod("big", cpu="6")
            pod = await cluster.pod_when("big", _is_unschedulable)
            [condition] = [c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled"]
            expected = (
                "0/2 nodes are available: 1 Insufficient cpu (node-1: wants 6, 4 of 4 free), "
                "1 node(s) were unschedulable (node-2)."
            )
            assert (condition["reason"], condition["message"]) == ("Unschedulable", expected)
            assert expected in await cluster.event_messages("big", "FailedScheduling")
            amounts = {"cpu": "8", "memory": "8Gi", "pods": "10"}
            await cluster.client.patch(
                NODES, "node-1", {"status": {"capacity": amounts, "allocatable": amounts}}, subresource="status"
            )
            assert await cluster.bound_to("big") == "node-1"

    asyncio.run(scenario())


def test_deleted_pod_frees_its_room_for_a_waiting_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _cluster(tmp_path) as cluster:
            await cluster.add_node("node-1")
            await cluster.add_pod("first", cpu="3")
            assert await cluster.bound_to("first") == "node-1"
            await cluster.add_pod("second", cpu="2")
            await cluster.pod_when("second", _is_unschedulable)
            await cluster.client.delete(PODS, "first", "default", grace_period_s=0)
            assert await cluster.bound_to("second") == "node-1"

    asyncio.run(scenario())


def test_pod_of_another_scheduler_is_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _cluster(tmp_path) as cluster:
            await cluster.add_node("node-1")
            await cluster.add_pod("foreign", schedulerName="other")
            await cluster.add_pod("own")
            await cluster.bound_to("own")
            assert "nodeName" not in (await cluster.client.get(PODS, "foreign", "default"))["spec"]

    asyncio.run(scenario())


def test_binding_that_failed_is_tried_again_and_holds_no_room_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _cluster(tmp_path, failures=3) as cluster:
            await cluster.add_node("node-1")
            await cluster.add_pod("first", cpu="4")
            assert await cluster.bound_to("first") == "node-1"
            messages = await cluster.event_messages("first", "Scheduled")
            assert messages == ["Successfully assigned default/first to node-1"]

    asyncio.run(scenario())


def test_new_pod_of_the_same_name_is_scheduled_on_its_own_terms(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _cluster(tmp_path) as cluster:
            await cluster.add_node("node-1")
            await cluster.add_pod("web", nodeSelector={"disk": "ssd"})
            await cluster.pod_when("web", _is_unschedulable)
            await cluster.client.delete(PODS, "web", "default", grace_period_s=0)
            await cluster.add_pod("web")
            assert await cluster.bound_to("web") == "node-1"

    asyncio.run(scenario())
