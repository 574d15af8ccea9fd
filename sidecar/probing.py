"""Carries out a health check: one connection of its own per endpoint, kept between checks, never one of the pool's.

Written with bare sockets: a check is rare, small and goes one step after the other.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mesh.http.body import BodyReader, ChunkedReader, LengthReader, UntilCloseReader
from mesh.http.errors import HttpSyntaxError
from mesh.http.response import BodyKind, ResponseHead, find_response_head, parse_response_head
from mesh.resilience.health_check import HealthCheck, Outcome
from mesh.resilience.probe import MAX_RECEIVED_BYTES, HttpProbe, TcpProbe, holds_in_order, is_in

Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Connects to (address, port). Raises OSError."""

_READ_BYTES = 65536
_MAX_BODY_BYTES = 1 << 20
"""A longer answer is not read to its end; its connection is closed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How a check ended, and why, for people."""

    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is probed."""

    address: str
    port: int
    host: str
    """The Host header of HTTP probes."""


class _Closed(OSError):
    """The endpoint closed the connection too early."""


class Prober:
    """Checks one endpoint, one check at a time."""

    def __init__(self, config: HealthCheck, target: Target, dial: Dial) -> None:
        self._config = config
        self._target = target
        self._dial = dial
        self._sock: socket.socket | None = None

    def close(self) -> None:
        """Let go of the connection. No check may be under way."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    async def check(self) -> Finding:
        """One check, from connecting to its end; never longer than the check's timeout."""
        has_ended = False
        try:
            async with asyncio.timeout(self._config.timeout_s):
                found = await self._check()
            has_ended = True
            return found
        except TimeoutError:
            return Finding(Outcome.TIMEOUT, f"no result within {self._config.timeout_s:g} s")
        except OSError as error:
            return Finding(Outcome.UNREACHABLE, os.strerror(error.errno) if error.errno else str(error))
        except HttpSyntaxError as error:
            return Finding(Outcome.UNREACHABLE, f"it does not speak proper HTTP/1.1: {error.detail}")
        finally:
            if not has_ended or not self._config.reuses_connection:
                self.close()

    async def _check(self) -> Finding:
        probe = self._config.probe
        if isinstance(probe, TcpProbe):
            return await self._check_tcp(probe)
        request = probe.request(self._target.host)
        sock, data = await self._ask(request)
        return await self._read_answer(probe, sock, data)

    async def _connection(self) -> tuple[socket.socket, bool]:
        """The kept connection, if it is still good, or a new one; and whether it is kept."""
        if self._sock is not None and _is_quiet(self._sock):
            return self._sock, True
        self.close()
        self._sock = await self._dial(self._target.address, self._target.port)
        return self._sock, False

    async def _ask(self, request: bytes) -> tuple[socket.socket, bytes]:
        """Send and get the first bytes back. A kept connection that its server closes meanwhile is nobody's failure."""
        loop = asyncio.get_running_loop()
        while True:
            sock, is_kept = await self._connection()
            try:
                await loop.sock_sendall(sock, request)
                data = await loop.sock_recv(sock, _READ_BYTES)
            except ConnectionError:
                if not is_kept:
                    raise
                data = b""
            if data:
                return sock, data
            self.close()
            if not is_kept:
                raise _Closed("it closed the connection without an answer")

    # -- HTTP

    async def _read_answer(self, probe: HttpProbe, sock: socket.socket, data: bytes) -> Finding:
        head, at = None, 0
        while head is None:
            end = find_response_head(data)
            if end < 0:
                data += await _more(sock)
                continue
            found = parse_response_head(data[:end])
            if found.status >= 200:
                head, at = found, end
            elif found.status == 101:
                raise HttpSyntaxError(400, "unasked-upgrade", "it switches protocols without being asked")
            else:
                data = data[end:]
        body, is_at_end = await _read_body(probe, sock, head, data[at:])
        if not (is_at_end and head.keep_alive):
            self.close()
        return _judge(probe, head.status, body)

    # -- TCP

    async def _check_tcp(self, probe: TcpProbe) -> Finding:
        loop = asyncio.get_running_loop()
        if probe.only_connects:
            self.close()
            sock, _ = await self._connection()
            if probe.send:
                await loop.sock_sendall(sock, probe.send)
            self.close()
            return Finding(Outcome.PASSED, "connected")
        if probe.send:
            sock, data = await self._ask(probe.send)
        else:
            self.close()  # what the endpoint says by itself, it says once per connection
            sock, _ = await self._connection()
            data = b""
        while not holds_in_order(data, probe.receive):
            if len(data) > MAX_RECEIVED_BYTES:
                raise _Closed(f"what is waited for is not in the first {MAX_RECEIVED_BYTES} bytes")
            data += await _more(sock)
        return Finding(Outcome.PASSED, "the expected bytes came")


def _judge(probe: HttpProbe, status: int, body: bytes) -> Finding:
    if is_in(probe.expected, status):
        if holds_in_order(body, probe.receive):
            return Finding(Outcome.PASSED, f"status {status}")
        return Finding(Outcome.REFUSED, f"status {status}, but the body does not hold what is expected")
    return Finding(Outcome.RETRIABLE if is_in(probe.retriable, status) else Outcome.REFUSED, f"status {status}")


async def _more(sock: socket.socket) -> bytes:
    data = await asyncio.get_running_loop().sock_recv(sock, _READ_BYTES)
    if not data:
        raise _Closed("it closed the connection in the middle of its answer")
    return data


async def _read_body(probe: HttpProbe, sock: socket.socket, head: ResponseHead, data: bytes) -> tuple[bytes, bool]:
    """What of the body matters, and whether the connection stands at the end of the answer."""
    reader = _reader(head.body_kind(probe.method), head)
    if reader is None:
        return b"", not data
    kept, size = b"", 0
    while True:
        pieces, at = reader.feed(data)
        for piece in pieces:
            size += len(piece)
            kept += piece[: max(0, probe.looked_at_bytes - len(kept))]
        if reader.done:
            return kept, at == len(data)
        if size > _MAX_BODY_BYTES:
            return kept, False
        if isinstance(reader, UntilCloseReader):
            data = await asyncio.get_running_loop().sock_recv(sock, _READ_BYTES)
            if not data:
                return kept, False
        else:
            data = await _more(sock)


def _reader(kind: BodyKind, head: ResponseHead) -> BodyReader | None:
    match kind:
        case BodyKind.NONE:
            return None
        case BodyKind.LENGTH:
            return LengthReader(head.content_length)
        case BodyKind.CHUNKED:
            return ChunkedReader()
        case BodyKind.UNTIL_CLOSE:
            return UntilCloseReader()


def _is_quiet(sock: socket.socket) -> bool:
    """Whether a kept connection is open and has nothing to say."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
