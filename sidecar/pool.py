"""Upstream connections: kept for the next request, made when needed, bounded per cluster.

The hot path takes an idle connection off `EndpointState.idle` itself. `Pool` does the rest:
making connections in owned tasks, requests that wait, and closing what is idle for too long.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh.net.tasks import spawn
from sidecar.cluster import ClusterState
from sidecar.connect import on_raw_connection
from sidecar.endpoint import EndpointState, Waiter
from sidecar.upstream import UpstreamConnection

if TYPE_CHECKING:
    from sidecar.exchange import Exchange

logger = logging.getLogger(__name__)

OUTBOUND_MARK = 1337
"""SO_MARK of every upstream socket: the interception rules let it pass. See docs/contracts.md."""


class Pool:
    """Makes and keeps upstream connections for all clusters of one data plane."""

    def __init__(self, tasks: asyncio.TaskGroup, now: Callable[[], float]) -> None:
        self._tasks = tasks
        self._now = now
        self._can_mark = True
        self._dials: dict[Exchange, object] = {}
        self.connect_failures_total = 0
        self.connects_total = 0

    # -- called by the exchange

    def wait(self, host: EndpointState, exchange: Waiter) -> bool:
        """Queue `exchange` for a connection to `host`; it gets `on_connection` or `on_connect_failed`. False: the queue is full."""
        cluster = host.cluster
        if cluster.pending >= cluster.config.limits.max_pending:
            cluster.counts.pending_overflows += 1
            return False
        cluster.pending += 1
        host.pending.append(exchange)
        host.keeps_simply = False
        self._connect_for_pending(host)
        return True

    def stop_waiting(self, host: EndpointState, exchange: Waiter) -> None:
        """Undo `wait`; no call if it is not waiting any more."""
        host.pending.remove(exchange)
        host.cluster.pending -= 1
        host.refresh()

    def keep(self, connection: UpstreamConnection) -> None:
        """A connection has become free and can be used again."""
        host = connection.host
        limit = host.cluster.config.max_requests_per_connection
        connection.owner = None
        if host.is_removed or connection.is_closed or (limit and connection.requests >= limit):
            self.discard(connection)
        elif host.pending:
            self._offer(host, connection)
        else:
            connection.idle_since = self._now()
            host.idle.append(connection)

    def _offer(self, host: EndpointState, connection: UpstreamConnection) -> None:
        """Give a kept connection to the first who waits for any; who has met a closed one waits for a new one."""
        for exchange in host.pending:
            if not exchange.stale_retries:
                self.stop_waiting(host, exchange)
                exchange.on_connection(connection)
                return
        if host.connecting:
            connection.idle_since = self._now()
            host.idle.append(connection)
        else:
            self.discard(connection)  # makes room for a new one: see `on_lost`

    def discard(self, connection: UpstreamConnection) -> None:
        """Close a connection that nobody owns any more. Its last written bytes may be lost."""
        connection.owner = None
        if not connection.is_closed:
            self._forget_idle(connection)
            connection.transport.abort()

    def open_tunnel(self, host: EndpointState, exchange: "Exchange") -> bool:
        """Make a connection for a tunnel alone; then `sidecar.connect.on_raw_connection` or `on_connect_failed`. False: no room."""
        cluster = host.cluster
        if cluster.connections >= cluster.config.limits.max_connections and host.open > 0:
            return False
        host.connecting += 1
        host.open += 1
        cluster.connections += 1
        self.connects_total += 1
        self._dials[exchange] = ticket = object()
        spawn(self._tasks, self._dial(host, exchange, ticket), name=f"dial {host.text}")
        return True

    def stop_opening(self, exchange: "Exchange") -> None:
        """Undo `open_tunnel`: a connection that is still made is closed at once."""
        self._dials.pop(exchange, None)

    # -- called by the connection

    def on_lost(self, connection: UpstreamConnection) -> None:
        """It is closed. Its place may be needed by somebody who waits."""
        host = connection.host
        host.open -= 1
        host.cluster.connections -= 1
        self._forget_idle(connection)
        if host.pending:
            self._connect_for_pending(host)

    def _forget_idle(self, connection: UpstreamConnection) -> None:
        if connection.owner is None and connection in connection.host.idle:
            connection.host.idle.remove(connection)

    # -- connecting

    def _connect_for_pending(self, host: EndpointState) -> None:
        cluster = host.cluster
        while host.connecting < len(host.pending):
            # A host without any connection may always make one, else it would starve (Envoy does the same).
            if host.open > 0 and self._is_full(host):
                if host.idle:
                    # Too old for who waits; its place is free when it has closed: see `on_lost`.
                    self.discard(host.idle[0])
                return
            host.connecting += 1
            host.open += 1
            cluster.connections += 1
            self.connects_total += 1
            spawn(self._tasks, self._connect(host), name=f"connect {host.text}")

    def _is_full(self, host: EndpointState) -> bool:
        """Whether the limits allow no further connection to `host`; counts that."""
        cluster = host.cluster
        limits = cluster.config.limits
        if cluster.connections >= limits.max_connections:
            cluster.counts.connection_overflows += 1
            return True
        if limits.max_connections_per_host is not None and host.open >= limits.max_connections_per_host:
            cluster.counts.per_host_overflows += 1
            return True
        return False

    async def _connect(self, host: EndpointState) -> None:
        timeout_s = host.cluster.config.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._open(host)
        except TimeoutError:
            host.cluster.counts.connect_timeouts += 1
            self._on_connect_failed(host, f"no connection within {timeout_s:g} s")
            return
        except OSError as error:
            self._on_connect_failed(host, os.strerror(error.errno) if error.errno else str(error))
            return
        except BaseException:
            self._undo_connect(host)
            raise
        host.connecting -= 1
        if host.pending:
            self._hand_over(host, connection)
        elif host.is_removed:
            self.discard(connection)
        else:
            connection.idle_since = self._now()
            host.idle.append(connection)

    async def _dial(self, host: EndpointState, exchange: "Exchange", ticket: object) -> None:
        timeout_s = host.cluster.config.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._open(host)
        except TimeoutError:
            self._on_dial_failed(host, exchange, ticket, f"no connection within {timeout_s:g} s")
            return
        except OSError as error:
            self._on_dial_failed(host, exchange, ticket, os.strerror(error.errno) if error.errno else str(error))
            return
        except BaseException:
            self._undo_connect(host)
            raise
        host.connecting -= 1
        if self._takes_dial(exchange, ticket):
            on_raw_connection(exchange, connection)
        else:
            self.discard(connection)

    def _on_dial_failed(self, host: EndpointState, exchange: "Exchange", ticket: object, why: str) -> None:
        self.connect_failures_total += 1
        self._undo_connect(host)
        if self._takes_dial(exchange, ticket):
            exchange.on_connect_failed(why)

    def _takes_dial(self, exchange: "Exchange", ticket: object) -> bool:
        """Whether `exchange` still waits for this very dial."""
        if self._dials.get(exchange) is not ticket:
            return False
        del self._dials[exchange]
        return True

    async def _open(self, host: EndpointState) -> UpstreamConnection:
        sock = await self.connect_socket(host)
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: UpstreamConnection(self, host), sock=sock)
        except BaseException:
            sock.close()
            raise
        return connection

    async def connect_socket(self, host: EndpointState) -> socket.socket:
        """A connected socket to `host`. Raises OSError."""
        host.cluster.has_connected = True
        return await self.dial(host.address, host.port)

    async def dial(self, address: str, port: int) -> socket.socket:
        """A connected socket, marked so that the interception rules let it pass. Raises OSError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._mark(sock)
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def _mark(self, sock: socket.socket) -> None:
        if not self._can_mark:
            return
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OUTBOUND_MARK)
        except PermissionError:
            self._can_mark = False
            logger.warning("upstream sockets carry no mark: not permitted; fine without transparent interception")

    def _undo_connect(self, host: EndpointState) -> None:
        host.connecting -= 1
        host.open -= 1
        host.cluster.connections -= 1

    def _on_connect_failed(self, host: EndpointState, why: str) -> None:
        """One failed connection fails one waiting request; the others have connections of their own on the way."""
        self.connect_failures_total += 1
        host.cluster.counts.connect_failures += 1
        self._undo_connect(host)
        exchange = self._next_pending(host)
        if exchange is not None:
            exchange.on_connect_failed(why)

    def _hand_over(self, host: EndpointState, connection: UpstreamConnection) -> None:
        exchange = self._next_pending(host)
        assert exchange is not None
        exchange.on_connection(connection)

    def _next_pending(self, host: EndpointState) -> Waiter | None:
        if not host.pending:
            return None
        exchange = host.pending.popleft()
        host.cluster.pending -= 1
        if not host.pending:
            host.refresh()
        return exchange

    # -- housekeeping

    def sweep(self, clusters: list[ClusterState], now: float) -> None:
        """Close connections that were idle for longer than their cluster's idle timeout."""
        for cluster in clusters:
            oldest = now - cluster.config.idle_timeout_s
            for host in cluster.hosts.values():
                while host.idle and host.idle[0].idle_since < oldest:
                    self.discard(host.idle[0])

    def close_all(self, connections: list[UpstreamConnection]) -> None:
        """Close idle connections that belong to endpoints that are gone."""
        for connection in connections:
            self.discard(connection)
