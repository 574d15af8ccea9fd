"""Node ports on loopback: relayed to ready endpoints, with retries, caps and back-pressure."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from mesh.errors import MeshError
from mesh.net.loop import run as run_on_loop
from mesh.net.tasks import cancel_and_wait, spawn
from node.network.node_ports import NodePorts, wanted_ports
from node.network.services import ServiceEntry, ServiceTable
from tests.unit.node.network.tables import put_service, put_slice, ready

pytestmark = pytest.mark.component

_TIMEOUT_S = 10.0
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def backend(handler: Handler) -> AsyncIterator[int]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Listeners:
    """Opens every node port on a free port of loopback, after failing as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.opened = asyncio.Event()
        self.address = ("", 0)

    async def open(self, _address: str, _port: int) -> socket.socket:
        if self.failures:
            self.failures -= 1
            raise MeshError("taken")
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.address = listener.getsockname()
        self.opened.set()
        return listener


def table_with(port: int, *addresses: str) -> ServiceTable:
    table = ServiceTable()
    put_service(table, "web", clusterIP="10.96.0.5", ports=[{"port": 80, "protocol": "TCP", "nodePort": 30080}])
    put_slice(table, "web", [ready(address) for address in addresses], [{"port": port, "protocol": "TCP"}])
    return table


@contextlib.asynccontextmanager
async def serving(table: ServiceTable, listeners: Listeners, told: list[str] | None = None) -> AsyncIterator[None]:
    def tell_about(entry: ServiceEntry, message: str) -> None:
        if told is not None:
            told.append(f"{entry.name}: {message}")

    async with asyncio.timeout(_TIMEOUT_S), asyncio.TaskGroup() as tasks:
        running = spawn(tasks, NodePorts(table, listeners.open, random.Random(1), tell_about).run(), name="node ports")
        await listeners.opened.wait()
        try:
            yield
        finally:
            await cancel_and_wait(running)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only after the client's end of file: needs half-close."""
    writer.write(b"echo " + await reader.read())
    await writer.drain()


async def ask(address: tuple[str, int], payload: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(payload)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


def test_a_connection_is_relayed_with_half_close() -> None:
    async def run() -> None:
        listeners = Listeners()
        async with backend(echo) as port, serving(table_with(port, "127.0.0.1"), listeners):
            assert await ask(listeners.address, b"hello") == b"echo hello"

    run_on_loop(run())


def test_an_unreachable_endpoint_is_passed_over() -> None:
    async def run() -> None:
        listeners = Listeners()
        # 127.0.0.2 and .3 refuse: nobody listens there on this port.
        async with backend(echo) as port, serving(table_with(port, "127.0.0.1", "127.0.0.2", "127.0.0.3"), listeners):
            answers = await asyncio.gather(*(ask(listeners.address, b"x") for _ in range(12)))
            assert answers == [b"echo x"] * 12

    run_on_loop(run())


def test_no_endpoint_resets_the_connection() -> None:
    async def run() -> None:
        listeners = Listeners()
        async with serving(table_with(1), listeners):
            with contextlib.suppress(ConnectionError):
                assert await ask(listeners.address, b"x") == b""

    run_on_loop(run())


def test_a_slow_reader_slows_the_sender_down() -> None:
    async def run() -> None:
        sent = 0
        stalled = asyncio.Event()

        async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            while not stalled.is_set():
                writer.write(b"x" * 65536)
                sent += 65536
                try:
                    async with asyncio.timeout(0.3):
                        await writer.drain()
                except TimeoutError:
                    stalled.set()

        listeners = Listeners()
        async with backend(flood) as port, serving(table_with(port, "127.0.0.1"), listeners):
            reader, writer = await asyncio.open_connection(*listeners.address, limit=1024)
            await stalled.wait()
            # Kernel buffers of two connections and one relay buffer: some MB, not without end.
            assert sent < 32 << 20
            assert len(await reader.readexactly(sent - (1 << 20))) == sent - (1 << 20)
            writer.close()

    run_on_loop(run())


def test_a_taken_port_is_tried_again() -> None:
    async def run() -> None:
        listeners = Listeners(failures=1)
        told: list[str] = []
        async with backend(echo) as port, serving(table_with(port, "127.0.0.1"), listeners, told):
            assert await ask(listeners.address, b"later") == b"echo later"
        assert told == ["web: node port 30080 of this machine can't be opened, trying again: taken"]

    run_on_loop(run())


def test_a_service_that_goes_closes_its_port() -> None:
    async def run() -> None:
        listeners = Listeners()
        async with backend(echo) as port:
            table = table_with(port, "127.0.0.1")
            async with serving(table, listeners):
                put_service(table, "web", clusterIP="10.96.0.5", ports=[{"port": 80, "protocol": "TCP"}])
                while True:
                    try:
                        await ask(listeners.address, b"x")
                    except ConnectionRefusedError:
                        break
                    await asyncio.sleep(0.01)

    run_on_loop(run())


def test_udp_node_ports_are_left_out_and_the_first_owner_keeps_a_port() -> None:
    table = ServiceTable()
    put_service(table, "b", clusterIP="10.96.0.5", ports=[{"port": 80, "protocol": "TCP", "nodePort": 30080}])
    put_service(table, "a", clusterIP="10.96.0.6", ports=[{"port": 80, "protocol": "TCP", "nodePort": 30080}])
    put_service(table, "c", clusterIP="10.96.0.7", ports=[{"port": 53, "protocol": "UDP", "nodePort": 30053}])
    assert {port: one.service for port, one in wanted_ports(list(table.all())).items()} == {30080: ("default", "a")}
