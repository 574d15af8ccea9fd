"""What routes do besides forwarding, over real sockets: CORS, faults, rate limits, adaptive concurrency."""

import asyncio
import time
from typing import Any

import pytest

from mesh.resilience.adaptive import AdaptiveConfig
from mesh.resilience.fault import FaultPolicy
from mesh.resilience.rate_limit import TokenBucketConfig
from mesh.routing.cors import CorsPolicy
from mesh.routing.fault import FaultRule
from mesh.routing.filters import FilterKind, FilterSettings
from mesh.routing.headers import HeaderMutation, HeaderValue
from mesh.routing.match import HeaderMatch, MatchKind, PathMatch, RouteMatch, StringMatch
from mesh.routing.rate_limit import LocalRateLimit
from mesh.routing.table import DirectResponse, Forward, Provenance, Route, WeightedCluster
from mesh.telemetry.istio import Peer
from sidecar.config import AdaptiveConcurrency, HttpFilter, Snapshot
from sidecar.filters.counts import FilterCount
from sidecar.metrics import MetricsSource, render_metrics
from sidecar.server import DataPlane
from tests.component.plane_harness import (
    OK,
    Client,
    client,
    cluster,
    forward,
    origin,
    run,
    running,
    snapshot,
    total,
    until,
)

pytestmark = pytest.mark.component

ALL = tuple(FilterKind)
CAUSE = Provenance(kind="VirtualService", namespace="shop", name="web", field="spec.http[0]")


def http(**fields: Any) -> HttpFilter:
    return HttpFilter(route_table="table", stat_prefix="in", filters=ALL, **fields)


def filtered(port: int, settings: FilterSettings, **fields: Any) -> Snapshot:
    """One route to `port` with these settings."""
    route = Route(
        name="r", action=Forward(clusters=(WeightedCluster(name="c"),)), filters=settings, provenance=CAUSE, **fields
    )
    return snapshot([cluster("c", port)], [route], http=http())


def counted(plane: DataPlane, count: FilterCount, label: str = "in") -> int:
    return plane.plane.stats.filters.get(count, label)


CORS = CorsPolicy(
    allow_origins=(
        StringMatch(kind=MatchKind.EXACT, value="https://a"),
        StringMatch(kind=MatchKind.PREFIX, value="https://b."),
        StringMatch(kind=MatchKind.REGEX, value="https://[cd]"),
    ),
    allow_methods="GET",
    allow_headers="x-h",
    expose_headers="x-e",
    max_age="5",
    allow_credentials=True,
    allow_private_network=True,
)
UPSTREAM_CORS = (
    b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\naccess-control-allow-origin: up\r\n"
    b"Access-Control-Expose-Headers: up\r\n\r\nok"
)


def cors_of(headers: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("access-control-"): text for name, text in headers.items() if "access-control" in name}


@pytest.mark.parametrize(
    ("origin_", "allowed"),
    [("https://a", True), ("https://b.example", True), ("https://c", True), ("https://ab", False), ("http://a", False)],
)
def test_cors_decorates_what_allowed_origins_ask_for(origin_: str, allowed: bool) -> None:
    async def body() -> None:
        async with (
            origin(lambda _: UPSTREAM_CORS) as up,
            running(filtered(up.port, FilterSettings(cors=CORS))) as plane,
            client(plane) as user,
        ):
            answer = await user.ask("/", f"Origin: {origin_}")
        if allowed:
            assert cors_of(answer.headers) == {
                "allow-origin": origin_, "allow-credentials": "true", "expose-headers": "x-e",
            }  # fmt: skip
        else:
            assert cors_of(answer.headers) == {"allow-origin": "up", "expose-headers": "up"}
        assert counted(plane, FilterCount.CORS_VALID if allowed else FilterCount.CORS_INVALID) == 1

    run(body())


def test_cors_answers_preflights_of_allowed_origins_itself() -> None:
    async def body() -> None:
        asked = ("Access-Control-Request-Method: GET", "Access-Control-Request-Private-Network: true")
        async with (
            origin() as up,
            running(filtered(up.port, FilterSettings(cors=CORS))) as plane,
            client(plane) as user,
        ):
            answer = await user.ask("/", "Origin: https://a", *asked, method="OPTIONS")
            assert (answer.status, answer.body, up.requests) == (200, b"", [])
            assert cors_of(answer.headers) == {
                "allow-origin": "https://a", "allow-credentials": "true", "allow-methods": "GET",
                "allow-headers": "x-h", "max-age": "5", "allow-private-network": "true", "expose-headers": "x-e",
            }  # fmt: skip
            # No preflight without a requested method, and other origins' go on to the upstream.
            assert (await user.ask("/", "Origin: https://a", method="OPTIONS")).body == b"ok"
            assert (await user.ask("/", "Origin: https://x", *asked, method="OPTIONS")).body == b"ok"
            assert len(up.requests) == 2

    run(body())


