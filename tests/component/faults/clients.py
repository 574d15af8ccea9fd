"""Clients of the proxy: one that behaves and checks every byte, and many that do not behave."""

import asyncio
import contextlib
import random
import socket
from collections import Counter
from dataclasses import dataclass, field

from tests.component.faults.table import BROKEN, FAULTS, OWN_PORT, Fault, Outcome
from tests.component.faults.upstreams import RESET, payload

_PATIENCE_S = 12.0
"""Nothing here may take longer; the proxy's own limits are far below."""


@dataclass(slots=True)
class Ask:
    """One request and what may come back."""

    fault: Fault
    token: str
    size: int
    prefix: str
    method: str
    minor: int = 1
    body_bytes: int = 0
    is_chunked: bool = False
    expects: bool = False
    closes: bool = False

    @property
    def head(self) -> bytes:
        lines = [
            f"{self.method} {self.prefix}/{self.fault.name}/{self.token}/{self.size} HTTP/1.{self.minor}",
            "host: a",
        ]
        if self.is_chunked:
            lines.append("transfer-encoding: chunked")
        elif self.method == "POST":
            lines.append(f"content-length: {self.body_bytes}")
        if self.expects:
            lines.append("expect: 100-continue")
        if self.closes:
            lines.append("connection: close")
        return "\r\n".join((*lines, "", "")).encode()

    @property
    def body(self) -> bytes:
        body = payload(self.token, self.body_bytes)
        if not self.is_chunked:
            return body
        pieces = [body[at : at + 7000] for at in range(0, len(body), 7000)]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@dataclass(slots=True)
