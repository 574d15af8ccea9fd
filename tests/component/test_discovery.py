"""Discovery on the real API server: streams, answers, identities, statuses, drains, the monitor."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.discovery.resources import CDS, EDS, LDS, RDS
from mesh.api.resources import DESTINATION_RULES, NODES, PODS, SERVICES, VIRTUAL_SERVICES
from mesh.client.errors import NotFoundError
from mesh.identity.tls import client_context
from mesh.net.tasks import spawn
from tests.component.discovery_harness import NAMESPACE, Mesh, eventually, running_mesh

pytestmark = pytest.mark.component

WEB = "web.shop.svc.cluster.local"
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


class Proxy:
    """A small delta client: keeps what it gets, acknowledges what `judge` finds no fault with."""

    def __init__(self, call: Any, pod: str, versions: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._call = call
        self._pod = pod
        self._first = True
        self.versions: dict[str, dict[str, str]] = {t: dict((versions or {}).get(t, {})) for t in (CDS, EDS, LDS, RDS)}
        self.bodies: dict[str, dict[str, bytes]] = {t: {} for t in (CDS, EDS, LDS, RDS)}
        self.received: list[tuple[str, int]] = []
        self.judge: Callable[[str, str], str] = lambda _type, _name: ""
        self.holds_answers = False
        self.unanswered: list[Any] = []

    async def send(self, type_url: str, **fields: Any) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, **fields)
        if self._first:
            self._first = False
            request.node.id = f"sidecar~127.0.0.1~{self._pod}.{NAMESPACE}~{NAMESPACE}.svc.cluster.local"
            request.node.metadata["NODE_NAME"] = "node-1"
        await self._call.write(request)

    async def start(self) -> None:
        for type_url in (CDS, LDS):
            await self.send(type_url, initial_resource_versions=self.versions[type_url])
        for type_url in (EDS, RDS):
            if known := self.versions[type_url]:
                await self.send(type_url, resource_names_subscribe=sorted(known), initial_resource_versions=known)

    async def receive(self) -> None:
        """Take one response, ask for what it refers to, answer it."""
        response = await asyncio.wait_for(self._call.read(), 5)
        assert response is not grpc.aio.EOF
        type_url = response.type_url
        self.received.append((type_url, len(response.resources)))
        for name in response.removed_resources:
            self.versions[type_url].pop(name, None)
            self.bodies[type_url].pop(name, None)
        fault = ""
        for resource in response.resources:
            fault = fault or self.judge(type_url, resource.name)
            self.versions[type_url][resource.name] = resource.version
            self.bodies[type_url][resource.name] = resource.resource.value
        await self._follow(type_url)
        if self.holds_answers:
            self.unanswered.append((response, fault))
        else:
            await self.answer(response, fault)

    async def answer(self, response: Any, fault: str) -> None:
        request: dict[str, Any] = {"response_nonce": response.nonce}
        if fault:
            request["error_detail"] = {"code": 3, "message": fault}
        await self.send(response.type_url, **request)

    async def _follow(self, type_url: str) -> None:
        if type_url == CDS:
            wanted = {name for name in self.bodies[CDS] if name.startswith("outbound|")} - self.versions[EDS].keys()
            if wanted:
                await self.send(EDS, resource_names_subscribe=sorted(wanted))
        if type_url == LDS and "80" not in self.versions[RDS] and "0.0.0.0_80" in self.bodies[LDS]:
            await self.send(RDS, resource_names_subscribe=["80"])

    def weights(self) -> dict[str, int]:
        """Of the first route to web."""
        config = route_pb2.RouteConfiguration.FromString(self.bodies[RDS].get("80", b""))
        for host in config.virtual_hosts:
            if host.name == f"{WEB}:80":
                clusters = host.routes[0].route.weighted_clusters.clusters
                return {c.name.split("|")[2]: c.weight.value for c in clusters}
        return {}

    def addresses(self, subset: str = "") -> list[str]:
        body = self.bodies[EDS].get(f"outbound|80|{subset}|{WEB}", b"")
        assignment = endpoint_pb2.ClusterLoadAssignment.FromString(body)
        return [
            member.endpoint.address.socket_address.address
            for group in assignment.endpoints
            for member in group.lb_endpoints
        ]

    def nodes(self) -> set[str]:
        """Where the endpoints of web run, as their metadata says."""
        body = self.bodies[EDS].get(f"outbound|80||{WEB}", b"")
        assignment = endpoint_pb2.ClusterLoadAssignment.FromString(body)
        workloads = [m.metadata.filter_metadata["meshwork.dev"] for g in assignment.endpoints for m in g.lb_endpoints]
        return {w.fields["node"].string_value for w in workloads if "node" in w.fields}

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self.receive()


@asynccontextmanager
async def connected(
    mesh: Mesh, pod: str, *, token: str | None = None, versions: Mapping[str, Mapping[str, str]] | None = None
) -> AsyncIterator[Proxy]:
    credentials = grpc.ssl_channel_credentials(mesh.ca_file.read_bytes())
    async with grpc.aio.secure_channel(f"127.0.0.1:{mesh.discovery.ads.port}", credentials) as channel:
        call = channel.stream_stream(
            METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )(metadata=(("authorization", f"Bearer {token or await mesh.token(pod)}"),))
        proxy = Proxy(call, pod, versions)
        try:
            await proxy.start()
            yield proxy
        finally:
            call.cancel()


@asynccontextmanager
async def keeping_up(proxy: Proxy) -> AsyncIterator[None]:
    """The proxy takes and answers whatever comes while the block runs."""

    async def take() -> None:
        while True:
            try:
                await proxy.receive()
            except TimeoutError:
                continue

    async with asyncio.TaskGroup() as group:
        task = spawn(group, take(), name="proxy")
        try:
            yield
        finally:
            task.cancel()


async def web_mesh(mesh: Mesh) -> None:
    """`web` with two versions and a client pod."""
    await mesh.service("web")
    await mesh.pod("web-1", "web", version="v1")
    await mesh.pod("web-2", "web", version="v2")
    await mesh.pod("client", "client")
    await mesh.endpoints("web", ("10.244.1.2", 8080, "web-1"), ("10.244.1.3", 8080, "web-2"))
    await mesh.subsets()


def run(work: Callable[[Mesh], Awaitable[None]], home: Path, **settings: Any) -> None:
    async def whole() -> None:
        async with running_mesh(home, **settings) as mesh:
            await web_mesh(mesh)
            await work(mesh)

    asyncio.run(whole())


def test_a_policy_reaches_the_proxy_and_its_status_follows_the_answers(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        await mesh.split(90, 10)
        async with connected(mesh, "client") as proxy:
            await proxy.until(lambda: proxy.weights() == {"v1": 90, "v2": 10})
            assert proxy.addresses() == ["10.244.1.2", "10.244.1.3"]
            assert proxy.addresses("v2") == ["10.244.1.3"]
            kinds = [kind for kind, _ in proxy.received]
            assert kinds.index(CDS) < kinds.index(EDS) < kinds.index(RDS)
            took: list[float] = []
            async with keeping_up(proxy):
                for weight in range(50, 62):
                    begin = time.perf_counter()
                    await mesh.split(weight, 100 - weight)
                    condition = await mesh.condition("Programmed")
                    took.append(time.perf_counter() - begin)
                    assert condition["status"] == "True", condition
            assert proxy.weights() == {"v1": 61, "v2": 39}
            assert sorted(took)[len(took) // 2] < 0.2, took
            assert (await mesh.condition("Accepted", DESTINATION_RULES))["status"] == "True"

    run(work, tmp_path)


def test_a_bad_policy_changes_nothing_and_says_why(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        await mesh.split(90, 10)
        async with connected(mesh, "client") as proxy:
            await proxy.until(lambda: proxy.weights() == {"v1": 90, "v2": 10})
            gone = {"destination": {"host": "web", "subset": "v9"}}
            spec = {"http": [{"route": [gone]}]}
            await mesh.client.patch(VIRTUAL_SERVICES, "web", {"spec": spec}, NAMESPACE)
            condition = await mesh.condition("Accepted")
            assert (condition["status"], condition["reason"]) == ("False", "Invalid")
            assert (
                'subset "v9" of "web.shop.svc.cluster.local" is not defined: known are v1, v2' in condition["message"]
            )
            assert "Generation 1 stays in force" in condition["message"]
            async with keeping_up(proxy):
                await mesh.split(20, 80)
                assert (await mesh.condition("Programmed"))["status"] == "True"
            assert proxy.weights() == {"v1": 20, "v2": 80}

    run(work, tmp_path)


def test_a_refusal_is_in_the_status_and_the_monitor(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        async with connected(mesh, "client") as proxy:
            await proxy.until(lambda: "80" in proxy.bodies[RDS])
            proxy.judge = lambda type_url, _name: "cannot route" if type_url == RDS else ""
            async with keeping_up(proxy):
                await mesh.split(90, 10)
                condition = await mesh.condition("Programmed")
                assert (condition["status"], condition["reason"]) == ("False", "Refused")
                assert "client.shop: cannot route" in condition["message"]
                types = (await syncz(mesh))["proxies"][0]["types"]
                assert types["RDS"]["error"] == "cannot route"
                assert types["RDS"]["sent"] != types["RDS"]["acked"]
                proxy.judge = lambda _type, _name: ""
                await mesh.split(80, 20)
                assert (await mesh.condition("Programmed"))["status"] == "True"

    run(work, tmp_path)


async def syncz(mesh: Mesh) -> Any:
    return await monitor_get(mesh, "/debug/syncz")


async def monitor_get(mesh: Mesh, path: str) -> Any:
    pki = mesh.api.server.pki
    tls = client_context(pki.ca_file, pki.kubelet_client)
    url = f"https://127.0.0.1:{mesh.discovery.monitor_port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=tls) as answer:
        return await answer.json() if answer.content_type == "application/json" else answer.status


def test_the_monitor_shows_what_a_proxy_should_have(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        async with connected(mesh, "client") as proxy:
            await proxy.until(lambda: "80" in proxy.bodies[RDS])
            dump = await monitor_get(mesh, "/debug/config_dump?proxy=client.shop")
            assert f"outbound|80||{WEB}" in [entry["name"] for entry in dump["CDS"]]
            assert dump["RDS"][0]["version"] == proxy.versions[RDS]["80"]
            assert await monitor_get(mesh, "/debug/config_dump?proxy=nobody.shop") == 404
            (entry,) = (await syncz(mesh))["proxies"]
            assert (entry["pod"], entry["namespace"], entry["node"]) == ("client", "shop", "node-1")
            pki = mesh.api.server.pki
            tls = client_context(pki.ca_file, pki.control_plane)
            url = f"https://127.0.0.1:{mesh.discovery.monitor_port}/debug/syncz"
            async with aiohttp.ClientSession() as session:
                async with session.get(url, ssl=tls) as answer:
                    assert answer.status == 403
                with pytest.raises(aiohttp.ClientError):
                    await session.get(url, ssl=client_context(pki.ca_file))

    run(work, tmp_path)


def test_reconnecting_resends_nothing_that_is_known(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        await mesh.split(90, 10)
        async with connected(mesh, "client") as proxy:
            await proxy.until(lambda: bool(proxy.weights()))
        async with connected(mesh, "client", versions=proxy.versions) as again:
            await eventually(lambda: _is_settled(mesh))
            assert again.received == []
            await mesh.split(10, 90)
            await again.until(lambda: again.weights() == {"v1": 10, "v2": 90})
            assert again.received == [(RDS, 1)]

    run(work, tmp_path)


async def _is_settled(mesh: Mesh) -> bool:
    proxies = list(mesh.discovery.publisher.proxies)
    serial = mesh.discovery.publisher.snapshot.serial
    return len(proxies) == 1 and proxies[0].settled_serial == serial


def test_a_leaving_pod_is_drained_after_the_last_acknowledgement(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        async with connected(mesh, "client") as proxy:
            await proxy.until(lambda: "80" in proxy.bodies[RDS])
            await eventually(lambda: _is_settled(mesh))
            # A pod bound to a node stays until its node has stopped it.
            await bind(mesh, "web-1")
            await proxy.until(lambda: "node-1" in proxy.nodes())  # that push must not be the one that is held
            proxy.holds_answers = True
            await mesh.client.delete(PODS, "web-1", NAMESPACE, grace_period_s=30)
            await proxy.until(lambda: proxy.addresses() == ["10.244.1.3"])
            await asyncio.sleep(0.05)
            assert await drained(mesh, "web-1") is None
            proxy.holds_answers = False
            for response, fault in proxy.unanswered:
                await proxy.answer(response, fault)
            async with keeping_up(proxy):
                condition = await eventually(lambda: drained(mesh, "web-1"))
            assert condition["status"] == "True"

    run(work, tmp_path)


async def bind(mesh: Mesh, pod: str) -> None:
    target = {"target": {"kind": "Node", "name": "node-1"}, "metadata": {"name": pod}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    await mesh.client.create(NODES, node)
    body = {"apiVersion": "v1", "kind": "Binding", **target}
    await mesh.client.create(PODS, body, NAMESPACE, subresource="binding", name=pod)


async def drained(mesh: Mesh, pod: str) -> Any:
    try:
        obj = await mesh.client.get(PODS, pod, NAMESPACE)
    except NotFoundError:
        return None
    conditions = (obj.get("status") or {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == "meshwork.dev/Drained"), None)


@pytest.mark.parametrize(
    ("pod", "bound_to", "words"),
    [
        ("web-1", "client", "is not the pod of the token, client"),
        ("web-1", "", "the token is not bound to it"),
    ],
)
def test_nobody_speaks_for_another_pod(tmp_path: Path, pod: str, bound_to: str, words: str) -> None:
    async def work(mesh: Mesh) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            async with connected(mesh, pod, token=await mesh.token(bound_to)) as proxy:
                await proxy.receive()
        assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert words in (refusal.value.details() or "")

    run(work, tmp_path)


def test_a_bad_token_is_refused(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            async with connected(mesh, "client", token="forged") as proxy:
                await proxy.receive()
        assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED

    run(work, tmp_path)


def test_the_systems_own_services_are_there(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        async def found() -> bool:
            listed = await mesh.client.list(SERVICES, "meshwork-system")
            return {item["metadata"]["name"] for item in listed["items"]} == {"mesh-discovery", "mesh-traces"}

        await eventually(found)

    run(work, tmp_path)
