"""Where requests go over real connections: keys, zones, new endpoints, labels, latency."""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import pytest

from mesh.balance.config import BalanceOptions, HashingConfig, SlowStartConfig, SubsetConfig, SubsetSelector
from mesh.balance.endpoint import Endpoint, Health, LbPolicy, Locality
from mesh.balance.hashing import hash64
from mesh.resilience.outlier import OutlierConfig
from mesh.resilience.retry import RetryOn, RetryPolicy
from mesh.routing.table import Forward, HeaderMatch, Route, RouteMatch, WeightedCluster
from mesh.telemetry.istio import Peer
from sidecar.admin import config_dump
from sidecar.config import Cluster
from sidecar.exchange import Exchange
from sidecar.filters.protocol import QuietFilter
from sidecar.metrics import MetricsSource, render_metrics
from sidecar.server import DataPlane
from tests.component.plane_harness import OK, Client, Origin, client, cluster, forward, origin, run, running, snapshot

pytestmark = pytest.mark.component


class HashByPath(QuietFilter):
    """Equal paths are equal keys; `/pinned/PORT` belongs to that port."""

    def on_request(self, exchange: Exchange, now: float) -> bool:
        path = exchange.template.head.target.decode()
        if path.startswith("/pinned/"):
            exchange.pinned = ("127.0.0.1", int(path.removeprefix("/pinned/")))
        exchange.hash_key = hash64(path.encode())
        return True


def hash_by_path(plane: DataPlane) -> None:
    runtime = plane.plane.site("in", "#0").runtime
    route = runtime.template_for(b"GET /first HTTP/1.1\r\nHost: a.example\r\n\r\n").route
    route.filters = (HashByPath(),)
    route.is_special = True


def counts(origins: Sequence[Origin]) -> list[int]:
    return [len(one.requests) for one in origins]


async def owners(user: Client, origins: Sequence[Origin], paths: Sequence[str]) -> dict[str, int]:
    """Which origin answers each path."""
    found: dict[str, int] = {}
    for path in paths:
        before = counts(origins)
        assert (await user.ask(path)).status == 200
        (found[path],) = [i for i, (old, new) in enumerate(zip(before, counts(origins), strict=True)) if new > old]
    return found


PATHS = [f"/user/{i}" for i in range(60)]


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_equal_keys_stay_with_their_endpoint_while_others_come_and_go(policy: LbPolicy) -> None:
    async def body() -> None:
        async with origin() as a, origin() as b, origin() as c, origin() as d:
            origins = [a, b, c, d]
            options = BalanceOptions(hashing=HashingConfig(table_size=1009))
            config = cluster("c", *(one.port for one in origins), lb_policy=policy, balance=options)
            async with running(snapshot([config])) as plane, client(plane) as user, client(plane) as another:
                hash_by_path(plane)
                before = await owners(user, origins, PATHS)
                assert len(set(before.values())) == 4
                assert await owners(another, origins, PATHS) == before
                await plane.apply(snapshot([dataclasses.replace(config, endpoints=config.endpoints[:3])]))
                hash_by_path(plane)
                after = await owners(user, origins, PATHS)
                moved = [path for path in PATHS if before[path] != 3 and before[path] != after[path]]
                assert len(moved) <= 9
                assert 3 not in after.values()

    run(body())


def test_a_session_stays_where_it_is_pinned_while_it_can() -> None:
    async def body() -> None:
        async with origin() as a, origin() as b:
            config = cluster("c", a.port, b.port)
            async with running(snapshot([config])) as plane, client(plane) as user:
                hash_by_path(plane)
                assert set((await owners(user, [a, b], [f"/pinned/{b.port}"] * 10)).values()) == {1}
                state = plane.plane.clusters["c"]
                state.hosts[("127.0.0.1", b.port)].is_check_failed = True
                state.rebuild()
                assert set((await owners(user, [a, b], [f"/pinned/{b.port}"] * 3)).values()) == {0}

    run(body())


def placed(port: int, zone: str, *, priority: int = 0, weight: int = 1) -> Endpoint:
    return Endpoint(
        address="127.0.0.1", port=port, priority=priority, locality=Locality("r", zone), locality_weight=weight
    )


