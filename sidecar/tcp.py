"""TCP passed through: two connections, back-pressure both ways, half-close kept."""

import asyncio
import time
from typing import TYPE_CHECKING, cast

from mesh.net.tasks import spawn
from mesh.resilience.outlier import FailureKind
from sidecar.cluster import ClusterState
from sidecar.config import Direction, TcpFilter
from sidecar.endpoint import EndpointState
from sidecar.stats import SeriesKey, TcpSeries
from sidecar.timers import NEVER

if TYPE_CHECKING:
    from sidecar.plane import Plane

MAX_CONNECT_ATTEMPTS = 3
"""Endpoints tried for one connection; nothing has been sent, so trying another is safe."""


class TcpUpstream(asyncio.Protocol):
    """The side towards the endpoint."""

    __slots__ = ("session", "transport")

    def __init__(self, session: "TcpConnection") -> None:
        self.session = session
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.session.on_upstream_data(data)

    def eof_received(self) -> bool:
        self.session.on_upstream_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.on_upstream_lost(exc)

    def pause_writing(self) -> None:
        self.session.pause_client()

    def resume_writing(self) -> None:
        self.session.resume_client()


class TcpConnection(asyncio.Protocol):
    """The side towards the client, and the owner of both."""

    __slots__ = (
        "_client_eof",
        "_cluster",
        "_early",
        "_filter",
        "_host",
        "_is_closed",
        "_listener",
        "_moved",
        "_series",
        "_upstream",
        "_upstream_eof",
        "deadline",
        "direction",
        "original_destination",
        "plane",
        "transport",
        "wheel_at",
    )

    def __init__(
        self,
        plane: "Plane",
        listener: str,
        direction: Direction,
        config: TcpFilter,
        original_destination: tuple[str, int] | None,
    ) -> None:
        self.plane = plane
        self.direction = direction
        self.original_destination = original_destination
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.deadline = NEVER
        self.wheel_at = NEVER
        self._listener = listener
        self._filter = config
        self._cluster: ClusterState | None = None
        self._host: EndpointState | None = None
        self._series: TcpSeries | None = None
        self._upstream: TcpUpstream | None = None
        self._early = b""
        self._moved = 0.0
        self._client_eof = self._upstream_eof = self._is_closed = False

    # -- the client's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is read from the client until the endpoint is connected."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()
        self.plane.tcp_connections.add(self)
        spawn(self.plane.tasks, self._connect(), name=f"tcp {self._listener}")

    def data_received(self, data: bytes) -> None:
        if self._upstream is None:
            self._early += data  # what a protocol detector had already read
            return
        assert self._series is not None
        self._series.received_bytes += len(data)
        self._moved = time.monotonic()
        self._upstream.transport.write(data)

    def eof_received(self) -> bool:
        self._client_eof = True
        if self._upstream is not None:
            self._upstream.transport.write_eof()
        self._end_if_both()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._close()
        self._upstream = None  # the two hold each other; so neither waits for the collector

    def pause_writing(self) -> None:
        if self._upstream is not None and not self._upstream.transport.is_closing():
            self._upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._upstream is not None and not self._upstream.transport.is_closing():
            self._upstream.transport.resume_reading()

    def pause_client(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_client(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # -- connecting

    async def _connect(self) -> None:
        cluster = self._pick_cluster()
        tried: list[EndpointState] = []
        while cluster is not None and not self._is_closed and len(tried) < MAX_CONNECT_ATTEMPTS:
            host = self._pick_host(cluster, tried)
            if host is None or host in tried:
                break
            if cluster.connections >= cluster.config.limits.max_connections:
                cluster.counts.connection_overflows += 1
                break
            tried.append(host)
            upstream = await self._dial(cluster, host)
            if upstream is not None:
                self._begin(cluster, host, upstream)
                return
        self._close()

    def _pick_cluster(self) -> ClusterState | None:
        clusters = self._filter.clusters
        if len(clusters) == 1:
            return self.plane.clusters.get(clusters[0].name)
        draw = self.plane.rng.random() * sum(cluster.weight for cluster in clusters)
        for cluster in clusters:
            draw -= cluster.weight
            if draw < 0:
                return self.plane.clusters.get(cluster.name)
        return None

    def _pick_host(self, cluster: ClusterState, tried: list[EndpointState]) -> EndpointState | None:
        if cluster.picker is None:
            return cluster.original_host(self.original_destination)
        return cluster.pick_for(tried=tried)

    async def _dial(self, cluster: ClusterState, host: EndpointState) -> TcpUpstream | None:
        """A connection, counted in `cluster.connections`; None when the endpoint could not be reached."""
        cluster.connections += 1
        started = time.monotonic()
        try:
            async with asyncio.timeout(cluster.config.connect_timeout_s):
                sock = await self.plane.pool.connect_socket(host)
        except (OSError, TimeoutError) as error:
            cluster.connections -= 1
            cluster.counts.connect_failures += 1
            cluster.counts.connect_timeouts += isinstance(error, TimeoutError)
            cluster.fail(host, FailureKind.LOCAL_ORIGIN, time.monotonic())
            return None
        except BaseException:
            cluster.connections -= 1
            raise
        if host.latency is not None:
            host.latency.observe(time.monotonic() - started, time.monotonic())
        try:
            _, upstream = await self.plane.loop.create_connection(lambda: TcpUpstream(self), sock=sock)
        except BaseException:
            cluster.connections -= 1
            sock.close()
            raise
        host.health.successes += 1
        if host.health.has_failures:
            host.health.succeed()
        return upstream

    def _begin(self, cluster: ClusterState, host: EndpointState, upstream: TcpUpstream) -> None:
        if self._is_closed:
            cluster.connections -= 1
            upstream.transport.abort()
            return
        key = SeriesKey(
            direction=self.direction, listener=self._listener, route="", cluster=cluster.config.name, endpoint=host.text
        )
        self._series = self.plane.stats.tcp_series(key, host.endpoint.workload)
        self._series.opened += 1
        self._cluster, self._host, self._upstream = cluster, host, upstream
        host.active += 1
        cluster.active += 1
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)
        self._moved = now = time.monotonic()
        self.deadline = now + (self._filter.idle_timeout_s or NEVER)
        if self.deadline < self.wheel_at:
            self.plane.wheel.watch(self, now)
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # -- the endpoint's side

    def on_upstream_data(self, data: bytes) -> None:
        if self._series is not None:
            self._series.sent_bytes += len(data)
        self._moved = time.monotonic()
        self.transport.write(data)

    def on_upstream_eof(self) -> None:
        self._upstream_eof = True
        if not self.transport.is_closing():
            self.transport.write_eof()
        self._end_if_both()

    def on_upstream_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self._is_closed:
            self.transport.abort()  # a reset stays a reset
        self._close()

    # -- ends

    def on_deadline(self, now: float) -> None:
        self.deadline = self._moved + self._filter.idle_timeout_s
        if self.deadline <= now:
            self.deadline = NEVER
            self._close()

    def _end_if_both(self) -> None:
        if self._client_eof and self._upstream_eof:
            self._close()

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.deadline = NEVER
        self.plane.tcp_connections.discard(self)
        self.transport.close()
        if self._upstream is not None:
            self._upstream.transport.close()
        if self._host is not None and self._cluster is not None and self._series is not None:
            self._host.active -= 1
            self._cluster.active -= 1
            self._cluster.connections -= 1
            self._series.closed += 1

    def abort(self) -> None:
        """Break both connections."""
        self.transport.abort()
        if self._upstream is not None:
            self._upstream.transport.abort()
        self._close()
