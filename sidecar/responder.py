"""A tiny HTTP/1.1 responder for the sidecar's own ports: admin, metrics, readiness. One request per connection.

Not the data plane: it serves people, probes and Prometheus, with small GET requests.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from mesh.net.tasks import spawn
from sidecar.errors import ListenError

logger: Final = logging.getLogger(__name__)

_MAX_HEAD_BYTES: Final = 16 << 10
_TIMEOUT_S: Final = 10.0
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def text(status: int, message: str) -> Answer:
    """A short plain-text response."""
    return Answer(status, f"{message}\n".encode())


def json(value: object) -> Answer:
    """A JSON response."""
    return Answer(200, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n", "application/json")


@dataclass(frozen=True, slots=True)
class Later:
    """An answer that takes a while, and who owns the task that makes it."""

    work: Coroutine[Any, Any, Answer | None]
    owner: asyncio.TaskGroup


Handler = Callable[[str, str], Answer | Later | None]
"""(path, query) -> answer; None: no such path."""


class _Connection(asyncio.Protocol):
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._buffer = b""
        self._is_asked = False
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(_TIMEOUT_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing() or self._is_asked:
            return
        self._buffer += data
        if b"\r\n\r\n" in self._buffer:
            self._is_asked = True
            self._respond()
        elif len(self._buffer) > _MAX_HEAD_BYTES:
            self._answer(text(431, "the request's header block is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _respond(self) -> None:
        line = self._buffer.partition(b"\r\n")[0].decode("latin-1")
        parts = line.split(" ")
        if len(parts) != 3 or not parts[1].startswith("/") or not parts[2].startswith("HTTP/1."):
            self._answer(text(400, "want a request line such as: GET /ready HTTP/1.1"))
        elif parts[0] not in ("GET", "HEAD"):
            self._answer(text(405, f"{parts[0]} is not possible here; use GET"))
        else:
            self._handle(*parts[1].partition("?")[::2])

    def _handle(self, path: str, query: str) -> None:
        try:
            found = self._handler(path, query)
        except Exception:
            self._fail(path)
        else:
            if isinstance(found, Later):
                spawn(found.owner, self._wait(found, path), name="own-port")
            else:
                self._answer(found or _nothing(path))

    async def _wait(self, later: Later, path: str) -> None:
        try:
            self._answer(await later.work or _nothing(path))
        except Exception:
            self._fail(path)

    def _fail(self, path: str) -> None:
        logger.exception("a request to the sidecar's own port failed", extra={"path": path})
        self._answer(text(500, "this request failed; the sidecar's log says why"))

    def _answer(self, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        head = (
            f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\ncontent-type: {answer.content_type}\r\n"
            f"content-length: {len(answer.body)}\r\nconnection: close\r\n\r\n"
        )
        body = b"" if self._buffer.startswith(b"HEAD ") else answer.body
        self._transport.write(head.encode() + body)
        self._transport.close()


def _nothing(path: str) -> Answer:
    return text(404, f"nothing at {path}; / lists what there is")


async def serve(address: tuple[str, int], handler: Handler) -> asyncio.Server:
    """Listen on an IP address. Port 0 takes a free one. Raises ListenError."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as exc:
        sock.close()
        raise ListenError(f"cannot bind {address[0]}:{address[1]}: {exc.strerror}; is another proxy running?") from exc
    # With a host name the loop would start its threads for name look-ups, which a forked sidecar pays for in memory.
    return await asyncio.get_running_loop().create_server(lambda: _Connection(handler), sock=sock)


def port_of(server: asyncio.Server) -> int:
    """The port that a server really listens on."""
    return int(server.sockets[0].getsockname()[1])