def test_when_a_zone_dies_the_next_one_takes_over_without_a_failed_request() -> None:
    async def body() -> None:
        outlier = OutlierConfig(consecutive_5xx=1, max_ejection_percent=100, base_ejection_s=30.0)
        retry = RetryPolicy(conditions=RetryOn.CONNECT_FAILURE | RetryOn.RESET, max_retries=3)
        async with origin() as near, origin() as close, origin() as far:
            endpoints = (placed(near.port, "here"), placed(close.port, "here"), placed(far.port, "there", priority=1))
            config = dataclasses.replace(
                cluster("c", outlier=outlier, panic_threshold_percent=0.0), endpoints=endpoints
            )
            async with running(snapshot([config], [forward("c", retry=retry)])) as plane, client(plane) as user:
                for _ in range(20):
                    assert (await user.ask()).status == 200
                assert not far.requests
                near.answer = close.answer = lambda _: None
                for _ in range(30):
                    assert (await user.ask()).status == 200
                state = plane.plane.clusters["c"]
                assert state.ejections_total == 2
                assert state.priority_load() == (0, 100)
                assert len(far.requests) == 30
                near.answer = close.answer = lambda _: OK
                state.sweep(time.monotonic() + 31.0)
                seen = len(far.requests)
                for _ in range(10):
                    assert (await user.ask()).status == 200
                assert len(far.requests) == seen

    run(body())


def test_localities_share_by_their_weights() -> None:
    async def body() -> None:
        async with origin() as a, origin() as b, origin() as c:
            endpoints = (placed(a.port, "x", weight=9), placed(b.port, "x", weight=9), placed(c.port, "y", weight=1))
            options = BalanceOptions(is_locality_weighted=True)
            config = dataclasses.replace(cluster("c", balance=options), endpoints=endpoints)
            async with running(snapshot([config])) as plane, client(plane) as user:
                for _ in range(200):
                    assert (await user.ask()).status == 200
                assert len(c.requests) == pytest.approx(20, abs=2)
                assert len(a.requests) == pytest.approx(90, abs=25)

    run(body())


def test_a_new_endpoint_gets_little_at_first_and_its_share_later() -> None:
    async def body() -> None:
        async with origin() as a, origin() as b:
            options = BalanceOptions(slow_start=SlowStartConfig(window_s=600.0))
            old = cluster("c", a.port, lb_policy=LbPolicy.ROUND_ROBIN, balance=options)
            new = dataclasses.replace(old, endpoints=(*old.endpoints, Endpoint(address="127.0.0.1", port=b.port)))
            async with running(snapshot([old])) as plane, client(plane) as user:
                state = plane.plane.clusters["c"]
                state.hosts[("127.0.0.1", a.port)].usable_since -= 3600.0
                await plane.apply(snapshot([new]))
                for _ in range(110):
                    assert (await user.ask()).status == 200
                assert len(b.requests) == pytest.approx(10, abs=2)
                state.hosts[("127.0.0.1", b.port)].usable_since -= 300.0
                state.sweep(time.monotonic())
                seen = len(b.requests)
                for _ in range(90):
                    assert (await user.ask()).status == 200
                assert len(b.requests) - seen == pytest.approx(30, abs=2)

    run(body())


def labelled(port: int, version: str) -> Endpoint:
    return Endpoint(address="127.0.0.1", port=port, labels=(("version", version),))


def test_a_routes_labels_choose_among_a_clusters_endpoints() -> None:
    async def body() -> None:
        async with origin() as stable, origin() as also, origin() as canary:
            selector = SubsetSelector(keys=frozenset({"version"}))
            options = BalanceOptions(subsets=SubsetConfig(selectors=(selector,)))
            endpoints = (labelled(stable.port, "v1"), labelled(also.port, "v1"), labelled(canary.port, "v2"))
            config = dataclasses.replace(cluster("c", balance=options), endpoints=endpoints)
            wants_v2 = RouteMatch(headers=(HeaderMatch(name="x-canary"),))
            routes = [
                Route(match=wants_v2, action=Forward(clusters=(labels("c", "v2"),))),
                Route(action=Forward(clusters=(labels("c", "v1"),))),
            ]
            async with running(snapshot([config], routes)) as plane, client(plane) as user:
                for _ in range(10):
                    assert (await user.ask("/", "x-canary: 1")).status == 200
                assert counts([stable, also, canary]) == [0, 0, 10]
                for _ in range(20):
                    assert (await user.ask()).status == 200
                assert len(canary.requests) == 10
                assert min(counts([stable, also])) > 0
            async with running(snapshot([config], [forward("c")])) as plane, client(plane) as user:
                assert (await user.ask()).status == 503  # no labels, no fallback

    run(body())


