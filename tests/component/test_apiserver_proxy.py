"""Logs, pod ports and service ports through the server, with a node agent and a service of the test's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from mesh.api.resources import Json
from mesh.identity.tls import ClientCertificate, server_context
from mesh.net.loop import run
from tests.component.apiserver_harness import PODS, SERVICES, Api, api_server, pod

pytestmark = pytest.mark.component


class Agent:
    """Answers like a node agent and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.more = asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peercert") if request.transport else None
        assert peer, "the API server must show its certificate"
        assert "Authorization" not in request.headers
        self.asked.append((request.method, request.rel_url.raw_path_qs, (await request.content.read()).decode()))
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(b"first\n")
        if "follow=true" in request.query_string:
            await self.more.wait()
            await response.write(b"second\n")
        await response.write_eof()
        return response


@asynccontextmanager
async def _agent(api: Api) -> AsyncIterator[tuple[Agent, int]]:
    agent = Agent()
    tls = server_context(
        api.server.pki.nodes["node-1"], api.server.pki.ca_file, client_certificate=ClientCertificate.REQUIRED
    )
    protocols = web.Server(agent)
    server = await asyncio.get_running_loop().create_server(protocols, "127.0.0.1", 0, ssl=tls)
    try:
        yield agent, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await protocols.shutdown(0.1)


async def _bound_pod(api: Api, port: int, **spec: object) -> None:
    status: Json = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    await api.admin.created("/api/v1/nodes", {"metadata": {"name": "node-1"}, "status": status})
    await api.admin.created(PODS, pod("p", **spec))
    await api.admin("POST", f"{PODS}/p/binding", {"target": {"kind": "Node", "name": "node-1"}})


def test_logs_come_as_they_are_written(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api, _agent(api) as (agent, port):
            await _bound_pod(api, port)
            async with api.admin.session.get(f"{PODS}/p/log?follow=true&tailLines=3&junk=1") as answer:
                assert answer.status == 200
                assert await answer.content.readline() == b"first\n"
                agent.more.set()
                assert await answer.content.readline() == b"second\n"
            assert agent.asked == [("GET", "/containerLogs/default/p/c?follow=true&tailLines=3", "")]

    run(check())


def test_which_containers_log(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api, _agent(api) as (_kubelet, port):
            containers = [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]
            await _bound_pod(api, port, containers=containers)
            unclear = await api.admin("GET", f"{PODS}/p/log")
            assert unclear.status == 400
            assert "[a b]" in unclear.message
            assert (await api.admin("GET", f"{PODS}/p/log?container=c")).status == 400
            assert (await api.admin("GET", f"{PODS}/p/log?container=b")).body == b"first\n"
            await api.admin.created(PODS, pod("waiting"))
            unbound = await api.admin("GET", f"{PODS}/waiting/log")
            assert unbound.status == 400
            assert "host assigned" in unbound.message

    run(check())


def test_an_agent_that_is_not_there_is_503(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            async with _agent(api) as (_agent_server, port):
                pass
            await _bound_pod(api, port)
            answer = await api.admin("GET", f"{PODS}/p/log")
            assert (answer.status, answer.body["reason"]) == (503, "ServiceUnavailable")

    run(check())


def test_pod_ports_go_through_the_node(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api, _agent(api) as (agent, port):
            await _bound_pod(api, port)
            answer = await api.admin("POST", f"{PODS}/p:15000/proxy/a%20b/c?x=1", b"hello")
            assert (answer.status, answer.body) == (200, b"first\n")
            assert agent.asked == [("POST", "/proxy/default/p/15000/a%20b/c?x=1", "hello")]
            async with api.user(api.server.pki.nodes["node-1"]) as node:
                assert (await node("GET", f"{PODS}/p:15000/proxy/")).status == 403

    run(check())


def test_service_ports_go_to_a_ready_endpoint(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            pki = api.server.pki
            agent = Agent()
            tls = server_context(pki.discovery, pki.ca_file, client_certificate=ClientCertificate.REQUIRED)
            protocols = web.Server(agent)
            server = await asyncio.get_running_loop().create_server(protocols, "127.0.0.1", 0, ssl=tls)
            port = server.sockets[0].getsockname()[1]
            root = "/api/v1/namespaces/meshwork-system/services"
            ports = [{"name": "https-monitor", "port": 15014}]
            await api.admin.created(root, {"metadata": {"name": "mesh-discovery"}, "spec": {"ports": ports}})
            empty = await api.admin("GET", f"{root}/mesh-discovery:15014/proxy/debug/syncz")
            assert empty.status == 503
            await api.admin.created(
                "/apis/discovery.k8s.io/v1/namespaces/meshwork-system/endpointslices",
                {
                    "metadata": {
                        "name": "mesh-discovery",
                        "labels": {"kubernetes.io/service-name": "mesh-discovery"},
                    },
                    "addressType": "IPv4",
                    "ports": [{"name": "https-monitor", "port": port}],
                    "endpoints": [
                        {"addresses": ["127.0.0.9"], "conditions": {"ready": False}},
                        {"addresses": ["127.0.0.1"], "conditions": {"ready": True}},
                    ],
                },
            )
            answer = await api.admin("GET", f"{root}/mesh-discovery:https-monitor/proxy/debug/syncz")
            assert answer.body == b"first\n"
            assert agent.asked == [("GET", "/debug/syncz", "")]
            assert (await api.admin("GET", f"{SERVICES}/kubernetes:nope/proxy/")).status == 400
            server.close()
            await protocols.shutdown(0.1)

    run(check())
