"""Hedging over real sockets: a second attempt beside a slow one, and who wins."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from mesh.backoff import Backoff
from mesh.balance.endpoint import LbPolicy
from mesh.resilience.hedge import HedgePolicy
from mesh.resilience.limits import CircuitLimits
from mesh.resilience.retry import RetryBudget, RetryOn, RetryPolicy
from sidecar.cluster import ClusterState
from sidecar.server import DataPlane
from tests.component.plane_harness import (
    Client,
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
HEDGE = HedgePolicy(on_per_try_timeout=True)
RETRY = RetryPolicy(
    conditions=RetryOn.SERVER_ERROR,
    max_retries=1,
    per_try_timeout_s=0.05,
    backoff=Backoff(base_s=0.001, cap_s=0.002),
)
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(name: bytes, release: asyncio.Event | None = None, *, status: bytes = b"200 OK") -> Script:
    """Answers with `name`, when `release` is set."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            while release is not None and not release.is_set():
                if reader.at_eof() or reader.exception() is not None:
                    return  # given up by the proxy
                await asyncio.sleep(0.002)
            writer.write(b"HTTP/1.1 %b\r\nDate: d\r\nContent-Length: %d\r\n\r\n%b" % (status, len(name), name))
            await writer.drain()

    return script


@asynccontextmanager
async def hedged(
    first: Script, second: Script, **changes: Any
) -> AsyncIterator[tuple[DataPlane, Client, Origin, Origin]]:
    """A plane whose first attempt goes to `first` and whose second to `second` (round robin from the first)."""
    limits = changes.pop("limits", CircuitLimits())
    retry = replace(RETRY, **changes.pop("retry", {}))
    async with origin(script=first) as one, origin(script=second) as two:
        config = snapshot(
            [cluster("c", one.port, two.port, lb_policy=LbPolicy.ROUND_ROBIN, limits=limits)],
            [forward("c", retry=retry, hedge=HEDGE, **changes)],
        )
        async with running(config) as plane, client(plane) as user:
            state = state_of(plane)
            while state.picker is not None and (host := state.picker.pick(lambda: 0.0)) is not None:
                if host.port == two.port:  # the next pick is the first one
                    break
            yield plane, user, one, two
            assert (state.active, state.retries, state.pending) == (0, 0, 0)
            assert all(host.active == 0 for host in state.hosts.values())


def state_of(plane: DataPlane) -> ClusterState:
    return plane.plane.clusters["c"]


def test_second_attempt_wins_and_the_late_one_is_cancelled() -> None:
    async def body() -> None:
        never = asyncio.Event()
        async with hedged(answering(b"late", never), answering(b"fast")) as (plane, user, one, _):
            assert (await user.ask()).body == b"fast"
            assert state_of(plane).counts.hedges == 1
            assert state_of(plane).counts.retries_succeeded == 1
            await until(lambda: one.open == 0)  # its connection went with it
            # The plane goes on as ever, on the same client connection.
            assert (await user.ask()).body == b"fast"

    run(body())


def test_late_attempt_may_still_win() -> None:
    async def body() -> None:
        release, never = asyncio.Event(), asyncio.Event()
        async with hedged(answering(b"late", release), answering(b"stuck", never)) as (_, user, one, two):
            user.get()
            await until(lambda: two.open == 1)
            assert one.open == 1
            release.set()
            answer = await user.response()
            assert (answer.status, answer.body) == (200, b"late")
            await until(lambda: two.open == 0)
            assert one.open == 1  # kept for the next request
            assert (await user.ask()).body == b"late"
            assert one.connections == 1

    run(body())


def test_long_response_of_a_late_attempt_streams_through() -> None:
    async def body() -> None:
        release, never = asyncio.Event(), asyncio.Event()

        async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await writer.drain()
            await asyncio.sleep(0.15)  # longer than a try may take: it has begun, so that counts no more
            writer.write(b"3\r\ndef\r\n0\r\n\r\n")
            await reader.read()

        async with hedged(trickles, answering(b"stuck", never)) as (_, user, _, two):
            user.get()
            await until(lambda: two.open == 1)
            release.set()
            assert (await user.response()).body == b"abcdef"

    run(body())


