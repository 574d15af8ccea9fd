"""Connections that have ended are freed at once, not when the collector comes by: under churn it would come too late."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mesh.routing.table import WeightedCluster
from sidecar.config import FilterChain, Listener, Snapshot, TcpFilter
from sidecar.downstream import DownstreamConnection
from sidecar.exchange import Exchange
from sidecar.server import DataPlane
from sidecar.tcp import TcpConnection
from sidecar.upstream import UpstreamConnection
from tests.component.plane_harness import Client, client, cluster, forward, origin, run, running, snapshot, until

pytestmark = pytest.mark.component

ROUNDS = 5


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def left(*kinds: type) -> int:
    return sum(type(one) in kinds for one in gc.get_objects())


async def all_gone(plane: DataPlane, before: int, *kinds: type) -> None:
    await until(lambda: plane.plane.downstream_open == 0)
    plane.plane.wheel.turn(time.monotonic() + 10)  # entries of ended connections
    await until(lambda: left(*kinds) == before)


async def use(kind: str, user: Client, plane: DataPlane) -> None:
    """What a client does with its connection before it goes."""
    match kind:
        case "kept" | "upstream closes":
            await user.ask()
        case "closed":
            await user.ask("/", "Connection: close")
            assert await user.at_eof()
        case "body":
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
            assert (await user.response()).status == 200
        case "half a request":
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
            await until(lambda: plane.plane.downstream_open == 1)
        case "bad request":
            user.send(b"\x00\r\n\r\n")
            assert (await user.response()).status == 400


@pytest.mark.parametrize(
    "kind", ["silent", "kept", "closed", "body", "half a request", "bad request", "upstream closes"]
)
def test_ended_http_connection_is_freed(kind: str) -> None:
    async def work() -> None:
        async with (
            origin(answer=(lambda _: None) if kind == "upstream closes" else None) as upstream,
            running(snapshot([cluster("c", upstream.port)], [forward("c")])) as plane,
        ):
            with no_collector():
                for _ in range(ROUNDS):
                    async with client(plane) as user:
                        await use(kind, user, plane)
                await all_gone(plane, 0, DownstreamConnection, Exchange)
                assert left(UpstreamConnection) <= 1

    run(work())


def test_ended_tcp_connection_is_freed() -> None:
    async def work() -> None:
        async with origin() as upstream:
            chain = FilterChain(filter=TcpFilter(clusters=(WeightedCluster(name="c"),)))
            listener = Listener(name="in", address="127.0.0.1", port=0, chains=(chain,))
            config = Snapshot(listeners=(listener,), clusters={"c": cluster("c", upstream.port)})
            async with running(config) as plane:
                with no_collector():
                    for _ in range(ROUNDS):
                        async with client(plane) as user:
                            assert (await user.ask()).status == 200
                    await all_gone(plane, 0, TcpConnection)

    run(work())
