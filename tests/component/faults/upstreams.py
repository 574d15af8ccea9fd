"""Upstream servers that break HTTP in every way a request's path asks for: `/FAULT/TOKEN/SIZE`, below any prefix.

A response carries the request's token in a header and in every sixteen bytes of its body.
"""

import asyncio
import contextlib
import hashlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

RESET = b"\x01\0\0\0\0\0\0\0"
"""SO_LINGER that makes a close a reset."""
_HANG_S = 60.0
_SINK_S = 2.5


def payload(token: str, size: int) -> bytes:
    """The body of the response, or of the request, with this token."""
    block = f"{token:>15}|".encode()
    return (block * (size // len(block) + 1))[:size]


@dataclass(slots=True)
class Asked:
    """A request as the server got it."""

    method: str
    fault: str
    token: str
    size: int
    length: int | None
    """Of its body; None: chunked."""

    def head(self, *lines: str, status: str = "200 OK") -> bytes:
        return "\r\n".join((f"HTTP/1.1 {status}", f"x-token: {self.token}", *lines, "", "")).encode()

    @property
    def body(self) -> bytes:
        return payload(self.token, self.size)

    def ok(self, *lines: str) -> bytes:
        return self.head("date: d", f"content-length: {self.size}", *lines) + self.body


@dataclass(slots=True)
class Upstreams:
    """The servers of one test."""

    port: int = 0
    slamming_port: int = 0
    refused_port: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    """Requests by fault."""
    wrong: list[str] = field(default_factory=list)
    """Requests whose body was not what their token says."""
    _posts: Counter[str] = field(default_factory=Counter)
    """By token, also those whose connection was closed on them: what is not safe to repeat must not come twice."""
    _open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        # The last: uvloop's word for a write to a connection that the proxy has closed.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, RuntimeError):
            await self._serve(reader, writer)
        writer.close()
        del self._open[writer]

    async def close(self) -> None:
        """Break what is open, and wait until nothing is at work."""
        for writer in self._open:
            writer.transport.abort()
        if tasks := [task for task in self._open.values() if task is not None]:
            await asyncio.wait(tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends_next = ""
        while True:
            asked = _parse(await reader.readuntil(b"\r\n\r\n"))
            if asked.method == "POST":
                self._posts[asked.token] += 1
                if self._posts[asked.token] > 1:
                    self.wrong.append(f"{asked.fault}/{asked.token} was sent {self._posts[asked.token]} times")
            if ends_next:
                if ends_next == "resets-at-reuse":
                    _reset(writer)
                return
            self.seen[asked.fault] += 1
            ends_next = asked.fault if asked.fault.endswith("-at-reuse") else ""
            answer = _BEFORE_BODY.get(asked.fault)
            if answer is not None:
                await answer(asked, reader, writer)
                if asked.fault != "early-keep":
                    return
            await self._take_body(asked, reader)
            if answer is None and not await _answer(asked, reader, writer):
                return

    async def _take_body(self, asked: Asked, reader: asyncio.StreamReader) -> None:
        """Read it and compare it with what the token says."""
        body = await _chunks(reader) if asked.length is None else await reader.readexactly(asked.length)
        if body != payload(asked.token, len(body)):
            self.wrong.append(f"{asked.fault}/{asked.token}: {hashlib.sha256(body).hexdigest()} of {len(body)} bytes")


def _parse(head: bytes) -> Asked:
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    fault, token, size = target.split("/")[-3:]
    asked = Asked(method, fault, token, int(size), 0)
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            asked.length = int(value)
        elif name == b"transfer-encoding":
            asked.length = None
    return asked


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _hang(reader: asyncio.StreamReader) -> None:
    """Until the proxy gives the connection up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_HANG_S):
            while await reader.read(65536):
                pass


async def _trickle(writer: asyncio.StreamWriter, data: bytes, step: int, pause_s: float) -> None:
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
        await writer.drain()
        await asyncio.sleep(pause_s)


# -- answers before the request's body is read


async def _early_close(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(asked.head("content-length: 0", status="413 Too Large"))
    await writer.drain()


async def _early_reset(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _early_close(asked, reader, writer)
    _reset(writer)


async def _early_keep(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(asked.ok())
    await writer.drain()


async def _sink(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Neither reads nor answers, for longer than the proxy puts up with."""
    for _ in range(int(_SINK_S / 0.05)):
        if not writer.is_closing():
            await asyncio.sleep(0.05)


_BEFORE_BODY = {"sink": _sink, "early-close": _early_close, "early-reset": _early_reset, "early-keep": _early_keep}


# -- answers afterwards


async def _answer(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Do what the path asks for. Whether the connection takes another request."""
    if asked.fault == "large":
        block = payload(asked.token, 1 << 19)
        writer.write(asked.head("date: d", f"content-length: {asked.size}"))
        for at in range(0, asked.size, len(block)):
            writer.write(block[: asked.size - at])
            await writer.drain()
        return True
    body = asked.body
    match asked.fault:
        case "good" | "closes-at-reuse" | "resets-at-reuse":
            writer.write(asked.ok())
        case "chunked":
            writer.write(asked.head("transfer-encoding: chunked"))
            for at in range(0, len(body), 1000):
                piece = body[at : at + 1000]
                writer.write(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
            writer.write(b"0\r\nx-trailer: t\r\n\r\n")
        case "until-close":
            writer.write(asked.head() + body)
            return await _flushed(writer)
        case "trickle":
            data = asked.ok()
            await _trickle(writer, data, max(1, len(data) // 10), 0.001)
        case "hints":
            writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + asked.ok())
        case "closes-unsaid":
            writer.write(asked.ok())
            return await _flushed(writer)
        case "head-with-body":
            writer.write(asked.ok())
        case "extra-bytes":
            writer.write(asked.ok() + b"left over")
        case "extra-late":
            writer.write(asked.ok())
            await asyncio.sleep(0.002)
            writer.write(b"HTTP-ish left over\r\n\r\n")
        case "resets":
            _reset(writer)
            return False
        case "closes":
            return False
        case "hangs":
            await _hang(reader)
            return False
        case _:
            return await _answer_badly(asked, reader, writer)
    await writer.drain()
    return True


async def _answer_badly(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    half = asked.body[: asked.size // 2]
    match asked.fault:
        case "half-head":
            writer.write(asked.head("content-length: 9")[:-9])
            return await _flushed(writer)
        case "slow-head":
            await _trickle(writer, asked.head("x-slow: " + "s" * 5000), 1, 0.02)
        case "garbage":
            writer.write(b"\x16\x03\x01 not at all HTTP \xff\xfe\r\n\r\n")
        case "bare-lf":
            writer.write(asked.ok().replace(b"\r\n", b"\n"))
        case "two-lengths":
            writer.write(asked.head("content-length: 2", "content-length: 3") + b"abc")
        case "huge-head":
            writer.write(asked.head("content-length: 2", "x-huge: " + "h" * 80_000) + b"ok")
        case "endless-head":
            writer.write(asked.head("content-length: 2")[:-2] + b"x-more: m\r\n" * 20_000)
        case "unasked-upgrade":
            writer.write(asked.head("upgrade: websocket", "connection: upgrade", status="101 Switching Protocols"))
        case "endless-hints":
            while not writer.is_closing():
                writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 20)
                await writer.drain()
                await asyncio.sleep(0)
            return False
        case "short" | "short-reset":
            writer.write(asked.head(f"content-length: {asked.size}") + half)
        case "cut-chunk":
            writer.write(asked.head("transfer-encoding: chunked") + b"%x\r\n%b" % (asked.size, half))
        case "cut-before-last-chunk":
            writer.write(asked.head("transfer-encoding: chunked") + b"%x\r\n%b\r\n" % (len(half), half))
        case "bad-chunk":
            writer.write(asked.head("transfer-encoding: chunked") + b"%x\r\n%b\r\nzz\r\n" % (len(half), half))
        case "until-reset":
            writer.write(asked.head() + half)
        case "stalls":
            writer.write(asked.head(f"content-length: {asked.size}") + half)
            await _hang(reader)
        case unknown:
            raise AssertionError(unknown)
    await writer.drain()
    if asked.fault.endswith("-reset"):
        await asyncio.sleep(0.02)
        _reset(writer)
    elif asked.fault not in ("short", "cut-chunk", "cut-before-last-chunk"):
        await _hang(reader)  # what was sent must be enough for the proxy to act
    return False


async def _flushed(writer: asyncio.StreamWriter) -> bool:
    await writer.drain()
    return False


@contextlib.asynccontextmanager
async def upstreams() -> AsyncIterator[Upstreams]:
    """Servers on free ports."""
    made = Upstreams()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, backlog=1000)
    made.port = server.sockets[0].getsockname()[1]
    with socket.socket() as refusing, socket.socket() as slamming:
        refusing.bind(("127.0.0.1", 0))  # bound, so that nobody else takes it, and not listening
        made.refused_port = refusing.getsockname()[1]
        slamming.bind(("127.0.0.1", 0))
        slamming.listen(100)
        slamming.setblocking(False)
        made.slamming_port = slamming.getsockname()[1]
        loop = asyncio.get_running_loop()
        loop.add_reader(slamming, _slam, slamming)
        try:
            yield made
        finally:
            loop.remove_reader(slamming)
            server.close()
            await made.close()


def _slam(listening: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        sock, _ = listening.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
