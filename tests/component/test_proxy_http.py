"""The data plane over real sockets: forwarding, keep-alive, framing, streams, upgrades."""

import asyncio

import pytest

from mesh.routing.table import RouteTable
from sidecar.config import HttpFilter
from tests.component.plane_harness import (
    OK,
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


def test_requests_share_connections_on_both_sides() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            for _ in range(5):
                answer = await user.ask("/x")
                assert (answer.status, answer.body) == (200, b"ok")
                assert "x-envoy-upstream-service-time" in answer.headers
                assert answer.headers["server"] == "meshwork"
            assert up.connections == 1
            assert total(plane, 200) == 5
            assert plane.plane.clusters["c"].active == 0

    run(body())


def test_forwarded_head_is_clean_and_complete() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            await user.ask("/a?b", "Connection: x-gone", "X-Gone: 1", "X-Forwarded-Client-Cert: evil", "X-Kept: 1")
            head = up.requests[0].lower()
            assert head.startswith(b"get /a?b http/1.1\r\nhost: a.example\r\n")
            assert b"x-kept: 1\r\n" in head
            assert b"x-forwarded-proto: http\r\n" in head
            assert b"x-request-id: " in head
            for gone in (b"x-gone", b"connection", b"client-cert"):
                assert gone not in head
            await user.ask("/a", "X-Request-Id: mine")
            assert up.requests[1].lower().count(b"x-request-id: mine\r\n") == 1

    run(body())


def test_two_proxies_in_a_row_keep_one_of_each_header() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("app", up.port)])) as server:
            config = snapshot([cluster("server", server.address("in")[1])], include_attempt_count=True)
            async with running(config) as near, client(near) as user:
                for path in ("/", "/", "/other"):
                    user.get(path, "X-Envoy-Attempt-Count: 7", "X-Forwarded-Proto: https")
                    raw = (await user.reader.readuntil(b"\r\n\r\n")).lower()
                    await user.reader.readexactly(2)
                    for name in (b"x-envoy-upstream-service-time:", b"server:", b"content-length:"):
                        assert raw.count(name) == 1
                request = up.requests[-1].lower()
                for line in (b"x-envoy-attempt-count: 1\r\n", b"x-forwarded-proto: https\r\n"):
                    assert request.count(line) == 1
                assert request.lower().count(b"attempt-count") == 1
                assert request.count(b"x-request-id: ") == 1

    run(body())


def test_request_ids_differ_for_equal_requests() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            for _ in range(20):
                await user.ask("/")
            ids = {
                line for request in up.requests for line in request.split(b"\r\n") if line.startswith(b"x-request-id")
            }
            assert len(ids) == 20

    run(body())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def body() -> None:
        def echo_path(request: bytes) -> bytes:
            path = request.split(b" ")[1]
            return b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path)

        async with origin(echo_path) as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            user.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(50)))
            for n in range(50):
                assert (await user.response()).body == b"/%d" % n

    run(body())


def test_request_fed_byte_by_byte_with_a_body_and_the_next_request_behind() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            for (
                byte
            ) in b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /q HTTP/1.1\r\nHost: a\r\n\r\n":
                user.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await user.response()).status == 200
            assert (await user.response()).status == 200
            assert up.requests[0].endswith(b"\r\n\r\nabc")
            assert up.requests[1].startswith(b"GET /q ")

    run(body())