def test_cors_may_keep_other_origins_preflights_from_the_upstream() -> None:
    async def body() -> None:
        policy = CorsPolicy(allow_origins=CORS.allow_origins, allow_methods="GET", forwards_unmatched_preflights=False)
        async with (
            origin() as up,
            running(filtered(up.port, FilterSettings(cors=policy))) as plane,
            client(plane) as user,
        ):
            answer = await user.ask("/", "Origin: https://x", "Access-Control-Request-Method: GET", method="OPTIONS")
            assert (answer.status, up.requests) == (200, [])
            assert cors_of(answer.headers) == {"allow-methods": "GET"}

    run(body())


def fault(**fields: Any) -> FilterSettings:
    return FilterSettings(fault=FaultRule(policy=FaultPolicy(**fields)))


def test_fault_delay_holds_the_request_but_not_its_timeout() -> None:
    async def body() -> None:
        settings = fault(delay_s=0.15, delay_percent=100.0)
        route = forward("c", timeout_s=0.1)
        config = snapshot([cluster("c", 1)], [route])
        async with origin() as up:
            made = Route(name="r", action=route.action, filters=settings, provenance=CAUSE)
            config = snapshot([cluster("c", up.port)], [made], http=http())
            async with running(config) as plane, client(plane) as user:
                started = time.monotonic()
                answer = await user.ask("/")
                assert (answer.status, answer.body) == (200, b"ok")
                assert time.monotonic() - started >= 0.15
                assert total(plane, 200, "DI") == 1
                assert counted(plane, FilterCount.FAULT_DELAYS) == 1

    run(body())


def test_fault_abort_says_who_wants_it() -> None:
    async def body() -> None:
        async with origin() as up:
            config = filtered(up.port, fault(abort_percent=100.0, abort_status=418))
            async with running(config) as plane, client(plane) as user:
                answer = await user.ask("/")
                assert (answer.status, up.requests) == (418, [])
                assert answer.body == b"fault filter abort by VirtualService shop/web spec.http[0]\n"
                assert total(plane, 418, "FI") == 1
                # The connection can be used on.
                assert (await user.ask("/")).status == 418

    run(body())


def test_fault_delay_then_abort_has_both_flags() -> None:
    async def body() -> None:
        settings = fault(delay_s=0.02, delay_percent=100.0, abort_percent=100.0, abort_status=503)
        async with origin() as up, running(filtered(up.port, settings)) as plane, client(plane) as user:
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
            assert (await user.response()).status == 503
            assert total(plane, 503, "DI,FI") == 1

    run(body())


def test_delayed_post_is_sent_whole_afterwards() -> None:
    async def body() -> None:
        settings = fault(delay_s=0.05, delay_percent=100.0)
        async with origin() as up, running(filtered(up.port, settings)) as plane, client(plane) as user:
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nbody")
            await until(lambda: counted(plane, FilterCount.FAULT_DELAYS) == 1)
            user.send(b"more")
            assert (await user.response()).body == b"ok"
            assert up.requests[0].endswith(b"\r\n\r\nbodymore")

    run(body())


def test_client_that_leaves_during_a_delay_is_forgotten() -> None:
    async def body() -> None:
        settings = fault(delay_s=0.1, delay_percent=100.0)
        async with origin() as up, running(filtered(up.port, settings)) as plane:
            async with client(plane) as user:
                user.get("/")
                await until(lambda: counted(plane, FilterCount.FAULT_DELAYS) == 1)
            await until(lambda: total(plane, 0, "DI,DC") == 1)
            await asyncio.sleep(0.12)
            assert up.requests == []
            assert [state.faults_active for _, state in plane.plane.sites()] == [0]

    run(body())


