"""Real Envoy and our balancing agree: who owns a key, how localities share, how much spills to the next priority."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop
import yaml

from mesh.balance.hashing import hash64
from mesh.balance.placement import HashTable
from mesh.balance.ring import HashRing
from tests.component.plane_harness import Origin, origin
from tests.interop.test_one_file_two_proxies import _address, _envoy, _proxy
from tests.loopback_port import free_port

pytestmark = pytest.mark.interop

ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def bootstrap(port: int, clusters: Sequence[dict[str, Any]]) -> str:
    """One listener; `/N/` leads to the N-th cluster. Hashing clusters go by x-key."""
    routes = []
    for i, cluster in enumerate(clusters):
        route: dict[str, Any] = {"cluster": f"c{i}"}
        if "lb_subset_config" in cluster:
            route["metadata_match"] = {"filter_metadata": {"envoy.lb": {"version": "v2"}}}
        if cluster["lb_policy"] in ("RING_HASH", "MAGLEV"):
            route["hash_policy"] = [{"header": {"header_name": "x-key"}}]
        routes.append({"match": {"prefix": f"/{i}/"}, "route": route})
    manager = {
        "@type": MANAGER,
        "stat_prefix": "in",
        "route_config": {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    resources = {
        "listeners": [{"name": "in", "address": _address(port), "filter_chains": [chain]}],
        "clusters": [{"name": f"c{i}", "connect_timeout": "1s", **one} for i, one in enumerate(clusters)],
    }
    return yaml.safe_dump({"admin": {"address": _address(free_port())}, "static_resources": resources})


def static(policy: str, endpoints: Sequence[dict[str, Any]], common: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "STATIC",
        "lb_policy": policy,
        "common_lb_config": common or {},
        "load_assignment": {"cluster_name": "c", "endpoints": list(endpoints)},
    }


def locality(ports: Sequence[int], **fields: Any) -> dict[str, Any]:
    """One locality; `down`, `degraded`: ports of which the control plane says so; `weights`, `versions`: of the endpoints."""
    health = dict.fromkeys(fields.pop("down", ()), "UNHEALTHY") | dict.fromkeys(fields.pop("degraded", ()), "DEGRADED")
    weights, versions = fields.pop("weights", {}), fields.pop("versions", {})
    endpoints = [
        {
            "endpoint": {"address": _address(port)},
            "health_status": health.get(port, "HEALTHY"),
            "load_balancing_weight": weights.get(port, 1),
            "metadata": {"filter_metadata": {"envoy.lb": {"version": versions.get(port, "v1")}}},
        }
        for port in ports
    ]
    return {"lb_endpoints": endpoints, **fields}


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(connection: Connection, cluster: int, key: str) -> None:
    reader, writer = connection
    writer.write(f"GET /{cluster}/ HTTP/1.1\r\nHost: web\r\nx-key: {key}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    await reader.readexactly(2)


@contextlib.asynccontextmanager
async def proxy(kind: str, folder: Path, *clusters: dict[str, Any]) -> AsyncIterator[Connection]:
    """A connection to a proxy that is up."""
    port = free_port()
    config = folder / f"{kind}.yaml"
    config.write_text(bootstrap(port, clusters))
    if kind == "envoy":
        command = [_envoy(), "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
    else:
        command = [sys.executable, "-m", "sidecar", "--config", str(config)]
    async with _proxy(*command):
        async with asyncio.timeout(20):
            while True:
                try:
                    connection = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield connection
        connection[1].close()


def run(work: Any) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(60):
            await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(guarded())


def ring(names: Sequence[str], weights: Sequence[float]) -> HashTable:
    table = HashRing(1024, 8 << 20)
    for _ in table.fill(names, weights):
        pass
    return table


async def owners(connection: Connection, origins: Sequence[Origin], cluster: int) -> list[int]:
    """Who answers each of 300 keys."""
    found = []
    for i in range(300):
        seen = [len(one.requests) for one in origins]
        await ask(connection, cluster, f"key-{i}")
        found += [at for at, old in enumerate(seen) if len(origins[at].requests) > old]
    return found


@pytest.mark.parametrize("heavy", [1, 3])
def test_keys_have_the_owners_that_envoy_gives_them(tmp_path: Path, heavy: int) -> None:
    async def check() -> None:
        async with origin() as a, origin() as b, origin() as c, origin() as d:
            origins = [a, b, c, d]
            ports = [one.port for one in origins]
            weights = {ports[0]: heavy}
            endpoints = [locality(ports, weights=weights)]
            hashing = [static("RING_HASH", endpoints), static("MAGLEV", endpoints)]
            found = {}
            for kind in ("envoy", "sidecar"):
                async with proxy(kind, tmp_path, *hashing) as connection:
                    found[kind] = [await owners(connection, origins, at) for at in range(len(hashing))]
            assert found["sidecar"] == found["envoy"]
            assert [set(one) for one in found["envoy"]] == [{0, 1, 2, 3}] * 2
            shares = [weights.get(port, 1) / (3 + heavy) for port in ports]
            table = ring([f"127.0.0.1:{port}" for port in ports], shares)
            assert found["envoy"][0] == [table.index(hash64(b"key-%d" % i)) for i in range(300)]

    run(check())


def clusters(ports: Sequence[int]) -> list[dict[str, Any]]:
    weighted: dict[str, Any] = {"locality_weighted_lb_config": {}}
    east, west = {"zone": "east"}, {"zone": "west"}
    return [
        # One zone three times the other.
        static(
            "ROUND_ROBIN",
            [
                locality(ports[:2], locality=east, load_balancing_weight=3),
                locality(ports[2:], locality=west, load_balancing_weight=1),
            ],
            weighted,
        ),
        # A zone that has lost half of its endpoints.
        static(
            "LEAST_REQUEST",
            [
                locality(ports[:2], locality=east, load_balancing_weight=1, down=ports[:1]),
                locality(ports[2:], locality=west, load_balancing_weight=1),
            ],
            weighted,
        ),
        # 70 % and 30 %.
        static("ROUND_ROBIN", [locality(ports[:2], down=ports[:1]), locality(ports[2:], priority=1)]),
        # Both levels too weak: panic.
        static("RANDOM", [locality(ports[:3], down=ports[:2]), locality(ports[3:], priority=1, down=ports[3:])]),
        # No panic: what is left takes all.
        static(
            "ROUND_ROBIN",
            [locality(ports[:3], down=ports[:2]), locality(ports[3:], priority=1, down=ports[3:])],
            {"healthy_panic_threshold": {"value": 0}},
        ),
        # Degraded endpoints help out: 70 % and 30 %.
        static("ROUND_ROBIN", [locality(ports[:2], degraded=ports[:1])]),
        # A subset, and the fallback of one that nobody belongs to.
        {
            **static("ROUND_ROBIN", [locality(ports, versions={ports[1]: "v2"})]),
            "lb_subset_config": {"subset_selectors": [{"keys": ["version"]}]},
        },
        {
            **static("ROUND_ROBIN", [locality(ports, versions={ports[2]: "v3"})]),
            "lb_subset_config": {
                "subset_selectors": [{"keys": ["version"]}],
                "fallback_policy": "DEFAULT_SUBSET",
                "default_subset": {"version": "v3"},
            },
        },
        # Endpoints' weights.
        static("LEAST_REQUEST", [locality(ports, weights={ports[0]: 5, ports[1]: 3})]),
    ]


def test_localities_priorities_and_weights_share_as_envoys_do(tmp_path: Path) -> None:
    async def shares_of(kind: str, requests: int = 800) -> list[list[float]]:
        found = []
        async with origin() as a, origin() as b, origin() as c, origin() as d:
            origins = [a, b, c, d]
            wanted = clusters([one.port for one in origins])
            async with proxy(kind, tmp_path, *wanted) as connection:
                for at in range(len(wanted)):
                    before = [len(one.requests) for one in origins]
                    for i in range(requests):
                        await ask(connection, at, str(i))
                    after = [len(one.requests) for one in origins]
                    found.append([(new - old) / requests for new, old in zip(after, before, strict=True)])
        return found

    async def check() -> None:
        envoy, ours = await shares_of("envoy"), await shares_of("sidecar")
        for theirs, mine in zip(envoy, ours, strict=True):
            assert mine == pytest.approx(theirs, abs=0.1)
        assert envoy[2][2] + envoy[2][3] == pytest.approx(0.3, abs=0.08)
        assert envoy[4] == ours[4] == [0.0, 0.0, 1.0, 0.0]
        assert envoy[6] == ours[6] == [0.0, 1.0, 0.0, 0.0]
        assert envoy[7] == ours[7] == [0.0, 0.0, 1.0, 0.0]

    run(check())