def labels(name: str, version: str) -> WeightedCluster:
    return WeightedCluster(name=name, metadata_match=(("version", version),))


async def _slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(OK)


def peak_ewma(*ports: int, **changes: Any) -> Cluster:
    return cluster("c", *ports, lb_policy=LbPolicy.PEAK_EWMA, **changes)


async def share_of_third(third: Origin) -> tuple[int, float]:
    """Of 200 requests, one at a time, over two good endpoints and this one: (its requests, what is expected of it in ms)."""
    async with (
        origin() as good,
        origin() as well,
        running(snapshot([peak_ewma(good.port, well.port, third.port)])) as plane,
        client(plane) as user,
    ):
        for _ in range(200):
            await user.ask()
        hosts = plane.plane.clusters["c"].hosts
        assert (hosts[("127.0.0.1", good.port)].latency_ms() or 0) < 31
        return 200 - len(good.requests) - len(well.requests), hosts[("127.0.0.1", third.port)].latency_ms() or 0


def test_peak_ewma_sends_little_to_the_slow() -> None:
    async def body() -> None:
        async with origin(script=_slow) as slow:
            requests, expected_ms = await share_of_third(slow)
            assert requests <= 3
            assert expected_ms > 40 or not requests

    run(body())


def test_peak_ewma_sends_little_to_those_who_fail_fast() -> None:
    async def body() -> None:
        failing = b"HTTP/1.1 500 No\r\nDate: d\r\nContent-Length: 0\r\n\r\n"
        async with origin(lambda _: failing) as bad:
            requests, expected_ms = await share_of_third(bad)
            assert requests <= 3
            assert expected_ms > 500 or not requests

    run(body())


def test_admin_and_metrics_say_how_load_is_spread() -> None:
    async def body() -> None:
        async with origin() as near, origin() as far:
            endpoints = (
                placed(near.port, "here", weight=5),
                dataclasses.replace(placed(1, "here"), health=Health.UNHEALTHY),
                dataclasses.replace(placed(2, "here"), health=Health.UNHEALTHY),
                dataclasses.replace(placed(far.port, "there", priority=1), health=Health.DEGRADED),
            )
            config = dataclasses.replace(cluster("c"), endpoints=endpoints)
            weak = dataclasses.replace(config, name="weak", endpoints=endpoints[:3], lb_policy=LbPolicy.PEAK_EWMA)
            async with running(snapshot([config, weak])) as plane, client(plane) as user:
                for _ in range(10):
                    assert (await user.ask()).status == 200
                weak_state = plane.plane.clusters["weak"]
                for _ in range(7):
                    weak_state.pick_for()
                dump = config_dump(plane.plane.snapshot, plane.plane.clusters)
                page = render_metrics(MetricsSource(plane=plane.plane, own=Peer())).decode()
        rows = {row["name"]: row for row in dump["clusters"]}
        assert (rows["c"]["healthy"], rows["c"]["degraded"], rows["c"]["priority_load"]) == (1, 1, "46 54")
        assert rows["weak"]["is_panicking"]
        first, second, _, last = (row for row in dump["endpoints"] if row["cluster"] == "c")
        assert (first["locality"], first["locality_weight"], first["health_flags"]) == ("r/here", 5, "healthy")
        assert second["health_flags"] == "/failed_eds_health"
        assert (last["priority"], last["health_flags"]) == (1, "/degraded_eds_health")
        assert [row["latency_ms"] is None for row in dump["endpoints"]] == [True] * 4 + [False] * 3
        for line in (
            'membership_healthy{envoy_cluster_name="c"} 1',
            'membership_degraded{envoy_cluster_name="c"} 1',
            'lb_healthy_panic{envoy_cluster_name="c"} 0',
            'lb_healthy_panic{envoy_cluster_name="weak"} 7',
        ):
            assert f"envoy_cluster_{line}" in page

    run(body())