def test_fault_only_hits_those_it_is_meant_for() -> None:
    async def body() -> None:
        rule = FaultRule(
            policy=FaultPolicy(abort_percent=100.0, abort_status=500),
            headers=(HeaderMatch(name="x-test"),),
            upstream_cluster="c",
        )
        async with (
            origin() as up,
            running(filtered(up.port, FilterSettings(fault=rule))) as plane,
            client(plane) as user,
        ):
            assert (await user.ask("/")).status == 200
            assert (await user.ask("/", "X-Test: 1")).status == 500

    run(body())


def test_faults_are_bounded_in_number() -> None:
    async def body() -> None:
        settings = fault(delay_s=0.3, delay_percent=100.0, max_active=1)
        async with (
            origin() as up,
            running(filtered(up.port, settings)) as plane,
            client(plane) as slow,
            client(plane) as quick,
        ):
            slow.get("/")
            await until(lambda: counted(plane, FilterCount.FAULT_DELAYS) == 1)
            started = time.monotonic()
            assert (await quick.ask("/")).status == 200
            assert time.monotonic() - started < 0.2
            assert counted(plane, FilterCount.FAULT_OVERFLOW) == 1
            assert (await slow.response()).status == 200

    run(body())


def test_percentage_of_faults_is_held() -> None:
    async def body() -> None:
        async with origin() as up:
            config = filtered(up.port, fault(abort_percent=30.0, abort_status=500))
            async with running(config) as plane, client(plane) as user:
                plane.plane.rng.seed(5)
                statuses = [(await user.ask("/")).status for _ in range(400)]
                assert 0.22 < statuses.count(500) / 400 < 0.38

    run(body())


def limit(**fields: Any) -> LocalRateLimit:
    bucket = TokenBucketConfig(max_tokens=2, fill_interval_s=60.0)
    return LocalRateLimit(bucket=bucket, stat_prefix="rl", enabled_share=1.0, enforced_share=1.0, **fields)


def test_rate_limit_refuses_beyond_the_bucket_and_survives_a_push() -> None:
    async def body() -> None:
        added = HeaderMutation(add=(HeaderValue(name="x-limited", value="yes"),))
        settings = FilterSettings(rate_limit=limit(response_headers=added, tells_quota=True))
        async with origin() as up, running(filtered(up.port, settings)) as plane, client(plane) as user:
            first = await user.ask("/")
            assert first.status == 200
            assert [first.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")] == [
                "2",
                "1",
                "60",
            ]
            assert (await user.ask("/")).status == 200
            refused = await user.ask("/")
            assert (refused.status, refused.headers["x-limited"]) == (429, "yes")
            assert refused.body.startswith(b'local_rate_limited: route "v/r" allows 1 every 60 s')
            assert "x-envoy-ratelimited" not in refused.headers
            await plane.apply(filtered(up.port, settings))
            assert (await user.ask("/")).status == 429
            assert total(plane, 429, "RL") == 2
            found = [
                counted(plane, count, "rl")
                for count in (FilterCount.LIMIT_ENABLED, FilterCount.LIMIT_OK, FilterCount.LIMIT_ENFORCED)
            ]
            assert found == [4, 2, 2]
            # Another answer is the same bucket, another bucket begins afresh.
            await plane.apply(filtered(up.port, FilterSettings(rate_limit=limit(status=503))))
            assert (await user.ask("/")).status == 503
            bigger = LocalRateLimit(
                bucket=TokenBucketConfig(max_tokens=5, fill_interval_s=60.0), enabled_share=1.0, enforced_share=1.0
            )
            await plane.apply(filtered(up.port, FilterSettings(rate_limit=bigger)))
            assert (await user.ask("/")).status == 200

    run(body())


def test_rate_limit_without_enforcement_only_counts() -> None:
    async def body() -> None:
        bucket = TokenBucketConfig(max_tokens=1, fill_interval_s=60.0)
        settings = FilterSettings(rate_limit=LocalRateLimit(bucket=bucket, stat_prefix="rl", enabled_share=1.0))
        async with origin() as up, running(filtered(up.port, settings)) as plane, client(plane) as user:
            assert [(await user.ask("/")).status for _ in range(3)] == [200, 200, 200]
            assert counted(plane, FilterCount.LIMIT_LIMITED, "rl") == 2
            assert counted(plane, FilterCount.LIMIT_ENFORCED, "rl") == 0

    run(body())


