"""Few file descriptors and many clients: the proxy refuses some, reaches its upstreams for the others, and recovers."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from tests.component import plane_harness
from tests.component.plane_harness import client, origin, run, running, until
from tests.component.workers_harness import Sidecar, bootstrap, fetch
from tests.component.workers_harness import running as running_process
from tests.loopback_port import free_port

pytestmark = pytest.mark.component


def test_connections_beyond_the_limit_are_closed_and_counted() -> None:
    async def work() -> None:
        async with origin() as upstream:
            config = plane_harness.snapshot([plane_harness.cluster("c", upstream.port)], [plane_harness.forward("c")])
            async with running(config) as plane:
                plane.plane.max_downstream_connections = 2
                async with client(plane) as one, client(plane) as two:
                    assert (await one.ask()).status == (await two.ask()).status == 200
                    async with client(plane) as three:
                        assert await three.at_eof()
                    assert (await one.ask()).status == 200
                    assert plane.plane.stats.downstream_refused == 1
                await until(lambda: plane.plane.downstream_open == 0)
                async with client(plane) as four:
                    assert (await four.ask()).status == 200

    run(work())


_LIMITED = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
    "from sidecar.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


def _command(folder: Path, listen: int, admin: int, upstream: int, soft: int, hard: int, *options: str) -> list[str]:
    config = folder / "bootstrap.json"
    config.write_text(json.dumps(bootstrap(listen, admin, upstream)))
    return ["-c", _LIMITED.format(soft=soft, hard=hard), "--config", str(config), *options]


async def _open(port: int, count: int) -> list[asyncio.StreamWriter]:
    return [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(count)]


def test_soft_limit_is_raised_and_half_of_it_is_for_clients(tmp_path: Path) -> None:
    async def work() -> None:
        async with origin() as upstream:
            listen, admin = free_port(), free_port()
            command = _command(tmp_path, listen, admin, upstream.port, 128, 264)
            async with running_process(command, listen, admin) as sidecar:
                await sidecar.until(sidecar.is_ready)
                limits = Path(f"/proc/{sidecar.process.pid}/limits").read_text()
                (line,) = [one for one in limits.splitlines() if one.startswith("Max open files")]
                assert line.split()[3:5] == ["264", "264"]
                assert await sidecar.metric("meshwork_sidecar_downstream_connections_limit") == 100
                held = await _open(listen, 130)
                await sidecar.until(lambda: _refused(sidecar, 30))
                kept = [one for one in held if not one.transport.is_closing()]
                for writer in kept[:100]:
                    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await until(lambda: len(upstream.requests) == 100)
                assert await sidecar.metric("istio_requests_total", 'response_code="200"') == 100
                for writer in held:
                    writer.close()
                await sidecar.until(lambda: _none_open(sidecar))
                assert (await fetch(listen))[0] == 200

    run(work())


async def _refused(sidecar: Sidecar, count: int) -> bool:
    return await sidecar.metric("meshwork_sidecar_downstream_connections_refused_total") == count


async def _none_open(sidecar: Sidecar) -> bool:
    return await sidecar.metric("meshwork_sidecar_downstream_connections") == 0


def test_accept_without_descriptors_neither_spins_nor_ends(tmp_path: Path) -> None:
    async def work() -> None:
        async with origin() as upstream:
            listen, admin = free_port(), free_port()
            command = _command(tmp_path, listen, admin, upstream.port, 80, 80, "--max-connections", "1000")
            async with running_process(command, listen, admin) as sidecar:
                await sidecar.until(sidecar.is_ready)
                held = await _open(listen, 150)
                before = _cpu_s(sidecar.process.pid)
                begun = time.monotonic()
                await asyncio.sleep(1.0)
                assert _cpu_s(sidecar.process.pid) - before < 0.5 * (time.monotonic() - begun)
                for writer in held:
                    writer.close()
                await sidecar.until(lambda: _none_open(sidecar))
                assert [(await fetch(listen))[0] for _ in range(5)] == [200] * 5

    run(work())


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
