"""Retries, ejection, limits and timeouts of the data plane, over real sockets."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import pytest

from mesh.backoff import Backoff
from mesh.resilience.limits import CircuitLimits
from mesh.resilience.retry import Replay, RetryBudget, RetryOn, RetryPolicy
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
)
from tests.loopback_port import free_port

pytestmark = pytest.mark.component

ERROR = b"HTTP/1.1 503 Service Unavailable\r\nDate: d\r\nContent-Length: 3\r\n\r\nbad"
FAST = Backoff(base_s=0.001, cap_s=0.002)


def policy(on: RetryOn = RetryOn.SERVER_ERROR | RetryOn.RESET | RetryOn.CONNECT_FAILURE, **changes: Any) -> RetryPolicy:
    return replace(RetryPolicy(conditions=on, backoff=FAST, max_retries=2), **changes)


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
            config = snapshot([cluster("c", free_port(), good.port)], [forward("c", retry=policy())])
            async with running(config) as plane:
                for _ in range(10):
                    async with client(plane) as user:
                        assert (await user.ask("/", "Content-Length: 0", method="POST")).status == 200
            assert len(good.requests) == 10

    run(body())


def test_request_whose_first_connection_failed_has_an_id_of_its_own() -> None:
    async def body() -> None:
        async with origin() as good:
            config = snapshot([cluster("c", free_port(), good.port)], [forward("c", retry=policy())])
            async with running(config) as plane, client(plane) as user:
                for _ in range(10):
                    assert (await user.ask()).status == 200
            ids = {line for one in good.requests for line in one.split(b"\r\n") if line.startswith(b"x-request-id: ")}
            assert len(ids) == 10

    run(body())


def test_connect_failure_without_retry_is_uf_with_the_reason() -> None:
    async def body() -> None:
        async with running(snapshot([cluster("c", free_port())])) as plane, client(plane) as user:
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
