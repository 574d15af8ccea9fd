"""Copies of requests: what they look like, and that no client ever notices them."""

import asyncio
from typing import Any

import pytest

from mesh.resilience.limits import CircuitLimits
from mesh.routing.headers import HeaderMutation, HeaderValue
from mesh.routing.mirror import Mirror
from mesh.routing.table import Forward, Route, WeightedCluster
from sidecar.config import Cluster, Snapshot
from sidecar.filters.counts import FilterCount
from sidecar.server import DataPlane
from sidecar.shadow import shadow_head
from tests.component.plane_harness import client, cluster, origin, run, running, snapshot, total, until

pytestmark = pytest.mark.component


def mirrored(port: int, mirror: Cluster, *mirrors: Mirror, **fields: Any) -> Snapshot:
    action = Forward(
        clusters=(WeightedCluster(name="c"),), mirrors=mirrors or (Mirror(cluster="m"),), prefix_rewrite="/new"
    )
    return snapshot([cluster("c", port), mirror], [Route(name="r", action=action, **fields)])


def counted(plane: DataPlane, count: FilterCount) -> int:
    return plane.plane.stats.filters.get(count, "m")


def lines_of(request: bytes) -> list[bytes]:
    return request.partition(b"\r\n\r\n")[0].split(b"\r\n")


def test_copy_is_the_request_with_another_host() -> None:
    async def body() -> None:
        added = HeaderMutation(add=(HeaderValue(name="x-add", value="1"),))
        async with origin() as up, origin() as copy:
            config = mirrored(up.port, cluster("m", copy.port), request_headers=added)
            async with running(config) as plane, client(plane) as user:
                user.send(b"POST /x?q HTTP/1.1\r\nHost: web:80\r\nContent-Length: 8\r\n\r\nbody")
                await until(lambda: plane.plane.clusters["c"].active == 1)
                user.send(b"more")
                assert (await user.response()).body == b"ok"
                await until(lambda: counted(plane, FilterCount.MIRROR_ANSWERED) == 1)
                sent, copied = lines_of(up.requests[0]), lines_of(copy.requests[0])
                assert sent[0] == copied[0] == b"POST /newx?q HTTP/1.1"
                assert b"host: web-shadow:80" in copied
                assert {line for line in copied if not line.startswith(b"host")} == {
                    line for line in sent if not line.startswith(b"host")
                }
                assert b"x-add: 1" in copied
                assert copy.requests[0].endswith(b"\r\n\r\nbodymore")
                assert total(plane, 200) == 1
                assert [plane.plane.clusters[name].active for name in ("c", "m")] == [0, 0]
                # Its connection is kept for the next copy.
                await user.ask("/")
                await until(lambda: counted(plane, FilterCount.MIRROR_ANSWERED) == 2)
                assert copy.connections == 1

    run(body())


def test_chunked_body_is_copied() -> None:
    async def body() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n0\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        seen: list[bytes] = []
        async with (
            origin(script=script) as up,
            origin(script=script) as copy,
            running(mirrored(up.port, cluster("m", copy.port))) as plane,
            client(plane) as user,
        ):
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            assert (await user.response()).status == 200
            await until(lambda: counted(plane, FilterCount.MIRROR_ANSWERED) == 1)
            assert [one.partition(b"\r\n\r\n")[2] for one in seen] == [b"3\r\nabc\r\n0\r\n\r\n"] * 2

    run(body())


@pytest.mark.parametrize("kind", ["refused", "closes", "nonsense", "silent", "500"])
def test_client_never_notices_a_broken_mirror(kind: str) -> None:
    async def body() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                if kind == "nonsense":
                    writer.write(b"no http at all\r\n\r\n")
                elif kind == "500":
                    writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
                elif kind == "closes":
                    return

        async with origin() as up, origin(script=script) as copy:
            port = 1 if kind == "refused" else copy.port
            action = Forward(clusters=(WeightedCluster(name="c"),), mirrors=(Mirror(cluster="m"),), timeout_s=0.3)
            config = snapshot([cluster("c", up.port), cluster("m", port)], [Route(name="r", action=action)])
            async with running(config) as plane, client(plane) as user:
                for _ in range(2):
                    answer = await user.ask("/")
                    assert (answer.status, answer.body) == (200, b"ok")
                ended = FilterCount.MIRROR_ANSWERED if kind == "500" else FilterCount.MIRROR_FAILED
                await until(lambda: counted(plane, ended) == 2)
                assert plane.plane.clusters["m"].active == 0
                assert total(plane, 200) == 2

    run(body())


def test_share_of_copies_is_drawn() -> None:
    async def body() -> None:
        async with origin() as up, origin() as copy:
            config = mirrored(up.port, cluster("m", copy.port), Mirror(cluster="m", share=0.25, keeps_host=True))
            async with running(config) as plane, client(plane) as user:
                plane.plane.rng.seed(2)
                for _ in range(200):
                    await user.ask("/")
                await until(lambda: counted(plane, FilterCount.MIRROR_ANSWERED) == len(copy.requests))
                assert 0.15 < len(copy.requests) / 200 < 0.35
                assert b"Host: a.example" in copy.requests[0] or b"host: a.example" in copy.requests[0]

    run(body())


def test_copies_keep_to_the_limits_of_their_cluster() -> None:
    async def body() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with origin() as up, origin(script=script) as copy:
            target = cluster("m", copy.port, limits=CircuitLimits(max_requests=1))
            async with running(mirrored(up.port, target)) as plane, client(plane) as user:
                for _ in range(3):
                    assert (await user.ask("/")).status == 200
                await until(lambda: counted(plane, FilterCount.MIRROR_SENT) == 1)
                assert counted(plane, FilterCount.MIRROR_DROPPED) == 2

    run(body())


def test_large_bodies_are_not_copied() -> None:
    async def body() -> None:
        async with (
            origin() as up,
            origin() as copy,
            running(mirrored(up.port, cluster("m", copy.port))) as plane,
            client(plane) as user,
        ):
            size = 200_000
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
            assert (await user.response()).status == 200
            assert counted(plane, FilterCount.MIRROR_DROPPED) == 1
            assert copy.requests == []

    run(body())


def test_missing_cluster_copies_nothing() -> None:
    async def body() -> None:
        async with origin() as up:
            action = Forward(clusters=(WeightedCluster(name="c"),), mirrors=(Mirror(cluster="gone"),))
            config = snapshot([cluster("c", up.port)], [Route(name="r", action=action)])
            async with running(config) as plane, client(plane) as user:
                assert (await user.ask("/")).status == 200
                assert plane.plane.stats.filters.get(FilterCount.MIRROR_DROPPED, "gone") == 1

    run(body())


@pytest.mark.parametrize(
    ("mirror", "host", "want"),
    [
        (Mirror(cluster="m"), b"Host: web", b"host: web-shadow"),
        (Mirror(cluster="m"), b"host: [::1]:8080", b"host: [::1]-shadow:8080"),
        (Mirror(cluster="m", keeps_host=True), b"HOST: web", b"host: web"),
        (Mirror(cluster="m", host_rewrite="other"), b"host: web:1", b"host: other"),
    ],
)
def test_host_of_copies(mirror: Mirror, host: bytes, want: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nx: host\r\n" + host + b"\r\n\r\n"
    assert shadow_head(head, mirror) == b"GET / HTTP/1.1\r\nx: host\r\n" + want + b"\r\n\r\n"
