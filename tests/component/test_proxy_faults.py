"""Single faults of peers, one after the other: what the proxy must bear without a wrong answer, a leak or a hang."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from mesh.resilience.limits import CircuitLimits
from mesh.resilience.outlier import OutlierConfig
from mesh.routing.match import PathKind, PathMatch, RouteMatch
from mesh.routing.table import DirectResponse, Route
from sidecar.config import HttpFilter
from sidecar.downstream import DownstreamConnection
from sidecar.server import DataPlane
from tests.component.plane_harness import (
    OK,
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

LARGE = 200_000


def large(request: bytes) -> bytes:
    path = request.split(b" ")[1]
    return b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: %d\r\n\r\n" % LARGE + path * (LARGE // len(path))


def page(request: bytes) -> bytes:
    """As many bytes as the path says."""
    size = int(request.split(b" ")[1][1:])
    return b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size


def peers(plane: DataPlane) -> dict[Any, DownstreamConnection]:
    return {one.transport.get_extra_info("peername"): one for one in plane.plane.connections}


@contextlib.asynccontextmanager
async def deaf_client(plane: DataPlane) -> Any:
    """A client whose kernel takes in as little as possible until `reader` is asked for."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, plane.address("in"))
    await until(lambda: sock.getsockname() in peers(plane))
    # The kernel on the proxy's side holds little too, so that what waits, waits in the proxy.
    own = peers(plane)[sock.getsockname()].transport.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    try:
        yield sock
    finally:
        sock.close()


@contextlib.asynccontextmanager
async def narrow_origin(script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Any:
    """An origin whose kernel takes in little, as over a long line."""
    made = Origin(script=script)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listening.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(made.serve, sock=listening, limit=4096)
    made.port = listening.getsockname()[1]
    try:
        yield made
    finally:
        server.close()


async def settle() -> None:
    """Let everything happen that can happen without another push."""
    for _ in range(20):
        await asyncio.sleep(0.002)


def test_pipelined_answers_of_our_own_don_t_pile_up_on_the_stack() -> None:
    async def body() -> None:
        route = Route(name="r", action=DirectResponse(status=200, body=b"hi"))
        async with running(snapshot([cluster("c", 1)], [route])) as plane, client(plane) as user:
            user.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2000)
            for _ in range(2000):
                assert (await user.response()).body == b"hi"

    run(body())


def test_connection_kept_after_its_client_stopped_reading_still_reads() -> None:
    async def body() -> None:
        async with origin(page) as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            await user.ask("/10")  # now there is a connection to share
            async with deaf_client(plane) as sock:
                for _ in range(5):
                    sock.send(b"GET /60000 HTTP/1.1\r\nHost: a\r\n\r\n")
                    await settle()
                async with asyncio.timeout(3):
                    for _ in range(3):
                        assert (await user.ask("/10")).body == b"x" * 10

    run(body())


