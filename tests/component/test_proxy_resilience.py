"""Retries, ejection, limits and timeouts of the data plane, over real sockets."""

import asyncio
import contextlib
import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from mesh.backoff import Backoff
from mesh.resilience.limits import CircuitLimits
from mesh.resilience.outlier import OutlierConfig
from mesh.resilience.retry import Replay, RetryBudget, RetryOn, RetryPolicy
from sidecar.config import HttpFilter
from tests.component.plane_harness import (
    OK,
    Origin,
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

ERROR = b"HTTP/1.1 503 Service Unavailable\r\nDate: d\r\nContent-Length: 3\r\n\r\nbad"
FAST = Backoff(base_s=0.001, cap_s=0.002)


def policy(on: RetryOn = RetryOn.SERVER_ERROR | RetryOn.RESET | RetryOn.CONNECT_FAILURE, **changes: Any) -> RetryPolicy:
    return replace(RetryPolicy(conditions=on, backoff=FAST, max_retries=2), **changes)


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def count(origins: list[Origin]) -> list[int]:
    return [len(one.requests) for one in origins]


def test_a_failing_endpoint_is_retried_on_another() -> None:
    async def body() -> None:
        async with origin(lambda _: ERROR) as bad, origin() as good:
            config = snapshot([cluster("c", bad.port, good.port)], [forward("c", retry=policy())])
            async with running(config) as plane, client(plane) as user:
                for _ in range(30):
                    assert (await user.ask()).status == 200
                assert len(good.requests) == 30
                assert 0 < len(bad.requests) < 30
                assert plane.plane.clusters["c"].retries == 0
                assert sum(series.retries for series in plane.plane.stats.all_requests()) == len(bad.requests)
                assert bad.connections == 1  # thrown-away responses don't cost their connection

    run(body())


def test_retries_exhausted_forwards_the_last_answer_with_its_flag() -> None:
    async def body() -> None:
        async with origin(lambda _: ERROR) as bad:
            config = snapshot([cluster("c", bad.port)], [forward("c", retry=policy())], include_attempt_count=True)
            async with running(config) as plane, client(plane) as user:
                answer = await user.ask()
                assert (answer.status, answer.body) == (503, b"bad")
                assert total(plane, 503, "URX") == 1
                attempts = [request.lower().partition(b"x-envoy-attempt-count: ")[2][:1] for request in bad.requests]
                assert attempts == [b"1", b"2", b"3"]
                ids = {request.lower().partition(b"x-request-id: ")[2][:36] for request in bad.requests}
                assert len(ids) == 1

    run(body())


@pytest.mark.parametrize(
    ("method", "header", "replay", "tries"),
    [
        ("POST", "X: y", Replay.SAFE, 1),
        ("POST", "Idempotency-Key: k", Replay.SAFE, 3),
        ("POST", "X: y", Replay.ANY, 3),
        ("PUT", "X: y", Replay.SAFE, 3),
    ],
)
def test_only_what_is_safe_to_repeat_is_repeated(method: str, header: str, replay: Replay, tries: int) -> None:
    async def body() -> None:
        async with origin(lambda _: ERROR) as bad:
            config = snapshot([cluster("c", bad.port)], [forward("c", retry=policy(replay=replay))])
            async with running(config) as plane, client(plane) as user:
                user.get("/", "Content-Length: 4", header, method=method)
                user.send(b"data")
                assert (await user.response()).status == 503
                assert len(bad.requests) == tries
                assert all(request.endswith(b"data") for request in bad.requests)

    run(body())


def test_post_whose_connection_never_opened_is_retried() -> None:
    async def body() -> None:
        async with origin() as good:
            config = snapshot([cluster("c", closed_port(), good.port)], [forward("c", retry=policy())])
            async with running(config) as plane:
                for _ in range(10):
                    async with client(plane) as user:
                        assert (await user.ask("/", "Content-Length: 0", method="POST")).status == 200
            assert len(good.requests) == 10

    run(body())


def test_connect_failure_without_retry_is_uf_with_the_reason() -> None:
    async def body() -> None:
        async with running(snapshot([cluster("c", closed_port())])) as plane, client(plane) as user:
            answer = await user.ask()
            assert answer.status == 503
            assert b"refused" in answer.body.lower()
            assert total(plane, 503, "UF") == 1

    run(body())


def test_reset_before_an_answer_is_uc_or_retried() -> None:
    async def body() -> None:
        async with origin(lambda _: None) as bad, origin() as good:
            async with running(snapshot([cluster("c", bad.port)])) as plane, client(plane) as user:
                assert (await user.ask()).status == 503
                assert total(plane, 503, "UC") == 1
            config = snapshot([cluster("c", bad.port, good.port)], [forward("c", retry=policy(RetryOn.RESET))])
            async with running(config) as plane, client(plane) as user:
                for _ in range(10):
                    assert (await user.ask()).status == 200

    run(body())


def test_kept_connection_that_its_server_closed_costs_no_request() -> None:
    async def body() -> None:
        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Answers one request and closes when the next one comes: the race of every keep-alive server.
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")

        async with (
            origin(script=once) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            for _ in range(5):
                assert (await user.ask()).status == 200
            assert up.connections == 5
            # A POST can't be repeated: there it is an error that says so.
            assert (await user.ask("/", "Content-Length: 0", method="POST")).status == 503

    run(body())


def test_unsafe_request_does_not_gamble_on_an_old_connection() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            await user.ask()
            host = next(iter(plane.plane.clusters["c"].hosts.values()))
            host.idle[0].idle_since -= 5.0
            assert (await user.ask("/", "Content-Length: 0", method="POST")).status == 200
            assert up.connections == 2

    run(body())


def test_retry_budget_bounds_retries() -> None:
    async def body() -> None:
        limits = CircuitLimits(retry_budget=RetryBudget(percent=0.0, min_concurrency=0))
        async with origin(lambda _: ERROR) as bad:
            config = snapshot([cluster("c", bad.port, limits=limits)], [forward("c", retry=policy())])
            async with running(config) as plane, client(plane) as user:
                assert (await user.ask()).status == 503
                assert len(bad.requests) == 1
                assert total(plane, 503, "UO") == 1

    run(body())


def test_burst_of_failures_waits_for_the_budget_and_loses_nothing() -> None:
    async def body() -> None:
        limits = CircuitLimits(retry_budget=RetryBudget(percent=0.0, min_concurrency=1))
        async with origin(lambda _: ERROR) as bad, origin() as good, contextlib.AsyncExitStack() as stack:
            config = snapshot([cluster("c", bad.port, good.port, limits=limits)], [forward("c", retry=policy())])
            plane = await stack.enter_async_context(running(config))
            users = [await stack.enter_async_context(client(plane)) for _ in range(20)]
            for user in users:
                user.get()
            assert {(await user.response()).status for user in users} == {200}
            assert len(bad.requests) > 3
            assert plane.plane.clusters["c"].retries == 0

    run(body())


def test_retries_that_find_no_place_in_the_budget_give_up_in_time() -> None:
    async def body() -> None:
        limits = CircuitLimits(retry_budget=RetryBudget(percent=0.0, min_concurrency=1))
        async with origin(lambda _: ERROR) as bad:
            config = snapshot([cluster("c", bad.port, limits=limits)], [forward("c", retry=policy())])
            async with running(config) as plane, client(plane) as user:
                plane.plane.clusters["c"].retries = 1
                answer = await user.ask()
                assert answer.status == 503
                assert b"retry budget" in answer.body
                assert total(plane, 503, "UO") == 1

    run(body())


def test_body_too_large_to_keep_is_not_repeated() -> None:
    async def body() -> None:
        async with origin(lambda _: ERROR) as bad:
            config = snapshot([cluster("c", bad.port)], [forward("c", retry=policy())])
            async with running(config) as plane, client(plane) as user:
                user.get("/", "Content-Length: 200000", method="PUT")
                user.send(b"x" * 200000)
                assert (await user.response()).status == 503
                assert len(bad.requests) == 1

    run(body())


def test_large_body_is_kept_while_the_connection_is_made_and_delivered_whole() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            user.get("/", "Content-Length: 300000", method="POST")
            user.send(b"x" * 300000)
            assert (await user.response()).status == 200
            assert up.requests[0].endswith(b"\r\n\r\n" + b"x" * 300000)

    run(body())


def test_failing_endpoint_is_ejected_and_returns_after_its_time() -> None:
    async def body() -> None:
        outlier = OutlierConfig(consecutive_5xx=3, interval_s=0.01, base_ejection_s=5.0, max_ejection_percent=50)
        async with origin(lambda _: ERROR) as bad, origin() as good:
            config = snapshot([cluster("c", bad.port, good.port, outlier=outlier)], [forward("c", retry=policy())])
            async with running(config) as plane, client(plane) as user:
                while len(bad.requests) < 3:
                    assert (await user.ask()).status == 200
                for _ in range(20):
                    assert (await user.ask()).status == 200
                assert len(bad.requests) == 3
                state = plane.plane.clusters["c"]
                assert state.ejections_total == 1
                bad.answer = lambda _: OK
                state.sweep(time.monotonic() + 4.0)
                assert [host.port for host in state.available] == [good.port]
                state.sweep(time.monotonic() + 6.0)
                assert {host.port for host in state.available} == {bad.port, good.port}
                while len(bad.requests) == 3:
                    assert (await user.ask()).status == 200

    run(body())


def test_too_few_endpoints_left_means_all_are_used() -> None:
    async def body() -> None:
        outlier = OutlierConfig(consecutive_5xx=1, max_ejection_percent=100)
        async with (
            origin(lambda _: ERROR) as one,
            origin(lambda _: ERROR) as two,
            running(snapshot([cluster("c", one.port, two.port, outlier=outlier)])) as plane,
            client(plane) as user,
        ):
            for _ in range(12):
                assert (await user.ask()).status == 503
            assert plane.plane.clusters["c"].is_panicking
            assert min(count([one, two])) > 1

    run(body())


def test_connections_in_flight_are_bounded_and_overflow_is_uo() -> None:
    async def body() -> None:
        release = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await release.wait()
                writer.write(OK)

        limits = CircuitLimits(max_connections=1, max_pending=1, max_requests=10)
        async with (
            origin(script=slow) as up,
            running(snapshot([cluster("c", up.port, limits=limits)])) as plane,
            client(plane) as first,
            client(plane) as second,
            client(plane) as third,
        ):
            first.get()
            await until(lambda: up.open == 1)
            second.get()
            await until(lambda: plane.plane.clusters["c"].pending == 1)
            answer = await third.ask()
            assert (answer.status, total(plane, 503, "UO")) == (503, 1)
            release.set()
            assert (await first.response()).status == 200
            assert (await second.response()).status == 200
            assert up.connections == 1

        limits = CircuitLimits(max_requests=1)
        release.clear()
        async with (
            origin(script=slow) as up,
            running(snapshot([cluster("c", up.port, limits=limits)])) as plane,
            client(plane) as first,
            client(plane) as second,
        ):
            first.get()
            await until(lambda: up.open == 1)
            assert (await second.ask()).status == 503
            release.set()

    run(body())


async def _never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


def test_route_timeout_is_504_and_frees_the_endpoint() -> None:
    async def body() -> None:
        async with (
            origin(script=_never) as up,
            running(snapshot([cluster("c", up.port)], [forward("c", timeout_s=0.05)])) as plane,
            client(plane) as user,
        ):
            answer = await user.ask()
            assert (answer.status, total(plane, 504, "UT")) == (504, 1)
            assert b"0.05 s" in answer.body
            await until(lambda: up.open == 0)
            assert plane.plane.clusters["c"].active == 0

    run(body())


def test_per_try_timeout_moves_on_to_another_host() -> None:
    async def body() -> None:
        async with origin(script=_never) as stuck, origin() as good:
            retry = policy(per_try_timeout_s=0.05)
            async with (
                running(snapshot([cluster("c", stuck.port, good.port)], [forward("c", retry=retry)])) as plane,
                client(plane) as user,
            ):
                for _ in range(6):
                    assert (await user.ask()).status == 200

    run(body())


def test_timeout_in_the_middle_of_a_response_breaks_the_connection() -> None:
    async def body() -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await reader.read()

        async with (
            origin(script=half) as up,
            running(snapshot([cluster("c", up.port)], [forward("c", timeout_s=0.05)])) as plane,
            client(plane) as user,
        ):
            user.get()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await user.response()
            assert total(plane, 200, "UT") == 1

    run(body())


def test_stalled_request_body_is_408_and_stalled_head_too() -> None:
    async def body() -> None:
        http = HttpFilter(route_table="table", stream_idle_timeout_s=0.05, request_headers_timeout_s=0.05)
        async with origin() as up, running(snapshot([cluster("c", up.port)], http=http)) as plane:
            async with client(plane) as user:
                user.get("/", "Content-Length: 9", method="POST")
                assert (await user.response()).status == 408
            async with client(plane) as user:
                user.send(b"GET / HT")
                assert (await user.response()).status == 408
                assert await user.at_eof()

    run(body())


def test_idle_client_connection_is_closed_quietly() -> None:
    async def body() -> None:
        http = HttpFilter(route_table="table", idle_timeout_s=0.05)
        async with (
            origin() as up,
            running(snapshot([cluster("c", up.port)], http=http)) as plane,
            client(plane) as user,
        ):
            assert (await user.ask()).status == 200
            assert await user.at_eof()

    run(body())


def test_connect_timeout_is_bounded() -> None:
    async def body() -> None:
        # A full accept queue: the kernel leaves the handshake unanswered.
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            config = snapshot([cluster("c", deaf.getsockname()[1], connect_timeout_s=0.1)])
            async with running(config) as plane, client(plane) as user:
                answer = await user.ask()
                assert answer.status == 503
                assert b"within 0.1 s" in answer.body
            for filler in fillers:
                filler.close()

    run(body())
