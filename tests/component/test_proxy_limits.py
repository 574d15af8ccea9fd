"""Circuit breakers of the data plane: what is refused, its flag, its counters and gauges. Over real sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from mesh.resilience.limits import CircuitLimits
from mesh.resilience.retry import RetryBudget
from mesh.routing.table import WeightedCluster
from sidecar.config import FilterChain, TcpFilter
from tests.component.plane_harness import (
    OK,
    client,
    cluster,
    forward,
    metric,
    origin,
    run,
    running,
    snapshot,
    total,
    until,
)

pytestmark = pytest.mark.component


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def holding(release: asyncio.Event) -> Script:
    """Answers when `release` is set."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            writer.write(OK)

    return script


def test_connections_and_waiting_requests_are_bounded_and_overflow_is_uo() -> None:
    async def body() -> None:
        release = asyncio.Event()
        limits = CircuitLimits(max_connections=1, max_pending=1, max_requests=10)
        async with (
            origin(script=holding(release)) as up,
            running(snapshot([cluster("c", up.port, limits=limits)])) as plane,
            client(plane) as first,
            client(plane) as second,
            client(plane) as third,
        ):
            prefix = "circuit_breakers_default"
            assert metric(plane, f"{prefix}_remaining_cx", "c") == 1
            first.get()
            await until(lambda: up.open == 1)
            assert metric(plane, f"{prefix}_cx_open", "c") == 1
            assert metric(plane, f"{prefix}_rq_pending_open", "c") == 0
            second.get()
            await until(lambda: plane.plane.clusters["c"].pending == 1)
            assert metric(plane, "upstream_cx_overflow", "c") == 1
            assert metric(plane, f"{prefix}_rq_pending_open", "c") == 1
            assert metric(plane, f"{prefix}_remaining_rq", "c") == 8
            answer = await third.ask()
            assert (answer.status, total(plane, 503, "UO")) == (503, 1)
            assert metric(plane, "upstream_rq_pending_overflow", "c") == 1
            release.set()
            assert (await first.response()).status == 200
            assert (await second.response()).status == 200
            assert up.connections == 1
            assert metric(plane, f"{prefix}_rq_pending_open", "c") == 0

    run(body())


def test_requests_in_flight_are_bounded() -> None:
    async def body() -> None:
        release = asyncio.Event()
        async with (
            origin(script=holding(release)) as up,
            running(snapshot([cluster("c", up.port, limits=CircuitLimits(max_requests=1))])) as plane,
            client(plane) as first,
            client(plane) as second,
        ):
            first.get()
            await until(lambda: up.open == 1)
            assert metric(plane, "circuit_breakers_default_rq_open", "c") == 1
            assert (await second.ask()).status == 503
            assert total(plane, 503, "UO") == 1
            assert metric(plane, "upstream_rq_pending_overflow", "c") == 1
            release.set()
            assert (await first.response()).status == 200
            assert metric(plane, "circuit_breakers_default_rq_open", "c") == 0

    run(body())


def test_connections_of_one_endpoint_are_bounded() -> None:
    async def body() -> None:
        release = asyncio.Event()
        limits = CircuitLimits(max_connections_per_host=1)
        async with (
            origin(script=holding(release)) as up,
            origin(script=holding(release)) as other,
            running(snapshot([cluster("c", up.port, other.port, limits=limits)])) as plane,
            client(plane) as one,
            client(plane) as two,
            client(plane) as three,
        ):
            users = (one, two, three)
            for user in users:
                user.get()
            await until(lambda: up.open + other.open == 2 and plane.plane.clusters["c"].pending == 1)
            assert metric(plane, "upstream_cx_per_host_overflow", "c") >= 1
            release.set()
            assert [(await user.response()).status for user in users] == [200, 200, 200]
            assert (up.connections, other.connections) == (1, 1)

    run(body())


def test_retries_are_bounded_by_a_plain_number_too() -> None:
    async def body() -> None:
        limits = CircuitLimits(retry_budget=RetryBudget(percent=0.0, min_concurrency=2))
        async with (
            origin() as up,
            running(snapshot([cluster("c", up.port, limits=limits)], [forward("c")])) as plane,
        ):
            state = plane.plane.clusters["c"]
            assert metric(plane, "circuit_breakers_default_remaining_retries", "c") == 2
            state.retries = 2
            assert metric(plane, "circuit_breakers_default_rq_retry_open", "c") == 1
            assert not state.may_retry()

    run(body())


def test_tcp_connections_count_and_those_beyond_the_limit_are_closed() -> None:
    async def body() -> None:
        limits = CircuitLimits(max_connections=1)
        async with origin(script=holding(asyncio.Event())) as up:
            config = snapshot([cluster("c", up.port, limits=limits)])
            tcp = FilterChain(filter=TcpFilter(clusters=(WeightedCluster(name="c"),)))
            config = replace(config, listeners=tuple(replace(one, chains=(tcp,)) for one in config.listeners))
            async with running(config) as plane, client(plane) as first:
                await until(lambda: up.open == 1)
                async with client(plane) as second:
                    assert await second.at_eof()
                assert metric(plane, "upstream_cx_overflow", "c") == 1
                assert metric(plane, "upstream_cx_active", "c") == 1
                first.writer.transport.abort()
                await until(lambda: plane.plane.clusters["c"].connections == 0)
                async with client(plane):
                    await until(lambda: up.open == 1)

    run(body())
