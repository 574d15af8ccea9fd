"""SIGTERM to a real sidecar process under load: readiness fails, nobody loses a request, and it ends in bounded time."""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.component.plane_harness import Client, origin, run
from tests.component.test_sidecar_process import bootstrap_document
from tests.loopback_port import free_port

pytestmark = pytest.mark.component

ROOT = Path(__file__).resolve().parents[2]
SLOW_S = 1.0


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(SLOW_S if head.startswith(b"GET /slow") else 0.002)
        writer.write(b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nok")


async def _connect(port: int) -> Client:
    async with asyncio.timeout(20):
        while True:
            try:
                return Client(*await asyncio.open_connection("127.0.0.1", port))
            except OSError:
                await asyncio.sleep(0.02)


async def _ready(admin: int) -> int:
    user = await _connect(admin)
    try:
        return (await user.ask("/ready")).status
    finally:
        user.writer.close()


async def _use(port: int, path: str, statuses: list[int]) -> None:
    """A client that keeps its connection until it is told to close it."""
    user = await _connect(port)
    while True:
        answer = await user.ask(path)
        statuses.append(answer.status)
        if answer.headers.get("connection") == "close":
            user.writer.close()
            return


def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        port, admin = free_port(), free_port()
        async with origin(script=_serve) as up:
            document = bootstrap_document(port, admin)
            endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": up.port}}}}
            assignment = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint]}]}
            document["static_resources"]["clusters"] = [{"name": "c", "type": "STATIC", "load_assignment": assignment}]
            manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
            host = manager["route_config"]["virtual_hosts"][0]
            host["routes"] = [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]
            config = tmp_path / "proxy.json"
            config.write_text(json.dumps(document))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sidecar", "--config", str(config), cwd=ROOT
            )
            try:
                await _drain_under_load(process, port, admin)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    run(body())


async def _drain_under_load(process: asyncio.subprocess.Process, port: int, admin: int) -> None:
    (await _connect(port)).writer.close()
    assert await _ready(admin) == 200
    statuses: list[int] = []
    slow: list[int] = []
    async with asyncio.TaskGroup() as users:
        for _ in range(12):
            users.create_task(_use(port, "/", statuses))
        for _ in range(4):
            users.create_task(_use(port, "/slow", slow))
        while len(statuses) < 200:
            await asyncio.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        while await _ready(admin) == 200:
            await asyncio.sleep(0.005)
    assert set(statuses) == {200} == set(slow)
    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert time.monotonic() - began < 6.0  # the drain itself may take 5 s
