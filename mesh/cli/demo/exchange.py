"""A small HTTP/1.1 server for the demo's pods: one handler, keep-alive, bounded requests, graceful end. Standard library only."""

import asyncio
import json
import signal
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

MAX_HEAD_BYTES = 32 * 1024
MAX_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower-case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """One response; the body is sent with its length."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, value: object, status: int = 200) -> "Response":
        """`value` as JSON."""
        return cls(status=status, body=json.dumps(value).encode() + b"\n", content_type="application/json")


Handler = Callable[[Request], Awaitable[Response]]
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}


async def serve(handler: Handler, port: int, *, grace_s: float = 5.0) -> None:
    """Serve on 0.0.0.0:`port` until SIGTERM or SIGINT; then finish open exchanges for at most `grace_s` seconds."""
    stopping = asyncio.Event()
    open_connections: set[asyncio.StreamWriter] = set()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_connections.add(writer)
        try:
            await _converse(handler, reader, writer, stopping)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the peer went away; nothing to answer
        finally:
            open_connections.discard(writer)
            writer.close()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = await asyncio.start_server(on_connection, "0.0.0.0", port, limit=MAX_HEAD_BYTES, backlog=512)
    print(f"listening on :{server.sockets[0].getsockname()[1]}", flush=True)
    await stopping.wait()
    print("asked to stop: finishing what is open", flush=True)
    server.close()
    deadline = loop.time() + grace_s
    while open_connections and loop.time() < deadline:
        await asyncio.sleep(0.05)
    for writer in tuple(open_connections):
        writer.transport.abort()


async def _converse(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stopping: asyncio.Event
) -> None:
    stop = asyncio.ensure_future(stopping.wait())  # noqa: TID251 - owned and cancelled below; this file is standard library only
    try:
        while not stopping.is_set():
            head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))  # noqa: TID251 - awaited below
            await asyncio.wait((head, stop), return_when=asyncio.FIRST_COMPLETED)
            if not head.done():  # idle while stopping: the client may retry elsewhere
                head.cancel()
                return
            request = await _read_request(head.result(), reader)
            response = Response(status=400, body=b"malformed request\n") if request is None else await handler(request)
            keeps = (
                request is not None
                and request.headers.get("connection", "").lower() != "close"
                and not stopping.is_set()
            )
            writer.write(_encode(response, keeps))
            await writer.drain()
            if not keeps:
                return
    finally:
        stop.cancel()


async def _read_request(head: bytes, reader: asyncio.StreamReader) -> Request | None:
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3:
        return None
    headers = {}
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return None
    body = await reader.readexactly(int(length)) if int(length) else b""
    url = urllib.parse.urlsplit(parts[1])
    return Request(parts[0], url.path, dict(urllib.parse.parse_qsl(url.query)), headers, body)


def _encode(response: Response, keeps: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Status')}",
        f"content-type: {response.content_type}",
        f"content-length: {len(response.body)}",
        *(f"{name}: {value}" for name, value in response.headers.items()),
    ]
    if not keeps:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + response.body