def test_listener_limit_counts_all_its_routes_also_those_not_found() -> None:
    async def body() -> None:
        routes = [
            Route(name=name, match=RouteMatch(path=PathMatch(value=f"/{name}")), action=DirectResponse(status=200))
            for name in ("a", "b")
        ]
        config = snapshot([], routes, http=http(settings=FilterSettings(rate_limit=limit())))
        async with running(config) as plane, client(plane) as user:
            assert [(await user.ask(path)).status for path in ("/a", "/none", "/b")] == [200, 404, 429]

    run(body())


def test_workers_share_the_tokens() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane:
            plane.plane.worker_count = 2
            made = Route(name="r", action=DirectResponse(status=200), filters=FilterSettings(rate_limit=limit()))
            config = snapshot([], [made], http=http())
            listener = config.listeners[0]
            await plane.apply(Snapshot(listeners=(), clusters={}, route_tables={}))
            await plane.apply(Snapshot(listeners=(listener,), route_tables=config.route_tables))
            async with client(plane) as user:
                assert [(await user.ask("/")).status for _ in range(2)] == [200, 429]

    run(body())


def test_adaptive_concurrency_refuses_beyond_its_limit() -> None:
    async def body() -> None:
        config = AdaptiveConfig(min_limit=1, min_rtt_requests=50)
        held = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                await held.wait()
                writer.write(OK)

        async with origin(script=script) as up:
            made = snapshot(
                [cluster("c", up.port)], http=http(adaptive=AdaptiveConcurrency(config=config, exceeded_status=503))
            )
            async with running(made) as plane, client(plane) as first, client(plane) as second:
                first.get("/")
                await until(lambda: plane.plane.clusters["c"].active == 1)
                refused = await second.ask("/")
                assert refused.status == 503
                assert refused.body.startswith(b"reached concurrency limit")
                held.set()
                assert (await first.response()).status == 200
                assert (await second.ask("/")).status == 200
                assert counted(plane, FilterCount.ADAPTIVE_BLOCKED) == 1
                state = next(state for _, state in plane.plane.sites())
                assert state.adaptive is not None
                assert state.adaptive.active == 0
                page = render_metrics(MetricsSource(plane=plane.plane, own=Peer())).decode()
                name = "envoy_http_adaptive_concurrency_gradient_controller"
                assert f'{name}_concurrency_limit{{envoy_http_conn_manager_prefix="in"}} 1' in page
                assert f'{name}_rq_blocked{{envoy_http_conn_manager_prefix="in"}} 1' in page
                # What it has learned survives a push.
                await plane.apply(made)
                await second.ask("/")
                assert next(state for _, state in plane.plane.sites()).adaptive is state.adaptive

    run(body())


def test_settings_may_differ_between_the_branches_of_a_split() -> None:
    async def body() -> None:
        broken = WeightedCluster(name="c", weight=1, filters=fault(abort_percent=100.0, abort_status=500))
        action = Forward(clusters=(broken, WeightedCluster(name="c", weight=1)), split_header="x-draw")
        async with origin() as up:
            config = snapshot([cluster("c", up.port)], [Route(name="r", action=action)], http=http())
            async with running(config) as plane, client(plane) as user:
                assert (await user.ask("/", "X-Draw: 0")).status == 500
                assert (await user.ask("/", "X-Draw: 1")).status == 200

    run(body())


def test_routes_without_settings_take_the_short_way() -> None:
    async def body() -> None:
        async with (
            origin() as up,
            running(snapshot([cluster("c", up.port)], http=http())) as plane,
            client(plane) as user,
        ):
            await user.ask("/")
            template = next(iter(next(iter(plane.plane.connections)).site.runtime.templates.values()))
            assert not template.route.is_special
            assert template.is_plain

    run(body())


async def statuses(user: Client, *paths: str) -> list[int]:
    return [(await user.ask(path)).status for path in paths]


def test_runtime_share_of_a_route_is_drawn_for_every_request() -> None:
    async def body() -> None:
        routes = [
            Route(name="some", match=RouteMatch(share=0.25), action=DirectResponse(status=201)),
            Route(name="rest", action=DirectResponse(status=202)),
        ]
        async with running(snapshot([], routes)) as plane, client(plane) as user:
            plane.plane.rng.seed(3)
            found = await statuses(user, *["/"] * 400)
            assert 0.18 < found.count(201) / 400 < 0.32
            assert set(found) == {201, 202}

    run(body())