def test_retriable_response_loses_while_the_other_is_under_way() -> None:
    async def body() -> None:
        release = asyncio.Event()
        async with hedged(answering(b"late", release), answering(b"bad", status=b"503 No")) as (plane, user, _, two):
            user.get()
            await until(lambda: two.open == 1)
            await until(lambda: state_of(plane).counts.retries_limited == 1)
            release.set()
            answer = await user.response()
            assert (answer.status, answer.body) == (200, b"late")
            assert total(plane, 200) == 1

    run(body())


def test_bad_late_response_loses_too_and_the_last_one_is_what_the_client_gets() -> None:
    async def body() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        both = hedged(answering(b"one", first, status=b"503 No"), answering(b"two", second, status=b"503 No"))
        async with both as (plane, user, _, two):
            user.get()
            await until(lambda: two.open == 1)
            first.set()
            await until(lambda: state_of(plane).active == 1)
            second.set()
            answer = await user.response()
            assert (answer.status, answer.body) == (503, b"two")
            assert total(plane, 503, "URX") == 1

    run(body())


def test_when_all_break_the_answer_says_so() -> None:
    async def body() -> None:
        release = asyncio.Event()

        async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()

        async with hedged(breaks, breaks) as (plane, user, _, two):
            user.get()
            await until(lambda: two.open == 1)
            release.set()
            answer = await user.response()
            assert answer.status == 503
            assert total(plane, 503, "UC,URX") == 1
            assert b"closed the connection" in answer.body

    run(body())


def test_all_attempts_end_with_the_routes_timeout() -> None:
    async def body() -> None:
        never = asyncio.Event()
        pair = hedged(answering(b"one", never), answering(b"two", never), timeout_s=0.15)
        async with pair as (plane, user, one, two):
            answer = await user.ask()
            assert (answer.status, total(plane, 504, "UT")) == (504, 1)
            await until(lambda: one.open == 0 and two.open == 0)
            assert state_of(plane).counts.try_timeouts == 2
            assert state_of(plane).counts.timeouts == 1

    run(body())


def test_client_that_leaves_ends_all_attempts() -> None:
    async def body() -> None:
        never = asyncio.Event()
        async with hedged(answering(b"one", never), answering(b"two", never)) as (plane, user, one, two):
            user.get()
            await until(lambda: two.open == 1)
            user.writer.transport.abort()
            await until(lambda: one.open == 0 and two.open == 0)
            assert total(plane, 0, "DC") == 1

    run(body())


def test_requests_that_may_not_be_repeated_are_not_hedged() -> None:
    async def body() -> None:
        never = asyncio.Event()
        async with hedged(answering(b"one", never), answering(b"two")) as (plane, user, _, two):
            answer = await user.ask("/", "Content-Length: 0", method="POST")
            assert answer.status == 504
            assert b"not safe to repeat" in answer.body
            assert (two.connections, state_of(plane).counts.hedges) == (0, 0)

    run(body())


def test_hedges_count_in_the_budget() -> None:
    async def body() -> None:
        release = asyncio.Event()
        limits = CircuitLimits(retry_budget=RetryBudget(percent=0.0, min_concurrency=0))
        async with hedged(answering(b"late", release), answering(b"two"), limits=limits) as (plane, user, _, two):
            user.get()
            await until(lambda: state_of(plane).counts.retries_refused == 1)
            release.set()
            assert (await user.response()).body == b"late"
            assert (two.connections, state_of(plane).counts.hedges) == (0, 0)

    run(body())


def test_late_attempt_whose_connection_is_reset_loses_quietly() -> None:
    async def body() -> None:
        release = asyncio.Event()

        async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            # With this, closing sends a reset.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

        second = asyncio.Event()
        async with hedged(resets, answering(b"two", second)) as (plane, user, one, two):
            user.get()
            await until(lambda: two.open == 1)
            release.set()
            await until(lambda: one.open == 0 and state_of(plane).active == 1)
            second.set()
            assert (await user.response()).body == b"two"

    run(body())