class Answer:
    """A complete response."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Tally:
    """What all clients together have seen."""

    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    """By fault."""
    wrong: list[str] = field(default_factory=list)
    """Every violation; must stay empty."""
    settled: dict[str, Outcome] = field(default_factory=dict)
    """By token: requests that the client has waited for to their end."""
    abandoned: set[str] = field(default_factory=set)
    """Tokens of requests whose client did not behave."""
    scenes: Counter[str] = field(default_factory=Counter)

    def check(self, ask: Ask, answer: Answer) -> None:
        """Whether this response can be the one to this request, whole and unmixed."""
        token = answer.headers.get("x-token")
        where = f"{ask.method} {ask.prefix}/{ask.fault.name}/{ask.token}: {answer.status}"
        if token is None:
            if answer.status < 400 or b"|" in answer.body or ask.token.encode() in answer.body:
                self.wrong.append(f"{where} without a token: {answer.body[:80]!r}")
            return
        if token != ask.token:
            self.wrong.append(f"{where} belongs to {token}")
        wanted = b"" if ask.method == "HEAD" or answer.status == 413 else payload(ask.token, ask.size)
        if answer.body != wanted:
            self.wrong.append(f"{where} has a wrong body: {len(answer.body)} bytes, want {len(wanted)}")

    def settle(self, ask: Ask, outcome: Outcome, allowed: frozenset[Outcome]) -> None:
        """The request has ended for its client."""
        self.settled[ask.token] = outcome
        self.outcomes[(ask.fault.name, outcome)] += 1
        if outcome not in allowed:
            self.wrong.append(
                f"{ask.method} {ask.prefix}/{ask.fault.name}/{ask.token}: {outcome}, want {sorted(map(str, allowed))}"
            )


class Connection:
    """A connection of a client that reads strictly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.is_open = True

    @classmethod
    async def open(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def answer(self, ask: Ask) -> Answer | None:
        """The response; None when the connection broke before its end."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._answer(ask)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.is_open = False
            return None

    async def _answer(self, ask: Ask) -> Answer:
        while True:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head[:-4].split("\r\n")
            assert first.startswith("HTTP/1.1 "), first
            status = int(first[9:12])
            if status >= 200:
                break
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon, line
            assert name.lower() not in headers, head
            headers[name.lower()] = value.strip()
        assert not ("content-length" in headers and "transfer-encoding" in headers), head
        body = b""
        if ask.method == "HEAD" or status == 204:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            body = await self._chunks()
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            assert ask.minor == 0, head
            body = await self.reader.read()
            self.is_open = False
        if headers.get("connection") == "close" or ask.minor == 0:
            self.is_open = False
        return Answer(status, headers, body)

    async def _chunks(self) -> bytes:
        body = bytearray()
        while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
            piece = await self.reader.readexactly(size + 2)
            assert piece.endswith(b"\r\n")
            body += piece[:-2]
        while await self.reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return bytes(body)

    def close(self) -> None:
        self.is_open = False
        self.writer.close()

    def reset(self) -> None:
        self.is_open = False
        sock = self.writer.get_extra_info("socket")
        if sock is not None and not self.writer.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()


class Client:
    """One seeded source of trouble. `run` does one scene after the other."""

    def __init__(self, name: str, port: int, tally: Tally) -> None:
        self._name = name
        self._port = port
        self._tally = tally
        self._rng = random.Random(name)
        self._count = 0
        self._kept: Connection | None = None
        self._scenes = {
            self._exchange: 44,
            self._pipeline: 8,
            self._upload: 12,
            self._unsafe: 5,
            self._retried: 4,
            self._old_version: 6,
            self._trickles: 6,
            self._disconnects: 10,
            self._half_closes: 3,
            self._sends_garbage: 3,
            self._never_reads: 2,
            self._stalls: 2,
        }

    async def run(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        scenes, weights = list(self._scenes), list(self._scenes.values())
        while loop.time() < until:
            scene = self._rng.choices(scenes, weights)[0]
            self._tally.scenes[scene.__name__.strip("_")] += 1
            await scene()
        if self._kept is not None:
            self._kept.close()

    # -- requests

    def _ask(self, fault: str, prefix: str = "", **changes: object) -> Ask:
        self._count += 1
        found = FAULTS[fault]
        values: dict[str, object] = {"method": found.method, **changes}
        size = self._rng.choice((2, 100, 5000, 40_000, 120_000))
        token = f"{self._name}-{self._count}"
        ask = Ask(found, token, size, prefix or f"/own/{fault}", **values)  # type: ignore[arg-type]
        if ask.method == "POST" and not ask.body_bytes:
            ask.body_bytes = self._rng.choice((1, 900, 30_000, 200_000))
        return ask

    async def _connection(self) -> Connection:
        if self._kept is None or not self._kept.is_open:
            if self._kept is not None:
                self._kept.close()
            self._kept = await Connection.open(self._port)
        return self._kept

    async def _finish(self, connection: Connection, ask: Ask, allowed: frozenset[Outcome]) -> None:
        answer = await connection.answer(ask)
        if answer is not None:
            self._tally.check(ask, answer)
        self._tally.settle(ask, BROKEN if answer is None else answer.status, allowed)
        if not connection.is_open:
            connection.close()

    def _any_ask(self) -> Ask:
        """Any fault, over its own cluster or the shared one."""
        name = self._rng.choice(("good", "good", "good", *FAULTS))
        fault = FAULTS[name]
        if fault.method == "POST" or fault.spoils_next or name in OWN_PORT or self._rng.random() < 0.5:
            return self._ask(name)
        return self._ask(name, "/shared")

    # -- scenes of clients that behave

    async def _exchange(self) -> None:
        ask, connection = self._any_ask(), await self._connection()
        connection.writer.write(ask.head + ask.body)
        await self._finish(connection, ask, ask.fault.outcomes)

    async def _pipeline(self) -> None:
        names = (
            "good",
            "chunked",
            "hints",
            "closes-unsaid",
            "closes-at-reuse",
            "trickle",
            "extra-bytes",
            "garbage",
            "resets",
        )
        asks = [self._ask(self._rng.choice(names), "/shared") for _ in range(self._rng.randint(2, 12))]
        connection = await self._connection()
        connection.writer.write(b"".join(ask.head for ask in asks))
        for ask in asks:
            await self._finish(connection, ask, ask.fault.outcomes)

    async def _upload(self) -> None:
        ask, connection = self._ask("good", method="POST"), await self._connection()
        ask.is_chunked, ask.expects = self._rng.random() < 0.4, self._rng.random() < 0.3
        connection.writer.write(ask.head)
        if ask.expects:
            await asyncio.sleep(0.01)
        body, step = ask.body, self._rng.choice((50_000, 1_000_000))
        for at in range(0, len(body), step):
            connection.writer.write(body[at : at + step])
            await asyncio.sleep(0)
        await self._finish(connection, ask, frozenset({200}))

    async def _unsafe(self) -> None:
        """A POST where servers close kept connections: answered, or refused with a word, but never sent twice."""
        name = self._rng.choice(("closes-at-reuse", "resets-at-reuse", "closes-unsaid"))
        ask, connection = self._ask(name, method="POST"), await self._connection()
        connection.writer.write(ask.head + ask.body)
        await self._finish(connection, ask, frozenset({200, 503}))

    async def _retried(self) -> None:
        ask, connection = self._ask("good", "/retried"), await self._connection()
        connection.writer.write(ask.head)
        await self._finish(connection, ask, frozenset({200}))

    async def _old_version(self) -> None:
        names = (
            "good",
            "chunked",
            "until-close",
            "short",
            "cut-chunk",
            "cut-before-last-chunk",
            "until-reset",
            "bad-chunk",
            "stalls",
        )
        ask = self._ask(self._rng.choice(names), minor=0)
        connection = await Connection.open(self._port)
        connection.writer.write(ask.head)
        await self._finish(connection, ask, ask.fault.outcomes)

    async def _trickles(self) -> None:
        """Slow, but it goes on."""
        method = self._rng.choice(("GET", "POST"))
        ask = self._ask(self._rng.choice(("good", "chunked")), method=method)
        ask.body_bytes = min(ask.body_bytes, 900)
        connection = await Connection.open(self._port)
        data = ask.head + (ask.body if method == "POST" else b"")
        step = max(1, len(data) // 20)
        for at in range(0, len(data), step):
            connection.writer.write(data[at : at + step])
            await asyncio.sleep(0.002)
        await self._finish(connection, ask, frozenset({200}))
        connection.close()

    # -- scenes of clients that do not

    def _abandon(self, ask: Ask) -> Ask:
        self._tally.abandoned.add(ask.token)
        return ask

    async def _disconnects(self) -> None:
        name = self._rng.choice(
            ("good", "chunked", "trickle", "hangs", "stalls", "slow-head", "early-keep", "endless-hints")
        )
        ask = self._abandon(self._ask(name, method=self._rng.choice(("GET", "POST"))))
        connection = await Connection.open(self._port)
        data = ask.head + (ask.body if ask.method == "POST" else b"")
        connection.writer.write(data[: self._rng.randint(0, len(data))])
        await asyncio.sleep(self._rng.choice((0.0, 0.001, 0.01, 0.05)))
        if self._rng.random() < 0.5:
            connection.reset()
        else:
            connection.close()

    async def _half_closes(self) -> None:
        """A client that has sent all and says so gets the whole answer or none."""
        ask = self._abandon(self._ask("good", closes=True))
        connection = await Connection.open(self._port)
        connection.writer.write(ask.head)
        connection.writer.write_eof()
        answer = await connection.answer(ask)
        if answer is not None:
            self._tally.check(ask, answer)
        connection.close()

    async def _sends_garbage(self) -> None:
        connection = await Connection.open(self._port)
        connection.writer.write(self._rng.choice(_GARBAGE))
        ask = self._ask("good")
        answer = await connection.answer(ask)
        if answer is None or answer.status not in (400, 408, 414, 431, 501, 505):
            self._tally.wrong.append(f"garbage was answered {answer}")
        connection.close()

    async def _never_reads(self) -> None:
        """Many requests, large responses, and nobody there."""
        asks = [self._abandon(self._ask("good", "/long")) for _ in range(self._rng.randint(1, 30))]
        for ask in asks:
            ask.size = 300_000
        sock = socket.socket()
        with contextlib.closing(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", self._port))
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(0.5):
                    await loop.sock_sendall(sock, b"".join(ask.head for ask in asks))
                await asyncio.sleep(0.3)

    async def _stalls(self) -> None:
        """In the middle of a head or a body, for ever: it is told so."""
        ask = self._abandon(self._ask("good", method="POST"))
        connection = await Connection.open(self._port)
        data = ask.head + ask.body
        connection.writer.write(data[: self._rng.choice((10, len(ask.head) - 1, len(data) - 1))])
        answer = await connection.answer(ask)
        if answer is None or answer.status != 408:
            self._tally.wrong.append(f"a stalled request was answered {answer}")
        connection.close()


_GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    b"GET / HTTP/9.9\r\nhost: a\r\n\r\n",
    b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nx\x00y: z\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    b"POST /own/good/bad-chunk/2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nx-huge: " + b"h" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 2000 + b"\r\n",
)
