"""One bootstrap file, two proxies: real Envoy and our sidecar both start from it and route alike."""

import asyncio
import collections
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
import yaml

from tests.component.plane_harness import Origin, origin
from tests.loopback_port import free_port

pytestmark = pytest.mark.interop

ROOT = Path(__file__).resolve().parents[2]


def _envoy() -> str:
    return str(next((ROOT / ".envoy").glob("lib/python3*/site-packages/envoy/_bin/envoy")))


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]
    return {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "outlier_detection": {"consecutive_5xx": 50, "base_ejection_time": "5s", "enforcing_success_rate": 0},
        "circuit_breakers": {
            "thresholds": [{"max_connections": 100, "retry_budget": {"budget_percent": {"value": 50}}}]
        },
    }


def _bootstrap(port: int, stable: int, canary: int) -> str:
    retry = {
        "retry_on": "5xx,connect-failure,reset",
        "num_retries": 3,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
    }
    split = {"clusters": [{"name": "stable", "weight": 70}, {"name": "canary", "weight": 30}]}
    routes = [
        {
            "match": {"path": "/teapot"},
            "direct_response": {"status": 418, "body": {"inline_string": "short and stout"}},
        },
        {"match": {"prefix": "/old/"}, "redirect": {"prefix_rewrite": "/new/", "response_code": "PERMANENT_REDIRECT"}},
        {
            "match": {"prefix": "/", "headers": [{"name": "x-user", "string_match": {"prefix": "test-"}}]},
            "route": {"cluster": "canary", "prefix_rewrite": "/canary/"},
        },
        {"match": {"prefix": "/"}, "route": {"weighted_clusters": split, "timeout": "5s", "retry_policy": retry}},
    ]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    document = {
        "admin": {"address": _address(free_port())},
        "static_resources": {
            "listeners": [{"name": "in", "address": _address(port), "filter_chains": [chain]}],
            "clusters": [_cluster("stable", stable), _cluster("canary", canary)],
        },
    }
    return yaml.safe_dump(document)


@contextlib.asynccontextmanager
async def _proxy(*command: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ask(port: int, path: str, headers: str = "") -> tuple[int, dict[str, str]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n{headers}\r\n".encode())
    head = (await reader.read()).decode().partition("\r\n\r\n")[0].split("\r\n")
    writer.close()
    fields = (line.partition(": ") for line in head[1:])
    return int(head[0].split(" ")[1]), {name.lower(): value for name, _, value in fields}


async def _until_up(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await _ask(port, "/teapot")
                return
            except (OSError, IndexError):
                await asyncio.sleep(0.05)


async def _behaviour(port: int, stable: Origin, canary: Origin) -> dict[str, Any]:
    """What a client and the upstreams see; equal for equal proxies."""
    redirect = await _ask(port, "/old/a?b=1")
    seen = len(canary.requests)
    assert (await _ask(port, "/x", "x-user: test-1\r\n"))[0] == 200
    rewritten = canary.requests[seen].split(b" ", 2)[1]
    before = len(stable.requests), len(canary.requests)
    counts: collections.Counter[int] = collections.Counter()
    for _ in range(300):
        counts[(await _ask(port, "/"))[0]] += 1
    share = (len(canary.requests) - before[1]) / 300
    assert abs(share - 0.3) < 0.1
    return {
        "teapot": (await _ask(port, "/teapot"))[0],
        "redirect": (redirect[0], redirect[1]["location"]),
        "rewritten": rewritten,
        "statuses": dict(counts),
    }


def test_envoy_and_sidecar_behave_alike_from_one_file(tmp_path: Path) -> None:
    async def behaviour_of(name: str) -> dict[str, Any]:
        async with origin() as stable, origin() as canary:
            port = free_port()
            config = tmp_path / f"{name}.yaml"
            config.write_text(_bootstrap(port, stable.port, canary.port))
            if name == "envoy":
                command = [_envoy(), "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
            else:
                command = [sys.executable, "-m", "sidecar", "--config", str(config)]
            async with _proxy(*command):
                await _until_up(port)
                return await _behaviour(port, stable, canary)

    async def check() -> None:
        envoy, ours = await behaviour_of("envoy"), await behaviour_of("sidecar")
        assert ours == envoy
        assert ours["teapot"] == 418
        assert ours["redirect"] == (308, "http://web/new/a?b=1")
        assert ours["rewritten"] == b"/canary/x"
        assert ours["statuses"] == {200: 300}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())
