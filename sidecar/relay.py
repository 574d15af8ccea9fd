"""A way out for gRPC past our own interception.

gRPC's sockets can't carry our mark, so the pod's rules would redirect them to ourselves, before we have any configuration. gRPC therefore
dials an abstract unix socket of this process, and what comes there goes on over a marked socket.
"""

import asyncio
import logging
import os
import socket
from typing import Final, cast

from mesh.net.tasks import spawn
from sidecar.pool import OUTBOUND_MARK

logger: Final = logging.getLogger(__name__)

_MAX_EARLY_BYTES: Final = 256 << 10


class MarkedRelay:
    """Relays connections made to `target` to a TCP address."""

    def __init__(self, address: tuple[str, int], tasks: asyncio.TaskGroup) -> None:
        self._address = address
        self._tasks = tasks
        self._name = f"meshwork-relay-{os.getpid()}-{os.urandom(8).hex()}"
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()

    @property
    def target(self) -> str:
        """What gRPC dials."""
        return f"unix-abstract:{self._name}"

    async def start(self) -> None:
        """Listen."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(f"\0{self._name}")
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Near(self), sock=sock)

    def close(self) -> None:
        """Stop listening and break what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in list(self._open):
            transport.abort()

    def connect(self, near: "_Near") -> None:
        """Dial the address for a connection that has come in."""
        spawn(self._tasks, self._connect(near), name="relay-connect")

    async def _connect(self, near: "_Near") -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _mark(sock)
            async with asyncio.timeout(5.0):
                await loop.sock_connect(sock, self._address)
            _, far = await loop.create_connection(lambda: _Half(self), sock=sock)
        except (OSError, TimeoutError) as exc:
            sock.close()
            near.abort()
            logger.info("relay could not connect", extra={"address": self._address[0], "error": str(exc)})
            return
        except BaseException:
            sock.close()
            near.abort()
            raise
        if near.is_lost:
            far.abort()
            return
        near.join(far)
        far.join(near)

    def on_open(self, transport: asyncio.Transport) -> None:
        self._open.add(transport)

    def on_closed(self, transport: asyncio.Transport) -> None:
        self._open.discard(transport)


def _mark(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OUTBOUND_MARK)
    except PermissionError:
        pass  # without NET_ADMIN there is no interception of ours either


class _Half(asyncio.Protocol):
    """One side of a relayed connection: its bytes go to the peer, its congestion pauses the peer's reading.

    What it says before it has a peer waits; on either side that is the first flight of a handshake (gRPC servers speak at once).
    """

    def __init__(self, relay: MarkedRelay) -> None:
        self.relay = relay
        self.peer: _Half | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.is_lost = False
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.relay.on_open(self.transport)

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            self._early += data
            if len(self._early) > _MAX_EARLY_BYTES:
                self.abort()
        elif not self.peer.transport.is_closing():
            self.peer.transport.write(data)

    def join(self, peer: "_Half") -> None:
        """From now on bytes go to `peer`, first those that have waited. The other half joins too."""
        self.peer = peer
        early, self._early = self._early, b""
        if early and not peer.transport.is_closing():
            peer.transport.write(early)

    def pause_writing(self) -> None:
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.relay.on_closed(self.transport)
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.close()

    def abort(self) -> None:
        """Break this side."""
        self.transport.abort()


class _Near(_Half):
    """The side that gRPC dialled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.relay.connect(self)
