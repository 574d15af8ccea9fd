"""Mixed load on a sidecar for as long as it is let: every client checks every answer, every fault is one the origin makes on purpose."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from mesh.net.tasks import spawn
from tests.component.plane_harness import Client, Response

BIG_BYTES = 4 << 20
UPLOAD_BYTES = 128 << 10
_HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"h" * 50_000


async def origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream connection; the path says what happens."""
    try:
        while await _answer(reader, writer):
            pass
    except asyncio.IncompleteReadError:
        pass  # the proxy has closed it


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    path = head.split(b" ", 2)[1]
    length = _content_length(head)
    body = await reader.readexactly(length) if length else b""
    match path.split(b"/")[1]:
        case b"reset-early":
            writer.transport.abort()
            return False
        case b"reset-half":
            writer.write(_HALF)
            await writer.drain()
            writer.transport.abort()
            return False
        case b"big":
            writer.write(_ok(b"b" * BIG_BYTES))
        case b"upload":
            writer.write(_ok(b"%d %d" % (len(body), sum(body[::1024]))))
        case b"close":  # closes a connection that the proxy takes for idle
            writer.write(_ok(path))
            await writer.drain()
            return False
        case _:
            writer.write(_ok(path))
    await writer.drain()
    return True


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Load:
    """Clients of all kinds. `seen` counts what they got, `wrong` tells what they should not have got."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count()
        self._is_over = False
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin; `stop` ends all within a request's time."""
        kinds: dict[str, tuple[int, Callable[[], Coroutine[Any, Any, None]]]] = {
            "get": (8, self._get),
            "upload": (2, self._upload),
            "big": (1, self._big),
            "churn": (2, self._churn),
            "close": (2, self._close),
            "reset-early": (1, self._reset_early),
            "reset-half": (1, self._reset_half),
            "leave": (1, self._leave),
        }
        for name, (count, work) in kinds.items():
            for _ in range(count):
                spawn(tasks, self._repeat(name, work), name=name)

    def stop(self) -> None:
        self._is_over = True

    async def _repeat(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self._is_over:
            try:
                async with asyncio.timeout(20):
                    await work()
            except (ConnectionError, asyncio.IncompleteReadError, TimeoutError) as exc:
                self.wrong.append(f"{name}: {exc!r}")
            self.seen[name] += 1

    async def _connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self._port))

    def _expect(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            self.wrong.append(f"{what}: got {got!r:.200}, want {wanted!r:.200}")

    def _expect_answer(self, what: str, response: Response, wanted: bytes) -> None:
        """The answer, or an honest 503: the request met connections that the origin was closing, more often than it is tried again."""
        if response.status == 503 and b"before it answered" in response.body:
            self.seen["given up: upload" if what == "upload" else "given up"] += 1
        else:
            self._expect(what, (response.status, response.body), (200, wanted))

    async def _get(self) -> None:
        """50 requests over one connection."""
        client = await self._connect()
        try:
            for _ in range(50):
                path = f"/n/{next(self._numbers)}"
                response = await client.ask(path)
                self._expect_answer(path, response, path.encode())
        finally:
            client.writer.close()

    async def _upload(self) -> None:
        client = await self._connect()
        body = bytes([next(self._numbers) % 256]) * UPLOAD_BYTES
        try:
            client.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            response = await client.response()
            self._expect_answer("upload", response, b"%d %d" % (len(body), sum(body[::1024])))
        finally:
            client.writer.close()

    async def _big(self) -> None:
        client = await self._connect()
        try:
            response = await client.ask("/big")
            self._expect("big", (response.status, len(response.body)), (200, BIG_BYTES))
        finally:
            client.writer.close()

    async def _churn(self) -> None:
        client = await self._connect()
        try:
            path = f"/churn/{next(self._numbers)}"
            response = await client.ask(path, "Connection: close")
            self._expect_answer(path, response, path.encode())
        finally:
            client.writer.close()

    async def _close(self) -> None:
        """The origin closes after its answer. Whether a later request meets that connection is a matter of time."""
        client = await self._connect()
        try:
            path = f"/close/{next(self._numbers)}"
            response = await client.ask(path)
            self._expect_answer(path, response, path.encode())
        finally:
            client.writer.close()

    async def _reset_early(self) -> None:
        client = await self._connect()
        try:
            response = await client.ask("/reset-early")
            self._expect("reset-early", response.status in (502, 503), True)
        finally:
            client.writer.close()

    async def _reset_half(self) -> None:
        client = await self._connect()
        try:
            response = await client.ask("/reset-half")
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # half an answer must not look like a whole one
        finally:
            client.writer.close()
        self._expect("reset-half", response.status, 503)

    async def _leave(self) -> None:
        """A client that goes away in the middle of an answer."""
        client = await self._connect()
        client.get("/big")
        await client.reader.readexactly(100_000)
        client.writer.transport.abort()
