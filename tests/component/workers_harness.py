"""A sidecar of several workers as real processes, and questions to its own ports."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.loopback_port import free_port

ROOT = Path(__file__).resolve().parents[2]
_EXTENSIONS = "type.googleapis.com/envoy.extensions."


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap(listen: int, admin: int, upstream: int, **manager: Any) -> dict[str, Any]:
    """One listener, one route to one cluster with one endpoint."""
    http = {
        "@type": f"{_EXTENSIONS}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}],
                }
            ]
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{_EXTENSIONS}filters.http.router.v3.Router"}}],
        **manager,
    }
    cluster = {
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": "origin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
        },
    }
    listener = {
        "name": "in",
        "address": _address(listen),
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": http}]}],
    }
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def json_log_to_stdout() -> dict[str, Any]:
    """An HTTP connection manager's access log."""
    log = {
        "@type": f"{_EXTENSIONS}access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {"json_format": {"path": "%REQ(:PATH)%"}},
    }
    return {"access_log": [{"name": "log", "typed_config": log}]}


async def fetch(port: int, path: str = "/") -> tuple[int, str]:
    """GET over a connection of its own: (status, body)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n".encode())
        data = (await reader.read()).decode()
    finally:
        writer.close()
    return int(data.split(" ", 2)[1]), data.partition("\r\n\r\n")[2]


class Sidecar:
    """A running one."""

    def __init__(self, process: asyncio.subprocess.Process, listen: int, admin: int) -> None:
        self.process = process
        self.listen = listen
        self.admin = admin

    async def info(self) -> dict[str, Any]:
        info: dict[str, Any] = json.loads((await fetch(self.admin, "/server_info"))[1])
        return info

    async def worker_pids(self) -> dict[int, int]:
        return {one["worker"]: one["pid"] for one in (await self.info())["workers"]}

    async def metric(self, name: str, labels: str = "") -> float:
        """The sum of a metric's samples whose labels contain `labels`."""
        _, page = await fetch(self.admin, "/stats/prometheus")
        found = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", page, re.MULTILINE)
        return sum(float(value) for shown, value in found if labels in shown)

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait for it; also while the own ports do not answer yet. The test's own time limit bounds it."""
        while True:
            try:
                if await holds():
                    return
            except (ConnectionError, IndexError):
                assert self.process.returncode is None, "the sidecar has ended"
            await asyncio.sleep(0.02)

    async def is_ready(self) -> bool:
        return (await fetch(self.admin, "/ready"))[0] == 200


@asynccontextmanager
async def running(command: list[str], listen: int, admin: int) -> AsyncIterator[Sidecar]:
    """Start it, wait until its admin port answers, kill it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    sidecar = Sidecar(process, listen, admin)
    try:
        await sidecar.until(lambda: _answers(sidecar))
        yield sidecar
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _answers(sidecar: Sidecar) -> bool:
    return bool(await fetch(sidecar.admin, "/"))


@asynccontextmanager
async def from_file(
    folder: Path, upstream: int, *options: str, manager: dict[str, Any] | None = None, workers: int = 2
) -> AsyncIterator[Sidecar]:
    """A sidecar with a bootstrap file, ready."""
    listen, admin = free_port(), free_port()
    config = folder / "bootstrap.json"
    config.write_text(json.dumps(bootstrap(listen, admin, upstream, **(manager or {}))))
    command = [
        "-m",
        "sidecar",
        "--config",
        str(config),
        "--concurrency",
        str(workers),
        "--log-format",
        "json",
        *options,
    ]
    async with running(command, listen, admin) as sidecar:
        await sidecar.until(sidecar.is_ready)
        yield sidecar
