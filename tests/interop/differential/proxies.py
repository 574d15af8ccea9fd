"""Starts a proxy from the file and runs the corpus through it."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.interop.differential.bootstrap import LISTENERS, bootstrap
from tests.interop.differential.case import Case, Observed
from tests.interop.differential.observe import observe
from tests.interop.differential.upstream import running_upstream

ROOT = Path(__file__).resolve().parents[3]


def envoy_command(config: Path) -> list[str]:
    binary = next((ROOT / ".envoy").glob("lib/python3*/site-packages/envoy/_bin/envoy"))
    return [str(binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def sidecar_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "sidecar", "--config", str(config)]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextlib.asynccontextmanager
async def _running(command: list[str], port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    try:
        async with asyncio.timeout(30):
            while not await _is_up(port):
                if process.returncode is not None:
                    raise ChildProcessError(f"{command[0]} ended with code {process.returncode}")
                await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _is_up(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def run_both(corpus: Sequence[Case], where: Path) -> tuple[list[Observed], list[Observed]]:
    """The corpus through Envoy, then through our sidecar, from one file in front of one upstream."""
    *numbers, admin = free_ports(len(LISTENERS) + 1)
    ports = dict(zip(LISTENERS, numbers, strict=True))
    results: list[list[Observed]] = []
    async with running_upstream() as upstream:
        config = where / "bootstrap.yaml"
        config.write_text(bootstrap(ports, upstream.port, admin))
        for command in (envoy_command(config), sidecar_command(config)):
            async with _running(command, ports["plain"]):
                results.append([await observe(one, ports[one.listener], upstream) for one in corpus])
    return results[0], results[1]
