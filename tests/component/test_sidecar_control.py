"""A whole sidecar against a small ADS server: configuration, ACK and NACK, the server's absence, telemetry, the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from envoy.config.cluster.v3 import cluster_pb2

from mesh.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from sidecar.control import Control
from sidecar.environment import Environment, Identity
from sidecar.own_ports import Ports
from tests.component.ads_resources import ORIGIN, certificates, endpoints, full_server, http_listener, message, routes
from tests.component.ads_server import AdsServer
from tests.component.plane_harness import origin, run
from tests.component.span_collector import collecting

pytestmark = pytest.mark.component

_IDENTITY = Identity(pod="web-1", namespace="shop", address="127.0.0.1", workload="web", labels={"app": "web"})


@asynccontextmanager
async def sidecar(folder: Path, ca_file: Path, port: int) -> AsyncIterator[Control]:
    token = folder / "token"
    token.write_text("secret\n")
    loopback = ("127.0.0.1", 0)
    control = Control(
        ports=Ports(admin=loopback, metrics=loopback, ready=loopback),
        own=_IDENTITY.peer(),
        service=_IDENTITY.cluster,
        identity={"id": _IDENTITY.node_id},
    )
    environment = Environment(identity=_IDENTITY, discovery=("127.0.0.1", port), ca_file=ca_file, token_file=token)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(control.run_in_mesh(environment))
        await control.is_started.wait()
        try:
            yield control
        finally:
            control.stop.set()
            await asyncio.wait([running])


async def fetch(port: int, path: str = "/", headers: str = "") -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n{headers}\r\n".encode())
    data = (await reader.read()).decode()
    writer.close()
    return int(data.split(" ", 2)[1]), data.partition("\r\n\r\n")[2]


async def ready(control: Control) -> None:
    while (await fetch(control.bound["ready"], "/healthz/ready"))[0] != 200:
        await asyncio.sleep(0.01)


def proxy_port(control: Control) -> int:
    assert control.plane is not None
    return control.plane.address("l")[1]


def test_ready_once_the_first_complete_configuration_is_in_force(tmp_path: Path) -> None:
    async def work() -> None:
        ca_file, pair = certificates(tmp_path)
        async with origin() as upstream:
            server = full_server(upstream.port)
            held_back = server.resources[ROUTE].pop("r")
            async with server.serving(pair), sidecar(tmp_path, ca_file, server.port) as control:
                while "r" not in server.asked[ROUTE]:
                    await asyncio.sleep(0.01)
                assert server.asked[ENDPOINT] == {"o"}
                status, text = await fetch(control.bound["ready"], "/healthz/ready")
                assert (status, "waiting for the first complete configuration" in text) == (503, True)
                server.resources[ROUTE]["r"] = held_back
                assert await server.answered(server.send(ROUTE, ["r"])) == ""
                await ready(control)
                assert (await fetch(proxy_port(control)))[0] == 200
                assert server.nodes[0].id == "sidecar~127.0.0.1~web-1.shop~shop.svc.cluster.local"
                assert server.nodes[0].metadata["WORKLOAD_NAME"] == "web"
                _, dump = await fetch(control.bound["admin"], "/config_dump")
                sections = msgspec.json.decode(dump)
                assert sections["endpoints"][0]["address"] == f"127.0.0.1:{upstream.port}"
                assert sections["routes"][0]["action"] == ORIGIN
                assert sections["xds"]["held"] == {"CDS": 1, "EDS": 1, "LDS": 1, "RDS": 1}
                _, page = await fetch(control.bound["metrics"], "/stats/prometheus")
                (line,) = [one for one in page.splitlines() if one.startswith("istio_requests_total{")]
                for label in (
                    'reporter="source"',
                    'source_workload="web"',
                    'destination_workload="origin-v1"',
                    'destination_service_name="origin"',
                    'destination_service_namespace="shop"',
                    'response_code="200"',
                ):
                    assert label in line
                assert line.endswith(" 1")

    run(work(), has_grpc=True)


def test_bad_resource_is_nacked_with_its_reason_and_the_last_good_one_serves(tmp_path: Path) -> None:
    async def work() -> None:
        ca_file, pair = certificates(tmp_path)
        async with origin() as upstream:
            server = full_server(upstream.port)
            async with server.serving(pair), sidecar(tmp_path, ca_file, server.port) as control:
                await ready(control)
                bad = routes(match={"safe_regex": {"regex": "("}})
                error = await server.push(ROUTE, "r", bad, "2")
                assert 'RouteConfiguration "r".virtual_hosts[0].routes[0].match.safe_regex.regex' in error
                assert (await fetch(proxy_port(control)))[0] == 200
                answer = routes(route=None, direct_response={"status": 204})
                assert await server.push(ROUTE, "r", answer, "3") == ""
                assert (await fetch(proxy_port(control)))[0] == 204
                taken = http_listener()
                taken.address.socket_address.port_value = upstream.port
                error = await server.push(LISTENER, "l2", listener_named(taken, "l2"), "1")
                assert f"cannot bind 127.0.0.1:{upstream.port}" in error
                assert (await fetch(proxy_port(control)))[0] == 204
                assert control.is_ready

    run(work(), has_grpc=True)


def listener_named(listener: Any, name: str) -> Any:
    listener.name = name
    return listener


def test_control_plane_gone_and_back(tmp_path: Path) -> None:
    async def work() -> None:
        ca_file, pair = certificates(tmp_path)
        async with origin() as one, origin() as two:
            server = full_server(one.port)
            context = server.serving(pair)
            await context.__aenter__()
            async with sidecar(tmp_path, ca_file, server.port) as control:
                await ready(control)
                await context.__aexit__(None, None, None)
                assert (await fetch(proxy_port(control)))[0] == 200  # traffic goes on without it
                server.put(ENDPOINT, "o", endpoints(two.port), "2")
                async with server.serving(pair, server.port):
                    while not two.requests:
                        assert (await fetch(proxy_port(control)))[0] == 200
                        await asyncio.sleep(0.02)
                    again = server.initial[-1]
                    assert again[CLUSTER] == {ORIGIN: "1"}
                    assert again[ENDPOINT] == {"o": "1"}

    run(work(), has_grpc=True)


def test_wrong_token_is_told_and_tried_again(tmp_path: Path) -> None:
    async def work() -> None:
        ca_file, pair = certificates(tmp_path)
        async with origin() as upstream:
            server = full_server(upstream.port)
            server.token = "other"
            async with server.serving(pair), sidecar(tmp_path, ca_file, server.port) as control:
                while "this token is not known" not in (await fetch(control.bound["admin"], "/config_dump"))[1]:
                    await asyncio.sleep(0.02)
                assert not control.is_ready
                server.token = "secret"
                await ready(control)

    run(work(), has_grpc=True)


def test_sampled_request_becomes_a_span_that_continues_its_trace(tmp_path: Path) -> None:
    async def work() -> None:
        ca_file, pair = certificates(tmp_path)
        async with origin() as upstream, collecting() as (collector, collector_port):
            server = full_server(upstream.port)
            traces = message(
                cluster_pb2.Cluster,
                {"name": "mesh-traces", "type": "STATIC", "load_assignment": {"cluster_name": "mesh-traces"}},
            )
            traces.load_assignment.CopyFrom(endpoints(collector_port))
            server.put(CLUSTER, "mesh-traces", traces, "1")
            async with server.serving(pair), sidecar(tmp_path, ca_file, server.port) as control:
                await ready(control)
                parent = f"traceparent: 00-{'a' * 32}-{'b' * 16}-01\r\n"
                assert (await fetch(proxy_port(control), "/path?q=1", parent))[0] == 200
                service, span = await asyncio.wait_for(collector.spans.get(), 5)
                assert service == "web.shop"
                assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("a" * 32, "b" * 16)
                assert f"00-{'a' * 32}-{span.span_id.hex()}-01".encode() in upstream.requests[0]
                attributes = {one.key: one.value for one in span.attributes}
                assert attributes["url.path"].string_value == "/path"
                assert attributes["http.response.status_code"].int_value == 200

    run(work(), has_grpc=True)


def test_drain_finishes_the_request_under_way(tmp_path: Path) -> None:
    async def work() -> None:
        ca_file, pair = certificates(tmp_path)
        arrived, may_answer = asyncio.Event(), asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            arrived.set()
            await may_answer.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
            await writer.drain()

        async with origin(script=slow) as upstream:
            server = full_server(upstream.port)
            async with server.serving(pair), sidecar(tmp_path, ca_file, server.port) as control:
                await ready(control)
                async with asyncio.TaskGroup() as group:
                    request = group.create_task(fetch(proxy_port(control)))
                    await arrived.wait()
                    control.stop.set()
                    while control.is_ready:
                        await asyncio.sleep(0.01)
                    may_answer.set()
                    assert await request == (200, "late")

    run(work(), has_grpc=True)


def test_own_ports_refuse_what_they_do_not_know(tmp_path: Path) -> None:
    async def work() -> None:
        ca_file, pair = certificates(tmp_path)
        server = AdsServer(token="secret")
        async with server.serving(pair), sidecar(tmp_path, ca_file, server.port) as control:
            assert (await fetch(control.bound["admin"], "/nothing"))[0] == 404
            assert (await fetch(control.bound["metrics"], "/config_dump"))[0] == 404
            reader, writer = await asyncio.open_connection("127.0.0.1", control.bound["admin"])
            writer.write(b"POST /clusters HTTP/1.1\r\n\r\n")
            assert b" 405 " in await reader.readline()
            writer.close()

    run(work(), has_grpc=True)
