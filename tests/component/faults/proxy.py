"""`python -m sidecar --config FILE` as a process, seen from outside: its memory, descriptors, counters, access log and complaints."""

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.component.faults.table import FAULTS, OWN_PORT
from tests.component.faults.upstreams import Upstreams
from tests.loopback_port import free_port

ROOT = Path(__file__).resolve().parents[3]
ROUTE_TIMEOUT_S = 1.2
STREAM_IDLE_S = 1.6
HEAD_TIMEOUT_S = 3.0


@dataclass(slots=True)
class Proxy:
    """A running sidecar."""

    pid: int
    port: int
    admin: int
    log: Path
    complaints: list[str] = field(default_factory=list)
    """Everything it said on stderr that is not an ordinary message."""
    peak_kb: int = 0

    def rss_kb(self) -> int:
        """Resident memory now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    async def watch(self) -> None:
        """Note the largest memory seen, until cancelled."""
        while True:
            self.peak_kb = max(self.peak_kb, self.rss_kb())
            await asyncio.sleep(0.05)

    async def stats(self) -> dict[str, float]:
        """`name{labels}` -> value, without histograms."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin)
        writer.write(b"GET /stats/prometheus HTTP/1.1\r\nHost: a\r\n\r\n")
        page = (await reader.read()).partition(b"\r\n\r\n")[2].decode()
        writer.close()
        lines = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines if "_bucket{" not in name}

    async def total(self, name: str) -> float:
        """The sum of a counter over its labels."""
        return sum(value for key, value in (await self.stats()).items() if key.partition("{")[0] == name)

    async def endings(self) -> Counter[tuple[int, str]]:
        """Requests by (status, flags), as the counters have them."""
        found: Counter[tuple[int, str]] = Counter()
        for key, value in (await self.stats()).items():
            if key.startswith("istio_requests_total{"):
                labels = dict(part.split("=", 1) for part in key[:-1].partition("{")[2].split('",'))
                status, flags = (labels[name].strip('"') for name in ("response_code", "response_flags"))
                found[(int(status), flags)] += int(value)
        return found

    async def records(self) -> list[dict[str, Any]]:
        """The access log, once it has been written."""
        await asyncio.sleep(0.6)
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, *ports: int) -> dict[str, Any]:
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": "1s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "3s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}} for port in ports]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _route(prefix: str, cluster: str, **action: Any) -> dict[str, Any]:
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster, "timeout": f"{ROUTE_TIMEOUT_S}s", **action}}


def bootstrap(port: int, admin: int, log: Path, up: Upstreams) -> dict[str, Any]:
    """`/own/FAULT/...` has a cluster of its own, `/shared/...` shares one, `/retried/...` has two endpoints, one of them bad,
    `/long/...` no timeout but the idle one, `/deaf/...` a longer one."""
    ports = {"refused": up.refused_port, "slams": up.slamming_port}
    retries = {"retry_on": "5xx,reset,connect-failure", "num_retries": 5, "per_try_timeout": "0.4s"}
    routes = [_route(f"/own/{name}/", name) for name in FAULTS]
    routes += [_route("/shared/", "shared"), _route("/long/", "long", timeout="0s")]
    routes.append(_route("/deaf/", "long", timeout="0s", idle_timeout="2s"))
    routes.append(_route("/retried/", "retried", timeout="20s", retry_policy=retries))
    clusters = [_cluster(name, ports[name] if name in OWN_PORT else up.port) for name in FAULTS]
    clusters += [_cluster("shared", up.port), _cluster("long", up.port)]
    clusters.append(_cluster("retried", up.port, up.slamming_port, up.refused_port))
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "stream_idle_timeout": f"{STREAM_IDLE_S}s",
        "request_headers_timeout": f"{HEAD_TIMEOUT_S}s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(log),
                    "log_format": {"json_format": {"all": "true"}},
                },
            }
        ],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "in",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "h", "typed_config": manager}]}],
    }
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


@contextlib.asynccontextmanager
async def proxy(directory: Path, up: Upstreams) -> AsyncIterator[Proxy]:
    """A sidecar in front of `up`. Fails when it does not end in good order."""
    port, admin, log = free_port(), free_port(), directory / "access.log"
    config = directory / "proxy.json"
    config.write_text(json.dumps(bootstrap(port, admin, log, up)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "faulthandler", "-m", "sidecar", "--config", str(config), "--log-format", "json"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    made = Proxy(process.pid, port, admin, log)
    async with asyncio.TaskGroup() as tasks:
        assert process.stderr is not None
        listening = tasks.create_task(_listen(process.stderr, made.complaints))
        try:
            await _until_ready(admin)
            watching = tasks.create_task(made.watch())
            try:
                yield made
            finally:
                watching.cancel()
            process.terminate()
            async with asyncio.timeout(10):
                assert await process.wait() == 0
            await listening
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _listen(stderr: asyncio.StreamReader, complaints: list[str]) -> None:
    """An exception that the loop only logs, or that Python cannot raise, shows here."""
    async for line in stderr:
        text = line.decode("utf-8", "replace").strip()
        try:
            level, message = (json.loads(text)[key] for key in ("level", "message"))
        except (ValueError, KeyError):
            complaints.append(text)
            continue
        if level.lower() in ("warning", "error", "critical") and "carry no mark" not in message:
            complaints.append(text)


async def _until_ready(admin: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", admin)
                writer.write(b"GET /ready HTTP/1.1\r\n\r\n")
                answer = await reader.read()
                writer.close()
                if answer.startswith(b"HTTP/1.1 200"):
                    return
            await asyncio.sleep(0.05)