def test_chunked_both_ways_with_trailers() -> None:
    async def body() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            sent = await reader.readuntil(b"X-Sum: 9\r\n\r\n")
            assert sent == b"5\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 9\r\n\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in (b"3;x=y\r\nabc\r\n", b"2\r\nde", b"\r\n0\r\nX-End: 1\r\n\r\n"):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            await reader.read()

        async with (
            origin(script=script) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await asyncio.sleep(0.02)
            user.send(b"1;ext\r\n!\r\n0\r\nX-Sum: 9\r\n\r\n")
            answer = await user.response()
            assert answer.body == b"abcde"
            assert answer.headers["trailer x-end"] == "1"
            assert "date" in answer.headers

    run(body())


def test_response_may_stream_while_the_request_still_does() -> None:
    async def body() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while (line := await reader.readuntil(b"\r\n")) != b"0\r\n":
                data = await reader.readexactly(int(line, 16) + 2)
                writer.write(line + data)
            writer.write(b"0\r\n\r\n")
            await reader.read()

        async with (
            origin(script=echo) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            head = await user.reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head
            for n in range(5):
                user.send(b"1\r\n%d\r\n" % n)
                assert await user.reader.readexactly(6) == b"1\r\n%d\r\n" % n
            user.send(b"0\r\n\r\n")
            assert await user.reader.readexactly(5) == b"0\r\n\r\n"
            await until(lambda: total(plane, 200) == 1)

    run(body())


def test_body_until_close_becomes_chunked_and_the_client_connection_stays() -> None:
    async def body() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\n\r\nold ")
            await asyncio.sleep(0.01)
            writer.write(b"style")

        async with (
            origin(script=script) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            for _ in range(2):
                answer = await user.ask()
                assert (answer.status, answer.body) == (200, b"old style")
            assert up.connections == 2

    run(body())


def test_http_1_0_clients() -> None:
    async def body() -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        async with origin(lambda _: chunked) as up, running(snapshot([cluster("c", up.port)])) as plane:
            async with client(plane) as user:
                user.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
                answer = await user.response()
                assert answer.body == b"ok"
                assert "transfer-encoding" not in answer.headers
            up.answer = lambda _: OK
            async with client(plane) as user:
                for _ in range(2):
                    user.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                    assert (await user.response()).headers["connection"] == "keep-alive"

    run(body())


def test_connection_close_is_honoured_on_both_sides() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane:
            async with client(plane) as user:
                assert (await user.ask("/", "Connection: close")).headers["connection"] == "close"
                assert await user.at_eof()
            up.answer = lambda _: b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
            async with client(plane) as user:
                for _ in range(2):
                    answer = await user.ask()
                    assert answer.body == b"ok"
                    assert "connection" not in answer.headers
            assert up.connections == 2  # the first was kept from before, the second had to be new

    run(body())


@pytest.mark.parametrize(
    ("method", "answer", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nDate: d\r\nContent-Length: 2\r\n\r\n", 304),
    ],
)
def test_responses_without_a_body(method: str, answer: bytes, status: int) -> None:
    async def body() -> None:
        async with (
            origin(lambda _: answer) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            for _ in range(3):
                got = await user.ask(method=method)
                assert (got.status, got.body) == (status, b"")
            assert up.connections == 1

    run(body())


def test_continue_is_said_at_once_and_interim_responses_pass() -> None:
    async def body() -> None:
        hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        async with (
            origin(lambda _: hints + OK) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            user.get("/", "Content-Length: 2", "Expect: 100-continue", method="POST")
            assert (await user.response()).status == 100
            user.send(b"hi")
            hint = await user.response()
            assert (hint.status, hint.headers["link"]) == (103, "</a>")
            assert (await user.response()).body == b"ok"
            assert b"\r\nexpect:" not in up.requests[0].lower()

    run(body())


def test_websocket_upgrade_becomes_a_tunnel() -> None:
    async def body() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b"connection: upgrade\r\n" in head
            assert b"upgrade: websocket\r\n" in head
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
            while data := await reader.read(100):
                writer.write(data.upper())
            writer.write(b"bye")

        async with (
            origin(script=script) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            user.get("/chat", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
            assert (await user.response()).status == 101
            assert await user.reader.readexactly(5) == b"hello"
            user.send(b"abc")
            assert await user.reader.readexactly(3) == b"ABC"
            user.writer.write_eof()
            assert await user.reader.read() == b"bye"
            await until(lambda: total(plane, 101) == 1)
            assert plane.plane.clusters["c"].active == 0

    run(body())


def test_upgrades_that_are_not_offered_are_dropped() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            assert (await user.ask("/", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: x")).status == 200
            assert b"upgrade" not in up.requests[0].lower()
            assert b"http2" not in up.requests[0].lower()

    run(body())


def test_a_switch_nobody_asked_for_is_a_bad_gateway() -> None:
    async def body() -> None:
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
        async with (
            origin(lambda _: answer) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            assert (await user.ask()).status == 502

    run(body())


MALFORMED = [
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00\r\n\r\n", 400),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 62000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 101 + b"\r\n", 431),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
    (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
]


@pytest.mark.parametrize(("text", "status"), MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_requests_are_answered_and_never_forwarded(text: bytes, status: int) -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane:
            async with client(plane) as neighbour:
                assert (await neighbour.ask()).status == 200
                async with client(plane) as user:
                    user.send(text)
                    answer = await user.response()
                    assert answer.status == status
                    assert answer.headers["connection"] == "close"
                    assert answer.headers["server"] == "meshwork"
                    assert answer.body.startswith(b"refused (")
                    assert await user.at_eof()
                assert (await neighbour.ask()).status == 200
            assert len(up.requests) == 2
            assert sum(plane.plane.stats.malformed.values()) == 1

    run(body())


def test_bad_chunk_in_a_body_cuts_the_upstream_request_short() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n")
            assert (await user.response()).status == 400
            assert await user.at_eof()
            await until(lambda: up.open == 0)
            assert plane.plane.clusters["c"].active == 0

    run(body())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: a\n\n",
    ],
)
def test_malformed_responses_are_a_bad_gateway(answer: bytes) -> None:
    async def body() -> None:
        async with (
            origin(lambda _: answer) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            got = await user.ask()
            assert got.status == 502
            assert b"does not speak proper HTTP/1.1" in got.body
            assert total(plane, 502, "UPE") == 1
            up.answer = lambda _: OK
            assert (await user.ask()).status == 200

    run(body())


def test_unasked_bytes_on_an_idle_upstream_connection_close_it() -> None:
    async def body() -> None:
        async with (
            origin(lambda _: OK + OK) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            for _ in range(3):
                assert (await user.ask()).body == b"ok"
            assert up.connections == 3

    run(body())


def test_upstream_gone_in_mid_response_breaks_the_client_connection() -> None:
    async def body() -> None:
        halves = iter(
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            )
        )

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(next(halves))

        async with origin(script=script) as up, running(snapshot([cluster("c", up.port)])) as plane:
            for _ in range(2):
                async with client(plane) as user:
                    user.get()
                    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                        await user.response()
            assert total(plane, 200, "UC") == 2

    run(body())


def test_slow_client_stops_the_upstream_and_memory_stays_bounded() -> None:
    async def body() -> None:
        size = 64 << 20
        written = 0

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: %d\r\n\r\n" % size)
            piece = b"x" * 65536
            while written < size:
                writer.write(piece)
                await writer.drain()
                written += len(piece)
            await reader.read()

        async with (
            origin(script=script) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            user.get()
            await user.reader.readuntil(b"\r\n\r\n")
            seen = -1
            while seen != written:
                seen = written
                await asyncio.sleep(0.1)
            # Socket buffers on both hops and one write buffer each: far below the whole.
            assert written < size // 2
            connection = next(iter(plane.plane.connections))
            assert connection.transport.get_write_buffer_size() < 2 << 20
            left = size
            while left:
                left -= len(await user.reader.read(1 << 20))
            await until(lambda: total(plane, 200) == 1)
        assert written == size

    run(body())


def test_slow_upstream_stops_the_client_and_memory_stays_bounded() -> None:
    async def body() -> None:
        size = 64 << 20
        may_read = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await may_read.wait()
            left = size
            while left:
                left -= len(await reader.read(1 << 20))
            writer.write(OK)
            await reader.read()

        async with (
            origin(script=script) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            user.get("/", f"Content-Length: {size}", method="POST")
            sent = 0
            piece = b"x" * 65536
            while sent < size:
                user.send(piece)
                sent += len(piece)
                try:
                    async with asyncio.timeout(0.3):
                        await user.writer.drain()
                except TimeoutError:
                    break
            assert sent < size // 2
            upstream = next(iter(plane.plane.connections)).exchange.upstream
            assert upstream is not None
            assert upstream.transport.get_write_buffer_size() < 2 << 20
            may_read.set()
            user.send(b"x" * (size - sent))
            assert (await user.response()).status == 200

    run(body())


def test_client_that_goes_away_cancels_the_upstream_request() -> None:
    async def body() -> None:
        gone = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            try:
                await reader.read()
            finally:
                gone.set()

        async with origin(script=script) as up, running(snapshot([cluster("c", up.port)])) as plane:
            async with client(plane) as user:
                user.get()
                await until(lambda: up.open == 1)
            await gone.wait()
            await until(lambda: total(plane, 0, "DC") == 1)
            assert plane.plane.clusters["c"].active == 0

    run(body())


def test_local_answers_say_what_and_why() -> None:
    async def body() -> None:
        config = snapshot([cluster("empty")], [forward("empty")])
        async with running(config) as plane, client(plane) as user:
            answer = await user.ask()
            assert (answer.status, total(plane, 503, "UH")) == (503, 1)
            assert b'cluster "empty" has no usable endpoint' in answer.body
        async with running(snapshot([cluster("x")], [forward("missing")])) as plane, client(plane) as user:
            assert (await user.ask()).status == 503
            assert total(plane, 503, "NC") == 1
        async with (
            running(snapshot([cluster("x")], http=HttpFilter(inline_routes=_no_routes()))) as plane,
            client(plane) as user,
        ):
            answer = await user.ask()
            assert (answer.status, total(plane, 404, "NR")) == (404, 1)
            assert b"a.example" in answer.body

    run(body())


def _no_routes() -> RouteTable:
    return RouteTable(name="none")
