"""Two workers as one sidecar: shared listeners, one page, one configuration, and a worker that dies."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from mesh.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from sidecar.config import Snapshot
from sidecar.server import DataPlane
from sidecar.worker_share import WorkerShare
from sidecar.workers.ports import PortReservations
from tests.component import plane_harness
from tests.component.ads_resources import certificates, endpoints, full_server, http_listener, message, routes
from tests.component.ads_server import AdsServer
from tests.component.plane_harness import origin, run
from tests.component.span_collector import collecting
from tests.component.workers_harness import (
    ROOT,
    Sidecar,
    bootstrap,
    fetch,
    from_file,
    json_log_to_stdout,
    running,
)
from tests.loopback_port import free_port

pytestmark = pytest.mark.component


async def send(sidecar: Sidecar, count: int) -> list[int]:
    """So many requests, one after the other, each over its own connection."""
    return [(await fetch(sidecar.listen))[0] for _ in range(count)]


def test_both_workers_serve_and_their_metrics_are_one(tmp_path: Path) -> None:
    async def work() -> None:
        async with origin() as upstream, from_file(tmp_path, upstream.port) as sidecar:
            assert await send(sidecar, 40) == [200] * 40
            assert upstream.connections == 2  # one worker alone would have used one again and again
            assert await sidecar.metric("istio_requests_total") == 40
            assert await sidecar.metric("istio_request_duration_milliseconds_count") == 40
            assert await sidecar.metric("istio_request_duration_milliseconds_bucket", 'le="+Inf"') == 40
            assert await sidecar.metric("meshwork_sidecar_downstream_connections_total") == 40
            assert await sidecar.metric("envoy_cluster_membership_total") == 1
            assert await sidecar.metric("envoy_cluster_upstream_cx_active") == 2
            assert await sidecar.metric("meshwork_sidecar_worker_up") == 2
            dump = json.loads((await fetch(sidecar.admin, "/config_dump"))[1])
            assert [len(rows) for rows in dump.values() if isinstance(rows, list)] == [1, 1, 1, 1]
            (listed,) = json.loads((await fetch(sidecar.admin, "/clusters"))[1])
            assert [host["address"] for host in listed["hosts"]] == [f"127.0.0.1:{upstream.port}"]
            # A limit of the whole proxy is divided: two shares of 512.
            assert await sidecar.metric("envoy_cluster_circuit_breakers_default_remaining_rq") == 1024
            (row,) = dump["clusters"]
            assert (row["name"], row["connections"], row["usable"]) == ("origin", 2, 1)

    run(work())


def test_killed_worker_comes_back_and_the_other_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with origin() as upstream, from_file(tmp_path, upstream.port) as sidecar:
            await send(sidecar, 20)
            assert await sidecar.metric("istio_requests_total") == 20
            before = await sidecar.worker_pids()
            os.kill(before[0], signal.SIGKILL)
            await sidecar.until(lambda: _restarted(sidecar))
            assert await send(sidecar, 20) == [200] * 20
            await sidecar.until(sidecar.is_ready)
            after = await sidecar.worker_pids()
            assert after[1] == before[1]
            assert after[0] != before[0]
            assert await sidecar.metric("meshwork_sidecar_worker_restarts_total", 'worker="0"') == 1
            assert await send(sidecar, 20) == [200] * 20
            assert upstream.connections == 3  # the new worker takes its share
            assert await sidecar.metric("istio_requests_total") == 60  # what the dead one counted is not lost
            sidecar.process.send_signal(signal.SIGTERM)
            _, errors = await sidecar.process.communicate()
            (line,) = [json.loads(one) for one in errors.splitlines()]
            assert (line["message"], line["worker"]) == ("a worker ended and is started again", 0)
            assert (line["pid"], line["signal"]) == (before[0], "SIGKILL")

    run(work())


async def _restarted(sidecar: Sidecar) -> bool:
    return await sidecar.metric("meshwork_sidecar_worker_restarts_total") == 1


def test_sigterm_drains_all_workers(tmp_path: Path) -> None:
    async def work() -> None:
        arrived: asyncio.Queue[None] = asyncio.Queue()
        may_answer = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            arrived.put_nowait(None)
            await may_answer.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
            await writer.drain()

        async with (
            origin(script=slow) as upstream,
            from_file(tmp_path, upstream.port) as sidecar,
            asyncio.TaskGroup() as group,
        ):
            requests = [group.create_task(fetch(sidecar.listen)) for _ in range(12)]
            for _ in requests:
                await arrived.get()
            workers = await sidecar.worker_pids()
            sidecar.process.send_signal(signal.SIGTERM)
            await sidecar.until(lambda: _is_not_ready(sidecar))
            may_answer.set()
            assert [await one for one in requests] == [(200, "late")] * 12
            _, errors = await sidecar.process.communicate()
            assert (sidecar.process.returncode, errors) == (0, b"")
            assert not any(Path(f"/proc/{pid}").exists() for pid in workers.values())

    run(work())


async def _is_not_ready(sidecar: Sidecar) -> bool:
    return not await sidecar.is_ready()


def test_hanging_worker_is_left_out_of_the_page_and_named(tmp_path: Path) -> None:
    async def work() -> None:
        async with origin() as upstream, from_file(tmp_path, upstream.port) as sidecar:
            await send(sidecar, 20)
            assert await sidecar.metric("istio_requests_total") == 20
            hanging = (await sidecar.worker_pids())[1]
            os.kill(hanging, signal.SIGSTOP)
            _, page = await fetch(sidecar.admin, "/stats/prometheus")
            os.kill(hanging, signal.SIGCONT)
            assert 'meshwork_sidecar_worker_left_out{worker="1"} 1' in page
            assert 'meshwork_sidecar_worker_left_out{worker="0"} 0' in page
            assert await sidecar.metric("meshwork_sidecar_worker_left_out") == 0
            assert await sidecar.metric("istio_requests_total") == 20

    run(work())


def test_nothing_stays_when_the_keeper_is_killed(tmp_path: Path) -> None:
    async def work() -> None:
        async with origin() as upstream, from_file(tmp_path, upstream.port) as sidecar:
            pids = [(await sidecar.info())["pid"], *(await sidecar.worker_pids()).values()]
            sidecar.process.kill()
            while any(Path(f"/proc/{pid}").exists() and not _is_zombie(pid) for pid in pids):
                await asyncio.sleep(0.02)

    run(work())


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_access_log_lines_of_two_workers_do_not_mix(tmp_path: Path) -> None:
    async def work() -> None:
        tail = "x" * 6000  # longer than what a pipe takes in one piece
        async with (
            origin() as upstream,
            from_file(tmp_path, upstream.port, manager=json_log_to_stdout()) as sidecar,
        ):
            assert sidecar.process.stdout is not None
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(sidecar.process.stdout.read())
                await asyncio.gather(*(_many(sidecar, client, tail) for client in range(16)))
                sidecar.process.send_signal(signal.SIGTERM)
            lines = [json.loads(line) for line in reading.result().splitlines()]
            assert sorted(line["path"] for line in lines) == sorted(
                f"/{client}/{number}/{tail}" for client in range(16) for number in range(8)
            )

    run(work())


async def _many(sidecar: Sidecar, client: int, tail: str) -> None:
    for number in range(8):
        assert (await fetch(sidecar.listen, f"/{client}/{number}/{tail}"))[0] == 200


def test_taken_port_ends_all_with_the_reason(tmp_path: Path) -> None:
    async def work() -> None:
        async with origin() as upstream:
            config = tmp_path / "bootstrap.json"
            config.write_text(json.dumps(bootstrap(upstream.port, free_port(), upstream.port)))
            command = ["-m", "sidecar", "--config", str(config), "--concurrency", "2"]
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, cwd=ROOT, stderr=asyncio.subprocess.PIPE
            )
            _, errors = await process.communicate()
            assert process.returncode == 1
            assert errors.decode().startswith("sidecar: ")
            assert f"cannot bind 127.0.0.1:{upstream.port}" in errors.decode()
            assert "Traceback" not in errors.decode()

    run(work())


def test_every_worker_exports_its_spans(tmp_path: Path) -> None:
    async def work() -> None:
        async with origin() as upstream, collecting() as (collector, collector_port):
            traces = message(
                cluster_pb2.Cluster,
                {"name": "mesh-traces", "type": "STATIC", "load_assignment": {"cluster_name": "mesh-traces"}},
            )
            traces.load_assignment.CopyFrom(endpoints(collector_port))
            server = full_server(upstream.port)
            server.put(CLUSTER, "mesh-traces", traces, "1")
            async with in_mesh(tmp_path, server, sampling=100.0) as sidecar:
                assert await send(sidecar, 30) == [200] * 30
                assert upstream.connections == 2
                spans = [await asyncio.wait_for(collector.spans.get(), 5) for _ in range(30)]
                assert len({span.trace_id for _, span in spans}) == 30  # workers draw different random numbers
                await sidecar.until(lambda: _exported(sidecar, 30))

    run(work(), has_grpc=True)


async def _exported(sidecar: Sidecar, count: int) -> bool:
    return await sidecar.metric("meshwork_sidecar_spans_exported_total") == count


@asynccontextmanager
async def in_mesh(folder: Path, server: AdsServer, *, sampling: float = 0.0) -> AsyncIterator[Sidecar]:
    """A sidecar of two workers that `server` configures, ready."""
    ca_file, pair = certificates(folder)
    token = folder / "token"
    token.write_text("secret\n")
    listen, admin = free_port(), free_port()
    server.put(LISTENER, "l", _listener("l", listen, sampling), "1")
    async with server.serving(pair):
        given = {"discovery_port": server.port, "ca_file": str(ca_file), "token_file": str(token)}
        arguments = json.dumps({**given, "admin": admin, "ready": free_port()})
        async with running(["-m", "tests.component.mesh_workers", arguments], listen, admin) as sidecar:
            await sidecar.until(sidecar.is_ready)
            yield sidecar


def test_push_reaches_both_workers_or_none(tmp_path: Path) -> None:
    async def work() -> None:
        async with origin() as upstream:
            server = full_server(upstream.port)
            async with in_mesh(tmp_path, server) as sidecar:
                assert await send(sidecar, 20) == [200] * 20
                assert upstream.connections == 2
                assert len(server.nodes) == 1  # discovery sees one proxy

                # What only a worker can find out: the address is taken. The routes that come with it stay out too.
                server.put(ROUTE, "r", routes(route=None, direct_response={"status": 418}), "2")
                error = await server.push(LISTENER, "l2", _listener("l2", upstream.port), "1")
                assert f"cannot bind 127.0.0.1:{upstream.port}" in error
                assert await send(sidecar, 20) == [200] * 20

                answer = routes(route=None, direct_response={"status": 204})
                assert await server.push(ROUTE, "r", answer, "3") == ""
                assert await send(sidecar, 20) == [204] * 20  # from the first request after the ACK

                # A worker that comes later has the same configuration from its first request.
                os.kill((await sidecar.worker_pids())[1], signal.SIGKILL)
                await sidecar.until(lambda: _restarted(sidecar))
                await sidecar.until(sidecar.is_ready)
                assert await send(sidecar, 20) == [204] * 20
                dump = json.loads((await fetch(sidecar.admin, "/config_dump"))[1])
                assert dump["xds"]["is_connected"]
                assert dump["routes"][0]["action"] == "answer 204"
                assert await sidecar.metric("meshwork_sidecar_xds_nacks_total") >= 1
                # Endpoints that go leave an empty cluster, also in a worker that comes later.
                assert await server.push(ROUTE, "r", routes(), "4") == ""
                assert await send(sidecar, 20) == [200] * 20
                assert await server.answered(server.send(ENDPOINT, [], ["o"])) == ""
                assert await send(sidecar, 20) == [503] * 20
                await _restart_one(sidecar)
                assert await send(sidecar, 20) == [503] * 20
                sidecar.process.send_signal(signal.SIGTERM)
                await sidecar.process.communicate()
                assert sidecar.process.returncode == 0

    run(work(), has_grpc=True)


async def _restart_one(sidecar: Sidecar) -> None:
    """Kill worker 0 and wait for the next one."""
    pid = (await sidecar.worker_pids())[0]
    os.kill(pid, signal.SIGKILL)
    while (await sidecar.worker_pids()).get(0, pid) == pid:
        await asyncio.sleep(0.02)


def _listener(name: str, port: int, sampling: float = 0.0) -> Any:
    listener = http_listener(sampling)
    listener.name = name
    listener.address.socket_address.port_value = port
    return listener


def test_any_port_is_the_same_for_all_workers() -> None:
    async def work() -> None:
        config = plane_harness.snapshot([plane_harness.cluster("c", 1)], [plane_harness.forward("c")])
        reservations = PortReservations()
        try:
            ports = reservations.ports_of(config)
            async with asyncio.TaskGroup() as tasks:
                planes = [DataPlane(tasks, workers=WorkerShare(count=2)) for _ in range(2)]
                for plane in planes:
                    await plane.commit(plane.prepare(config, ports))
                assert planes[0].address("in") == planes[1].address("in")
                assert planes[0].plane.worker_count == 2
                for plane in planes:
                    plane.close()
        finally:
            reservations.close()

    run(work())


def test_prepared_and_discarded_snapshot_leaves_nothing() -> None:
    async def work() -> None:
        config = plane_harness.snapshot([plane_harness.cluster("c", 1)], [plane_harness.forward("c")])
        async with asyncio.TaskGroup() as tasks:
            plane = DataPlane(tasks)
            prepared = plane.prepare(config)
            (port,) = [sock.getsockname()[1] for sock in prepared.fresh.values()]
            prepared.discard()
            assert plane.plane.snapshot == Snapshot()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            plane.close()

    run(work())
