"""What becomes of a connection that stops being HTTP: websockets with a real library on both ends, refused upgrades, CONNECT."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from mesh.routing.match import CONNECT_PATH, RouteMatch
from mesh.routing.table import Forward, Route, WeightedCluster
from sidecar.config import HttpFilter, Snapshot
from tests.component.plane_harness import client, cluster, origin, run, running, snapshot, total, until

pytestmark = pytest.mark.component


async def _echo(request: web.Request) -> web.StreamResponse:
    if request.query.get("refuse"):
        return web.Response(status=403, text="no")
    socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=1 << 22)
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
        elif message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data[::-1])
    return socket


@asynccontextmanager
async def websocket_server() -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/chat", _echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def test_websocket_of_a_real_library_end_to_end() -> None:
    async def body() -> None:
        async with websocket_server() as port, running(snapshot([cluster("c", port)])) as plane:
            _, listening = plane.address("in")
            async with aiohttp.ClientSession() as session:
                url = f"http://127.0.0.1:{listening}/chat"
                async with session.ws_connect(url, protocols=("chat",), max_msg_size=1 << 22) as socket:
                    assert socket.protocol == "chat"
                    for n in range(20):
                        await socket.send_str(f"hello {n}")
                        assert await socket.receive_str() == f"HELLO {n}"
                    big = bytes(range(256)) * 4096
                    await socket.send_bytes(big)
                    assert await socket.receive_bytes() == big[::-1]
                    await socket.ping()
                    assert await socket.close(code=4000)
                    assert socket.exception() is None
            await until(lambda: total(plane, 101) == 1)
            assert plane.plane.clusters["c"].active == 0

    run(body())


def test_refused_websocket_is_an_ordinary_answer() -> None:
    async def body() -> None:
        async with websocket_server() as port, running(snapshot([cluster("c", port)])) as plane:
            _, listening = plane.address("in")
            async with aiohttp.ClientSession() as session:
                for _ in range(2):
                    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                        await session.ws_connect(f"http://127.0.0.1:{listening}/chat?refuse=1")
                    assert caught.value.status == 403
                async with session.ws_connect(f"http://127.0.0.1:{listening}/chat") as socket:
                    await socket.send_str("after")
                    assert await socket.receive_str() == "AFTER"

    run(body())


def test_bytes_behind_a_refused_upgrade_are_the_next_request() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            user.send(
                b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            assert (await user.response()).status == 200
            assert (await user.response()).status == 200
            assert [request.split(b" ")[1] for request in up.requests] == [b"/a", b"/b"]

    run(body())


def test_a_switch_before_the_request_is_over_is_a_bad_gateway() -> None:
    async def body() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            await reader.read()

        async with (
            origin(script=script) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            user.get("/", "Content-Length: 5", "Connection: upgrade", "Upgrade: websocket", method="POST")
            assert (await user.response()).status == 502
            assert await user.at_eof()

    run(body())


async def _shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()
    writer.write(b"bye")


def _connect_snapshot(port: int, *, terminates: bool, offered: bool = True) -> Snapshot:
    action = Forward(clusters=(WeightedCluster(name="c"),), terminates_connect=terminates)
    routes = [
        Route(name="tunnel", match=RouteMatch(path=CONNECT_PATH), action=action),
        Route(name="rest", action=Forward(clusters=(WeightedCluster(name="c"),))),
    ]
    upgrades = frozenset({"connect", "websocket"}) if offered else frozenset({"websocket"})
    return snapshot([cluster("c", port)], routes, http=HttpFilter(route_table="table", upgrades=upgrades))


CONNECT = b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n"


def test_connect_ends_in_a_plain_connection_with_half_close_kept() -> None:
    async def body() -> None:
        async with (
            origin(script=_shout) as up,
            running(_connect_snapshot(up.port, terminates=True)) as plane,
            client(plane) as user,
        ):
            user.send(CONNECT + b"early ")
            head = await user.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"content-length" not in head
            assert await user.reader.readexactly(6) == b"EARLY "
            user.send(b"x" * 300_000)
            assert await user.reader.readexactly(300_000) == b"X" * 300_000
            user.writer.write_eof()
            assert await user.reader.read() == b"bye"
            await until(lambda: total(plane, 200) == 1)
            await until(lambda: up.open == 0)
            state = plane.plane.clusters["c"]
            assert (state.active, state.connections) == (0, 0)

    run(body())


def test_connect_that_finds_nobody_is_503_and_the_connection_goes_on() -> None:
    async def body() -> None:
        async with origin() as gone:
            pass
        async with running(_connect_snapshot(gone.port, terminates=True)) as plane, client(plane) as user:
            user.send(CONNECT)
            answer = await user.response()
            assert answer.status == 503
            assert total(plane, 503, "UF") == 1
            user.send(CONNECT)
            assert (await user.response()).status == 503

    run(body())


def test_client_that_leaves_while_its_tunnel_is_dialled_leaves_nothing_behind() -> None:
    async def body() -> None:
        async with origin(script=_shout) as up, running(_connect_snapshot(up.port, terminates=True)) as plane:
            for _ in range(20):
                async with client(plane) as user:
                    user.send(CONNECT)
                    user.writer.transport.abort()
            await until(lambda: not plane.plane.connections)
            state = plane.plane.clusters["c"]
            await until(lambda: (state.active, state.connections, up.open) == (0, 0, 0))

    run(body())


def test_connect_is_passed_on_and_its_2xx_opens_the_tunnel() -> None:
    async def body() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"CONNECT db.example:5432 HTTP/1.1\r\nhost: db.example:5432\r\n")
            # RFC 9110 s9.3.6: framing of a 2xx to CONNECT means nothing.
            writer.write(b"HTTP/1.1 200 Established\r\nContent-Length: 5\r\n\r\n")
            await _shout(reader, writer)

        async with (
            origin(script=script) as up,
            running(_connect_snapshot(up.port, terminates=False)) as plane,
            client(plane) as user,
        ):
            user.send(CONNECT)
            head = await user.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 Established\r\n")
            assert b"content-length" not in head.lower()
            user.send(b"abc")
            assert await user.reader.readexactly(3) == b"ABC"
            user.writer.write_eof()
            assert await user.reader.read() == b"bye"

    run(body())


def test_connect_refused_upstream_is_an_ordinary_answer() -> None:
    async def body() -> None:
        answer = (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno"
        )
        async with (
            origin(lambda _: answer) as up,
            running(_connect_snapshot(up.port, terminates=False)) as plane,
            client(plane) as user,
        ):
            for _ in range(2):
                user.send(CONNECT)
                got = await user.response()
                assert (got.status, got.body, got.headers["proxy-authenticate"]) == (407, b"no", "Basic")

    run(body())


@pytest.mark.parametrize(("offered", "host", "status"), [(False, "any", 405), (True, "other", 200), (True, "any", 200)])
def test_connect_goes_only_where_it_is_offered(offered: bool, host: str, status: int) -> None:
    async def body() -> None:
        config = _connect_snapshot(1, terminates=True, offered=offered)
        async with origin(script=_shout) as up:
            config = _connect_snapshot(up.port, terminates=True, offered=offered)
            async with running(config) as plane, client(plane) as user:
                user.send(f"CONNECT {host}:1 HTTP/1.1\r\nHost: {host}:1\r\n\r\n".encode())
                head = await user.reader.readuntil(b"\r\n\r\n")
                assert int(head.split(b" ")[1]) == status

    run(body())


def test_connect_without_a_route_of_its_own_is_404() -> None:
    async def body() -> None:
        http = HttpFilter(route_table="table", upgrades=frozenset({"connect"}))
        async with (
            origin() as up,
            running(snapshot([cluster("c", up.port)], http=http)) as plane,
            client(plane) as user,
        ):
            user.send(CONNECT)
            assert (await user.response()).status == 404
            assert up.requests == []

    run(body())
