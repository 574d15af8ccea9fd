"""Listeners: binds what a snapshot says and hands connections on. The data plane's front door for the control side."""

import asyncio
import errno
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from sidecar.accept import Acceptor
from sidecar.config import Listener, Snapshot
from sidecar.errors import ListenError
from sidecar.outbound.dispatch import OutboundDispatch
from sidecar.plane import Plane, PreparedSnapshot
from sidecar.records import SpanSink
from sidecar.worker_share import ALONE, WorkerShare

logger = logging.getLogger(__name__)

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Prepared:
    """A snapshot that can be put in force: it holds together and its new listeners are bound."""

    plane: PreparedSnapshot
    wanted: Mapping[str, Listener]
    fresh: Mapping[str, socket.socket]

    def discard(self) -> None:
        """Give the new listeners up."""
        for sock in self.fresh.values():
            sock.close()


class DataPlane:
    """A data plane with its listening sockets.

    Lifetime: make it inside the loop with a TaskGroup that outlives it; `apply` snapshots; at the end `drain`, wait a little, `close`.
    """

    def __init__(self, tasks: asyncio.TaskGroup, spans: SpanSink | None = None, workers: WorkerShare = ALONE) -> None:
        self._loop = asyncio.get_running_loop()
        self._workers = workers
        self.plane = Plane(self._loop, tasks, spans, workers)
        self.outbound = OutboundDispatch(Snapshot())
        self._by_key: Mapping[str, Listener] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._bound: dict[str, tuple[str, int]] = {}

    @property
    def worker_count(self) -> int:
        """Processes that share this configuration's traffic; 1 unless `--concurrency` says more."""
        return self._workers.count

    def listener(self, key: str) -> Listener | None:
        """The listener of the current snapshot that accepts on a bound socket."""
        return self._by_key.get(key)

    def address(self, name: str) -> tuple[str, int]:
        """Where the listener `name` really listens (its port may have been 0). Raises KeyError if it is not bound."""
        return next(self._bound[key] for key, listener in self._by_key.items() if listener.name == name)

    async def apply(self, snapshot: Snapshot) -> None:
        """Take a snapshot over, all or nothing.

        Raises SnapshotError, RouteTableError (it does not hold together) or ListenError (an address cannot be bound); what was in
        force stays. Connections that are open go on; new requests on them follow the new routes.
        """
        await self.commit(self.prepare(snapshot))

    def prepare(self, snapshot: Snapshot, ports: Mapping[str, int] | None = None) -> Prepared:
        """Everything of `apply` that can go wrong; nothing changes yet. Commit or discard what it returns before the next one.

        `ports`: what to bind, by `bind_key`, for listeners with port 0.
        """
        wanted = {bind_key(listener): listener for listener in snapshot.listeners if listener.bind}
        fresh: dict[str, socket.socket] = {}
        try:
            for key, listener in wanted.items():
                if key not in self._servers:
                    fresh[key] = bind(listener, (ports or {}).get(key, listener.port), shared=self.worker_count > 1)
            return Prepared(self.plane.prepare(snapshot), wanted, fresh)
        except BaseException:
            for sock in fresh.values():
                sock.close()
            raise

    async def commit(self, prepared: Prepared) -> None:
        """Put a prepared snapshot in force."""
        wanted = prepared.wanted
        self.plane.commit(prepared.plane)
        self.outbound = OutboundDispatch(prepared.plane.snapshot)
        self._by_key = wanted
        for key in [key for key in self._servers if key not in wanted]:
            self._servers.pop(key).close()
            del self._bound[key]
        for key, sock in prepared.fresh.items():
            self._bound[key] = sock.getsockname()[:2]
            self._servers[key] = await self._loop.create_server(
                partial(Acceptor, self, key), sock=sock, backlog=BACKLOG
            )

    def drain(self) -> None:
        """Take no new connections; say `connection: close` on the others and close those that stay without requests."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        self.plane.drain()

    @property
    def is_drained(self) -> bool:
        """After `drain`: no request is under way, and no client connection is left that may bring one."""
        return self.plane.in_use == 0

    @property
    def active_requests(self) -> int:
        """Requests under way."""
        return sum(1 for connection in self.plane.connections if connection.exchange.is_active)

    def close(self) -> None:
        """Stop at once: close listeners, break every connection."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        self.plane.close()


def bind_key(listener: Listener) -> str:
    """What tells bound sockets apart: a listener that is renamed keeps its socket."""
    return f"{listener.address}:{listener.port}" if listener.port else f"{listener.address}:0 {listener.name}"


def bind(listener: Listener, port: int, *, shared: bool) -> socket.socket:
    """A socket on the listener's address, not listening yet. `shared`: several processes may have it. Raises ListenError."""
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((listener.address, port))
    except OSError as error:
        sock.close()
        hint = "; is another proxy running?" if error.errno == errno.EADDRINUSE else ""
        raise ListenError(
            f'listener "{listener.name}": cannot bind {listener.address}:{port}: {error.strerror}{hint}'
        ) from error
    return sock
