"""The upstream of both proxies: writes down what it gets, answers what the case says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.interop.differential.case import OK, Case, Seen

PROBE = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"
_PROBED = OK.replace(b"X-Up: 1", b"X-Up: probe")


class Upstream:
    """One server for the whole run; `begin` says which case its requests belong to from now on."""

    def __init__(self) -> None:
        self.port = 0
        self._case: Case | None = None
        self._seen: list[Seen] = []

    def begin(self, case: Case) -> list[Seen]:
        """From now on requests belong to `case`; they are written into the list that is returned."""
        self._case = case
        self._seen = []
        return self._seen

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.read(1)
        if not first:
            return False
        case, seen_now = self._case, self._seen
        seen = Seen("")
        head = first + await reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        if line == "GET /probe HTTP/1.1":
            writer.write(_PROBED)
            await writer.drain()
            return True
        seen.line = line
        seen.headers = [name.lower() + ":" + value for name, _, value in (one.partition(":") for one in lines)]
        seen_now.append(seen)
        answer = case.answer if case is not None else OK
        early = case is not None and case.answers_early
        if early:
            writer.write(answer)
        await self._body(reader, seen)
        seen.is_whole = True
        if not early:
            writer.write(answer)
        await writer.drain()
        if answer.startswith(b"HTTP/1.1 101") or (line.startswith("CONNECT ") and answer.startswith(b"HTTP/1.1 2")):
            await _echo(reader, writer)
            return False
        return case is None or not case.closes

    async def _body(self, reader: asyncio.StreamReader, seen: Seen) -> None:
        fields = dict(line.partition(":")[::2] for line in seen.headers)
        if "chunked" in fields.get("transfer-encoding", ""):
            seen.chunked = True
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                seen.body += await reader.readexactly(size)
                await reader.readexactly(2)
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                seen.headers.append("trailer " + line.decode("latin-1").strip())
        elif "content-length" in fields:
            left = int(fields["content-length"])
            while left:
                data = await reader.read(left)
                if not data:
                    raise asyncio.IncompleteReadError(b"", left)
                seen.body += data
                left -= len(data)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(b"<" + data + b">")
        await writer.drain()


@asynccontextmanager
async def running_upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
