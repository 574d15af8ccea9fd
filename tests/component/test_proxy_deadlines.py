"""What runs out in the data plane, and what is said then. Over real sockets."""

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest

from mesh.backoff import Backoff
from mesh.resilience.retry import RetryOn, RetryPolicy
from sidecar.config import HttpFilter
from tests.component.plane_harness import (
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

FAST = Backoff(base_s=0.001, cap_s=0.002)


def policy(on: RetryOn = RetryOn.SERVER_ERROR, **changes: Any) -> RetryPolicy:
    return replace(RetryPolicy(conditions=on, backoff=FAST, max_retries=2), **changes)


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


async def _trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"1\r\nx\r\n")
        await asyncio.sleep(0.01)


def test_whole_exchange_has_its_limit_however_much_moves() -> None:
    async def body() -> None:
        route = forward("c", max_stream_duration_s=0.1, timeout_s=None)
        async with (
            origin(script=_trickle) as up,
            running(snapshot([cluster("c", up.port)], [route])) as plane,
            client(plane) as user,
        ):
            user.get()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await user.response()
            assert total(plane, 200, "DT") == 1
        async with origin(script=_never) as up, running(snapshot([cluster("c", up.port)], [route])) as plane:
            async with client(plane) as user:
                assert (await user.ask()).status == 504
                assert total(plane, 504, "DT") == 1
            async with client(plane) as user:
                user.get("/", "Content-Length: 9", method="POST")
                assert (await user.response()).status == 408
                assert total(plane, 408, "DT") == 1

    run(body())


def test_attempt_has_the_limit_of_its_cluster() -> None:
    async def body() -> None:
        for script, status in ((_trickle, 200), (_never, 504)):
            async with origin(script=script) as up:
                config = snapshot([cluster("c", up.port, max_stream_duration_s=0.1)], [forward("c", timeout_s=None)])
                async with running(config) as plane, client(plane) as user:
                    user.get()
                    if status == 200:
                        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                            await user.response()
                    else:
                        assert (await user.response()).status == status
                    assert total(plane, status, "UMSDR") == 1
                    assert metric(plane, "upstream_rq_max_duration_reached", "c") == 1
                    await until(lambda up=up: up.open == 0)  # type: ignore[misc]

    run(body())


def test_silence_ends_a_whole_request_with_504() -> None:
    async def body() -> None:
        http = HttpFilter(route_table="table", stream_idle_timeout_s=0.05)
        async with (
            origin(script=_never) as up,
            running(snapshot([cluster("c", up.port)], http=http)) as plane,
            client(plane) as user,
        ):
            assert (await user.ask()).status == 504
            assert total(plane, 504, "SI") == 1
            # The endpoint is not at fault for that (as in Envoy).
            host = next(iter(plane.plane.clusters["c"].hosts.values()))
            assert not host.health.has_failures

    run(body())
