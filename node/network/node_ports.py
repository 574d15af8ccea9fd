"""NodePort Services on 127.0.0.1 of the machine: listening sockets from the port helper, relayed to ready endpoints.

Each connection picks an endpoint by chance; when it can't be reached another is tried, at most three. Bounds: 512 connections per port,
2,048 altogether; more are reset. A port that is taken on the machine is tried again, every 0.5 s growing to 5 s.
"""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mesh.backoff import Backoff
from mesh.errors import MeshError
from mesh.net.tasks import spawn
from node.network.relay import RelayEnd
from node.network.services import Backend, ServiceEntry, ServiceKey, ServiceTable

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
_MAX_PER_PORT = 512
_MAX_TOTAL = 2048
_TRIES = 3
_CONNECT_S = 2.0
_GATHER_S = 0.02
_BACKOFF = Backoff(base_s=0.5, cap_s=5.0, jitter=0.2)

OpenListener = Callable[[str, int], Awaitable[socket.socket]]
"""(address, port) -> a listening socket of the machine. Raises MeshError."""
TellAbout = Callable[[ServiceEntry, str], None]
"""Called with a Service and why its node port is not open. Must not block."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A node port and whose it is."""

    port: int
    service: ServiceKey
    service_port: int


@dataclass(slots=True)
class _Open:
    """A node port that is listened on, or will be."""

    wanted: _Wanted
    server: asyncio.Server | None = None
    failures: int = 0
    due_at: float = 0.0
    connections: set[RelayEnd] = field(default_factory=set)


def wanted_ports(entries: "list[ServiceEntry]") -> dict[int, _Wanted]:
    """The TCP node ports of these Services. DEVIATION: UDP node ports are not served."""
    found: dict[int, _Wanted] = {}
    for entry in sorted(entries, key=lambda e: (e.namespace, e.name)):
        for port in entry.ports:
            if port.node_port and port.protocol == "TCP":
                found.setdefault(port.node_port, _Wanted(port.node_port, (entry.namespace, entry.name), port.port))
    return found


class NodePorts:
    """Every node port of the cluster, on one node."""

    def __init__(
        self,
        table: ServiceTable,
        open_listener: OpenListener,
        rng: random.Random | None = None,
        tell_about: TellAbout | None = None,
    ) -> None:
        self._table = table
        self._tell_about = tell_about
        self._open_listener = open_listener
        self._rng = rng if rng is not None else random.Random()
        self._open: dict[int, _Open] = {}
        self._changed = asyncio.Event()
        self._connections = 0
        table.subscribe(self._on_change)

    def _on_change(self, _key: ServiceKey) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Follow the Services until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._changed.clear()
                    wait_s = await self._follow(tasks)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._changed.wait()
                    await asyncio.sleep(_GATHER_S)
        finally:
            for port in tuple(self._open):
                self._close(port)

    async def _follow(self, tasks: asyncio.TaskGroup) -> float | None:
        """Open and close what is due. Returns the seconds until a failed port is tried again."""
        wanted = wanted_ports(list(self._table.all()))
        for port in [port for port, opened in self._open.items() if wanted.get(port) != opened.wanted]:
            self._close(port)
        for port, one in wanted.items():
            self._open.setdefault(port, _Open(one))
        now = asyncio.get_running_loop().time()
        for opened in tuple(self._open.values()):
            if opened.server is None and opened.due_at <= now:
                await self._listen(opened, tasks)
        return min((o.due_at - now for o in self._open.values() if o.server is None), default=None)

    async def _listen(self, opened: _Open, tasks: asyncio.TaskGroup) -> None:
        port = opened.wanted.port
        loop = asyncio.get_running_loop()
        try:
            listener = await self._open_listener(ADDRESS, port)
        except MeshError as error:
            opened.failures += 1
            opened.due_at = loop.time() + _BACKOFF.delay_s(opened.failures, self._rng)
            extra = {"port": port, "service": "/".join(opened.wanted.service), "reason": str(error)}
            logger.warning("node port not open", extra=extra)
            self._tell(opened.wanted, f"node port {port} of this machine can't be opened, trying again: {error}")
            return
        opened.failures = 0
        opened.server = await loop.create_server(
            lambda: RelayEnd(lambda end: self._accepted(opened, end, tasks)), sock=listener, backlog=1024
        )

    def _tell(self, wanted: _Wanted, message: str) -> None:
        entry = self._table.get(*wanted.service)
        if entry is not None and self._tell_about is not None:
            self._tell_about(entry, message)

    def _close(self, port: int) -> None:
        opened = self._open.pop(port)
        if opened.server is not None:
            opened.server.close()
        for end in tuple(opened.connections):
            end.abort()

    def _accepted(self, opened: _Open, end: RelayEnd, tasks: asyncio.TaskGroup) -> None:
        spawn(tasks, self._serve(opened, end), name=f"node port {opened.wanted.port}")

    async def _serve(self, opened: _Open, end: RelayEnd) -> None:
        if self._connections >= _MAX_TOTAL or len(opened.connections) >= _MAX_PER_PORT:
            end.abort()
            return
        self._connections += 1
        opened.connections.add(end)
        try:
            upstream = await self._connect(opened.wanted)
            if upstream is None:
                end.abort()
                return
            end.join(upstream)
            await end.when_closed.wait()
            await upstream.when_closed.wait()
        finally:
            self._connections -= 1
            opened.connections.discard(end)

    async def _connect(self, wanted: _Wanted) -> RelayEnd | None:
        backends = self._backends(wanted)
        self._rng.shuffle(backends)
        for backend in backends[:_TRIES]:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    _, upstream = await asyncio.get_running_loop().create_connection(
                        RelayEnd, backend.address, backend.port
                    )
                return upstream
            except (OSError, TimeoutError):
                continue
        extra = {"port": wanted.port, "service": "/".join(wanted.service), "endpoints": len(backends)}
        logger.warning("node port without a reachable endpoint", extra=extra)
        return None

    def _backends(self, wanted: _Wanted) -> list[Backend]:
        entry = self._table.get(*wanted.service)
        if entry is None:
            return []
        return [backend for port in entry.ports if port.port == wanted.service_port for backend in port.backends]