def test_broken_response_without_length_never_looks_complete() -> None:
    async def body() -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

        async with (
            origin(script=half) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            # To HTTP/1.0 the end of the connection is the end of the body: so it must not end, but break.
            user.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                await user.response()
            assert total(plane, 200, "UC") == 1

    run(body())


def test_slow_reader_gets_the_end_of_a_last_response() -> None:
    async def body() -> None:
        async with origin(page) as up, running(snapshot([cluster("c", up.port)])) as plane, deaf_client(plane) as sock:
            loop = asyncio.get_running_loop()
            sock.send(b"GET /60000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await until(lambda: buffered(plane) > 40_000)
            got = bytearray()
            while data := await loop.sock_recv(sock, 1500):
                got += data
                await asyncio.sleep(0.08)  # in all, longer than a client may go on sending after a last answer
            assert got.partition(b"\r\n\r\n")[2] == b"x" * 60_000

    run(body())


@pytest.mark.parametrize("last_line", [b"", b"Connection: close\r\n"])
def test_client_that_never_reads_is_let_go(last_line: bytes) -> None:
    async def body() -> None:
        http = HttpFilter(route_table="table", stream_idle_timeout_s=0.3)
        async with (
            origin(large) as up,
            running(snapshot([cluster("c", up.port)], http=http)) as plane,
            deaf_client(plane) as sock,
        ):
            sock.send(b"GET /x HTTP/1.1\r\nHost: a\r\n%b\r\n" % last_line)
            await until(lambda: buffered(plane) > 0)
            await until(lambda: plane.plane.stats.downstream_connections_active == 0)
            assert plane.plane.clusters["c"].active == 0

    run(body())


@pytest.mark.parametrize("count", [1, 5])
def test_client_that_never_reads_complete_responses_is_let_go(count: int) -> None:
    async def body() -> None:
        http = HttpFilter(route_table="table", stream_idle_timeout_s=0.3, idle_timeout_s=0.5)
        async with (
            origin(page) as up,
            running(snapshot([cluster("c", up.port)], http=http)) as plane,
            deaf_client(plane) as sock,
        ):
            for _ in range(count):
                sock.send(b"GET /60000 HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: buffered(plane) > 0)
            await until(lambda: plane.plane.stats.downstream_connections_active == 0)
            assert plane.plane.clusters["c"].active == 0

    run(body())


def test_post_that_takes_no_old_connection_finds_a_place_for_a_new_one() -> None:
    async def body() -> None:
        limits = CircuitLimits(max_connections=1)
        async with (
            origin() as up,
            running(snapshot([cluster("c", up.port, limits=limits)])) as plane,
            client(plane) as user,
        ):
            await user.ask()
            next(iter(plane.plane.clusters["c"].hosts.values())).idle[0].idle_since -= 5.0
            async with asyncio.timeout(2):
                assert (await user.ask("/", "Content-Length: 0", method="POST")).status == 200
            assert plane.plane.clusters["c"].connections == 1

    run(body())


def buffered(plane: DataPlane) -> int:
    """Bytes that the proxy holds for its clients and their upstreams."""
    found = 0
    for connection in plane.plane.connections:
        found += connection.transport.get_write_buffer_size()
        upstream = connection.exchange.upstream
        if upstream is not None and not upstream.is_closed:
            found += upstream.transport.get_write_buffer_size()
    return found


def test_client_that_stops_reading_in_the_middle_of_its_body_is_not_read_from_for_ever() -> None:
    async def body() -> None:
        async with origin(page) as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            user.get("/60000")
            head_bytes = len(await user.reader.readuntil(b"\r\n\r\n"))
            async with deaf_client(plane) as sock:
                sock.send(b"GET /60000 HTTP/1.1\r\nHost: a\r\n\r\n")
                await until(lambda: buffered(plane) > 40_000)
                await settle()
                # A few bytes below the mark at which the loop says that it holds enough ...
                size = 65536 - 10 - buffered(plane) - head_bytes
                sock.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % size)
                await until(lambda: buffered(plane) > 65_500)
                # ... which is then passed in the middle of a request.
                sock.send(b"POST /5 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
                await until(lambda: buffered(plane) > 65_536)
                sock.send(b"ab")
                for _ in range(30):
                    await settle()
                    sock.send(b"GET /60000 HTTP/1.1\r\nHost: a\r\n\r\n")
                assert buffered(plane) < 300_000

    run(body())


@pytest.mark.parametrize("is_first", [True, False])
def test_fast_upload_to_a_slow_server_is_held_back(is_first: bool) -> None:
    async def body() -> None:
        release = asyncio.Event()
        size = 30_000_000

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            if not is_first:
                writer.write(OK)
                await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            left = size
            while left > 0:
                left -= len(await reader.read(1 << 20))
            writer.write(OK)

        async with (
            narrow_origin(slow) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            if not is_first:
                await user.ask()
            user.get("/", f"Content-Length: {size}", method="POST")
            user.send(b"x" * size)
            for _ in range(100):
                await asyncio.sleep(0.002)
                assert buffered(plane) < 1_500_000
            release.set()
            assert (await user.response()).status == 200

    run(body())


def test_answer_of_a_server_that_breaks_off_the_body_still_arrives() -> None:
    async def body() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            listening.setblocking(False)
            loop = asyncio.get_running_loop()
            async with running(snapshot([cluster("c", listening.getsockname()[1])])) as plane, client(plane) as user:
                user.get("/", "Content-Length: 50000", method="POST")
                user.send(b"x" * 10_000)
                server, _ = await loop.sock_accept(listening)
                await settle()
                sock = user.writer.get_extra_info("socket")
                assert sock is not None
                # In one go, and the body first: the proxy writes to a connection that is reset before it reads the answer.
                user.send(b"x" * 10_000)
                server.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
                server.close()
                answer = await user.response()
                assert (answer.status, answer.body) == (413, b"big")
                assert total(plane, 413) == 1
                assert plane.plane.clusters["c"].active == 0

    run(body())


def test_connection_whose_request_is_not_written_yet_is_not_kept() -> None:
    async def body() -> None:
        release = asyncio.Event()

        async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(0.05)  # all of the request has come to the proxy, not all has left it
                writer.write(OK)
                await release.wait()
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))

        async with (
            narrow_origin(early) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            host = next(iter(plane.plane.clusters["c"].hosts.values()))
            for size in (10_000, 60_000):
                release.clear()
                for kept in host.idle:  # the kernel holds little on this side too
                    kept.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                user.get("/", f"Content-Length: {size}", method="PUT")
                user.send(b"x" * size)
                assert (await user.response()).status == 200
                assert len(host.idle) == (1 if size == 10_000 else 0)
                release.set()
                await settle()
            assert up.connections == 1

    run(body())


def test_closing_with_requests_in_the_queue_is_quiet() -> None:
    async def body() -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        limits = CircuitLimits(max_connections=1)
        async with origin(script=hang) as up, contextlib.AsyncExitStack() as stack:
            async with running(snapshot([cluster("c", up.port, limits=limits)])) as plane:
                for _ in range(5):
                    user: Client = await stack.enter_async_context(client(plane))
                    user.get()
                await until(lambda: plane.plane.clusters["c"].pending == 4)
            await settle()

    run(body())


def test_half_a_head_is_the_servers_failure_even_on_a_kept_connection() -> None:
    """Source: Envoy 1.40 answers 502, flag UPE: what it got is no response."""

    async def body() -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nX-Half: ")

        outlier = OutlierConfig(consecutive_5xx=1, max_ejection_percent=100)
        async with (
            origin(script=half) as up,
            running(snapshot([cluster("c", up.port, outlier=outlier)])) as plane,
            client(plane) as user,
        ):
            assert (await user.ask()).status == 200
            assert (await user.ask()).status == 502
            assert total(plane, 502, "UPE") == 1
            assert plane.plane.clusters["c"].ejections_total == 1

    run(body())


def test_huge_response_heads_are_refused_however_they_arrive() -> None:
    async def body() -> None:
        block = b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n" + b"X-Long: " + b"y" * 70_000 + b"\r\n\r\nok"

        async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for at in range(0, len(block), 5000):
                writer.write(block[at : at + 5000])
                await asyncio.sleep(0.001)
            await reader.read()

        for changes in ({"answer": lambda _: block}, {"script": in_pieces}):
            async with (
                origin(**changes) as up,
                running(snapshot([cluster("c", up.port)])) as plane,
                client(plane) as user,
            ):
                answer = await user.ask()
                assert (answer.status, total(plane, 502, "UPE")) == (502, 1)

    run(body())


def test_endless_interim_answers_end_in_an_error() -> None:
    async def body() -> None:
        async def hints(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 10)
                await writer.drain()
                await asyncio.sleep(0)

        async with (
            origin(script=hints) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            user.get()
            async with asyncio.timeout(3):
                while (answer := await user.response()).status == 103:
                    pass
            assert answer.status == 502
            assert total(plane, 502, "UPE") == 1
            await until(lambda: up.open == 0)

    run(body())


def test_unsafe_request_is_not_sent_where_the_server_has_hung_up() -> None:
    async def body() -> None:
        async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)  # and closes, without having said so

        async with (
            origin(script=short) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            for _ in range(20):
                assert (await user.ask()).status == 200
                await asyncio.sleep(0.005)
                assert (await user.ask("/", "Content-Length: 0", method="POST")).status == 200
                await asyncio.sleep(0.005)
            await until(lambda: up.open == 0)
            assert plane.plane.clusters["c"].connections == 0

    run(body())


def test_connection_that_is_reset_at_once_costs_one_answer() -> None:
    async def body() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            listening.setblocking(False)

            async def slam() -> None:
                while True:
                    sock, _ = await asyncio.get_running_loop().sock_accept(listening)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                    sock.close()

            async with asyncio.TaskGroup() as tasks:
                slamming = tasks.create_task(slam())
                async with (
                    running(snapshot([cluster("c", listening.getsockname()[1])])) as plane,
                    client(plane) as user,
                ):
                    started = time.monotonic()
                    for _ in range(50):
                        assert (await user.ask()).status == 503
                    assert time.monotonic() - started < 3
                    await until(lambda: plane.plane.clusters["c"].connections == 0)
                slamming.cancel()

    run(body())


@pytest.mark.parametrize("first", range(1, 24))
def test_head_may_come_in_two_pieces(first: int) -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            user.send(head[:first])
            await settle()
            user.send(head[first:])
            assert (await user.response()).status == 200

    run(body())


@pytest.mark.parametrize("most", [2, 1000])
def test_who_found_a_closed_connection_gets_a_new_one_not_another_kept_one(most: int) -> None:
    async def body() -> None:
        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.001)
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")

        limits = CircuitLimits(max_connections=most)
        async with origin(script=once) as up, running(snapshot([cluster("c", up.port, limits=limits)])) as plane:

            async def ask() -> None:
                async with client(plane) as user:
                    for _ in range(20):
                        assert (await user.ask()).status == 200

            async with asyncio.TaskGroup() as tasks:
                for _ in range(10):
                    tasks.create_task(ask())
            assert plane.plane.clusters["c"].pending == 0

    run(body())


def test_end_of_the_proxy_is_an_end_for_who_has_all_and_a_break_for_who_has_not() -> None:
    async def body() -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await reader.read()

        async with origin() as up, origin(script=half) as slow:
            clusters = [cluster("c", up.port), cluster("slow", slow.port)]
            slow_path = RouteMatch(path=PathMatch(kind=PathKind.EXACT, value="/slow"))
            routes = [replace(forward("slow"), match=slow_path), forward("c")]
            async with running(snapshot(clusters, routes)) as plane, client(plane) as user, client(plane) as waiting:
                assert (await user.ask()).status == 200
                waiting.send(b"GET /slow HTTP/1.0\r\nHost: a\r\n\r\n")
                await waiting.reader.readuntil(b"half")
                plane.close()
                assert await user.reader.read() == b""
                with pytest.raises(ConnectionResetError):
                    await waiting.reader.read()

    run(body())
