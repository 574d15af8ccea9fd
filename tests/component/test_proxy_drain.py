"""Ends without loss: endpoints that leave, and a proxy that leaves, under load. Over real sockets."""

import asyncio
from dataclasses import replace

import pytest

from sidecar.plane import QUIET_S
from sidecar.server import DataPlane
from tests.component.plane_harness import OK, client, cluster, origin, run, running, snapshot, total, until

pytestmark = pytest.mark.component


async def _slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.3 if head.startswith(b"GET /slow") else 0.002)
        writer.write(OK)


async def _use(plane: DataPlane, path: str, statuses: list[int]) -> None:
    """A client that keeps its connection, without a pause, until it is told to close it."""
    async with client(plane) as user:
        while True:
            answer = await user.ask(path)
            statuses.append(answer.status)
            if answer.headers.get("connection") == "close":
                assert await user.at_eof()
                return


def test_no_request_fails_while_a_loaded_proxy_drains() -> None:
    async def body() -> None:
        async with origin(script=_slow) as up, running(snapshot([cluster("c", up.port)])) as plane:
            statuses: list[int] = []
            async with asyncio.TaskGroup() as users:
                for at in range(24):
                    # The group owns them; an exception of any of them fails the test.
                    users.create_task(_use(plane, "/slow" if at % 8 == 0 else "/", statuses))
                await until(lambda: len(statuses) > 200)
                plane.drain()
                assert not plane.is_drained
            assert set(statuses) == {200}
            await until(lambda: plane.is_drained)
            assert total(plane, 200) == len(statuses)

    run(body())


def test_client_that_was_about_to_ask_is_answered_and_told_to_close() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            assert (await user.ask()).status == 200
            plane.drain()
            await asyncio.sleep(QUIET_S / 4)
            answer = await user.ask()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            await until(lambda: plane.is_drained)

    run(body())


def test_connection_without_requests_is_closed_after_a_while_and_a_long_idle_one_at_once() -> None:
    async def body() -> None:
        async with (
            origin() as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as fresh,
            client(plane) as old,
        ):
            assert (await fresh.ask()).status == (await old.ask()).status == 200
            for connection in plane.plane.connections:
                if connection.transport.get_extra_info("peername") == old.writer.get_extra_info("sockname"):
                    connection.deadline -= 10.0  # it became idle 10 s earlier
            plane.drain()
            assert await old.at_eof()
            assert not plane.is_drained
            assert await fresh.at_eof()
            await until(lambda: plane.is_drained)

    run(body())


def test_removed_endpoint_finishes_what_it_has() -> None:
    async def body() -> None:
        release = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 4\r\n\r\nle")
                await release.wait()
                writer.write(b"ft")

        async with origin(script=slow) as leaving, origin() as staying:
            before = snapshot([cluster("c", leaving.port)])
            async with running(before) as plane, client(plane) as busy, client(plane) as other:
                busy.get()
                await until(lambda: leaving.open == 1)
                await plane.apply(replace(before, clusters={"c": cluster("c", staying.port)}))
                assert (await other.ask()).body == b"ok"
                assert leaving.open == 1
                release.set()
                assert (await busy.response()).body == b"left"
                await until(lambda: leaving.open == 0)  # its connection is not kept
                assert (await busy.ask()).body == b"ok"
                assert leaving.connections == 1

    run(body())


def test_request_that_waits_for_a_connection_to_a_removed_endpoint_still_goes_there() -> None:
    async def body() -> None:
        async with origin() as leaving, origin() as staying:
            before = snapshot([cluster("c", leaving.port)])
            async with running(before) as plane, client(plane) as user:
                user.get()
                await until(lambda: plane.plane.clusters["c"].active == 1 or len(leaving.requests) == 1)
                await plane.apply(replace(before, clusters={"c": cluster("c", staying.port)}))
                assert (await user.response()).status == 200
                assert len(leaving.requests) == 1
                await until(lambda: leaving.open == 0)

    run(body())
