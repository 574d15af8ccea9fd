"""The data plane of one process: clusters, sites, connections, clocks. One loop, one thread.

`apply` takes a snapshot over: clusters keep their connections and health, and every request that starts afterwards reads the new
routes. A request under way keeps the routes it began with.
"""

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mesh.resilience.limits import share_of
from mesh.routing.matcher import CompiledTable
from mesh.routing.table import RouteTable
from sidecar.access_log import AccessLogWriter
from sidecar.cluster import ClusterState
from sidecar.config import AccessLog, Cluster, Direction, HttpFilter, Snapshot
from sidecar.descriptors import default_max_connections
from sidecar.downstream import DownstreamConnection
from sidecar.errors import SnapshotError
from sidecar.exchange import seeded_rng
from sidecar.filters.site_state import SiteState
from sidecar.head_cache import HeadCaches
from sidecar.health_checking import HealthChecker
from sidecar.ids import RequestIds
from sidecar.pool import Pool
from sidecar.records import SpanSink
from sidecar.runtime import HttpRuntime
from sidecar.stats import ProxyStats
from sidecar.tcp import TcpConnection
from sidecar.timers import DeadlineWheel
from sidecar.worker_share import ALONE, WorkerShare

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 1.0
QUIET_S = 0.5
"""When draining, a connection between requests is closed after this long without one: its client is hardly about to send another.
Closed at once, a request that is on its way would be lost."""
DRAIN_EVERY_S = 0.05


class HttpSite:
    """What an HTTP connection holds on to: the runtime changes with every snapshot, the site stays."""

    __slots__ = ("runtime", "state")

    def __init__(self, runtime: HttpRuntime) -> None:
        self.runtime = runtime
        self.state = runtime.state


@dataclass(frozen=True, slots=True)
class PreparedSnapshot:
    """A snapshot that holds together, compiled; `Plane.commit` puts it in force."""

    snapshot: Snapshot
    filters: Mapping[tuple[str, str], tuple[Direction, HttpFilter]]
    tables: Mapping[tuple[str, str], CompiledTable]


class Plane:
    """Everything that the connections of one process share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tasks: asyncio.TaskGroup,
        spans: SpanSink | None = None,
        workers: WorkerShare = ALONE,
    ) -> None:
        self.loop = loop
        self.tasks = tasks
        self.worker_count = workers.count
        """Processes that share this configuration's traffic. A limit that holds for the whole proxy is divided by it."""
        self._line_lock = workers.line_lock
        self.rng: random.Random = seeded_rng()
        self.ids = RequestIds(self.rng)
        self.wheel = DeadlineWheel(loop)
        self.pool = Pool(tasks, time.monotonic)
        self.checker = HealthChecker(loop, tasks, self.pool.dial, self.rng.random)
        self.stats = ProxyStats()
        self.spans = spans or SpanSink()
        self.is_draining = False
        self.snapshot = Snapshot()
        self.clusters: dict[str, ClusterState] = {}
        self.connections: set[DownstreamConnection] = set()
        self.tcp_connections: set[TcpConnection] = set()
        self.undecided = 0
        """Connections accepted whose protocol is not known yet."""
        self.max_downstream_connections = default_max_connections()
        """Connections beyond this many are closed at once, so that there are descriptors left to reach upstreams with."""
        self._sites: dict[tuple[str, str], HttpSite] = {}
        self._tables: dict[int, CompiledTable] = {}
        self._logs: dict[AccessLog, AccessLogWriter] = {}
        self._drainer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = loop.call_later(SWEEP_EVERY_S, self._sweep)

    # -- configuration

    def apply(self, snapshot: Snapshot) -> None:
        """Take `snapshot` over, all or nothing. Raises SnapshotError or RouteTableError; the old one then stays in force."""
        self.commit(self.prepare(snapshot))

    def prepare(self, snapshot: Snapshot) -> PreparedSnapshot:
        """Check and compile `snapshot`; nothing changes yet. Raises SnapshotError or RouteTableError."""
        filters = _http_filters(snapshot)
        return PreparedSnapshot(snapshot, filters, self._compile(snapshot, filters))

    def commit(self, prepared: PreparedSnapshot) -> None:
        """Put a prepared snapshot in force. Between `prepare` and this no other may have been committed."""
        snapshot, filters, tables = prepared.snapshot, prepared.filters, prepared.tables
        self._apply_clusters(snapshot)
        self.checker.follow(self.clusters)
        self._tables = {id(table.table): table for table in tables.values()}
        self.snapshot = snapshot
        caches = HeadCaches()
        for key, (direction, config) in filters.items():
            site = self._sites.get(key)
            runtime = HttpRuntime(
                caches=caches,
                listener=key[0],
                direction=direction,
                config=config,
                table=tables[key],
                clusters=self.clusters,
                stats=self.stats,
                access_log=self._log(config.access_log),
                rng=self.rng,
                state=site.state if site is not None else SiteState(self.rng, self.worker_count),
            )
            if site is None:
                self._sites[key] = HttpSite(runtime)
            else:
                site.runtime = runtime
        for key in [key for key in self._sites if key not in filters]:
            del self._sites[key]  # its connections end with the runtime they have

    def _compile(
        self, snapshot: Snapshot, filters: "Mapping[tuple[str, str], tuple[Direction, HttpFilter]]"
    ) -> dict[tuple[str, str], CompiledTable]:
        """One compiled table per HTTP filter; what is the same object as before is not compiled again."""
        done: dict[int, CompiledTable] = {}
        before = {known.table.name: known for known in self._tables.values()}
        compiled: dict[tuple[str, str], CompiledTable] = {}
        for key, (_, config) in filters.items():
            table = _table_of(snapshot, key[0], config)
            known = done.get(id(table)) or self._tables.get(id(table))
            if known is None or known.table is not table:
                known = CompiledTable(table, before.get(table.name))
            done[id(table)] = compiled[key] = known
        return compiled

    def _apply_clusters(self, snapshot: Snapshot) -> None:
        for name, whole in snapshot.clusters.items():
            config = whole if self.worker_count == 1 else _share_of(whole, self.worker_count)
            state = self.clusters.get(name)
            if state is None:
                self.clusters[name] = ClusterState(config, self.rng)
            else:
                self.pool.close_all(state.update(config))
        gone = [name for name in self.clusters if name not in snapshot.clusters]
        if gone:
            # Requests under way still hold the old dictionary through their runtime.
            clusters = dict(self.clusters)
            for name in gone:
                self.pool.close_all(clusters.pop(name).close())
            self.clusters = clusters

    def _log(self, config: AccessLog | None) -> AccessLogWriter | None:
        if config is None:
            return None
        writer = self._logs.get(config)
        if writer is None:
            try:
                writer = self._logs[config] = AccessLogWriter(config, self.loop, self._line_lock)
            except OSError as error:
                logger.error("access log not written", extra={"path": config.path, "error": error.strerror})
                return None
        return writer

    def sites(self) -> Iterable[tuple[str, SiteState]]:
        """(stat prefix, what its filters remember) of every HTTP chain."""
        return [(site.runtime.filter.stat_prefix, site.state) for site in self._sites.values()]

    def site(self, listener: str, chain: str) -> HttpSite:
        """The site of an HTTP chain of the current snapshot."""
        return self._sites[(listener, chain)]

    # -- connections

    @property
    def downstream_open(self) -> int:
        """Client connections, decided or not."""
        return len(self.connections) + len(self.tcp_connections) + self.undecided

    def on_opened(self, connection: DownstreamConnection) -> None:
        self.connections.add(connection)
        self.stats.downstream_connections_opened += 1
        self.stats.downstream_connections_active += 1

    def on_closed(self, connection: DownstreamConnection) -> None:
        self.connections.discard(connection)
        self.stats.downstream_connections_active -= 1

    # -- housekeeping

    def _sweep(self) -> None:
        now = time.monotonic()
        clusters = list(self.clusters.values())
        for cluster in clusters:
            cluster.sweep(now)
        self.pool.sweep(clusters, now)
        self._sweeper = self.loop.call_later(SWEEP_EVERY_S, self._sweep)

    def drain(self) -> None:
        """From now on every response says `connection: close`, and connections without requests for a while are closed."""
        self.is_draining = True
        for connection in self.connections:
            connection.exchange.is_plain = False  # so that responses to come take the way that can say it
        self._close_quiet()

    def _close_quiet(self) -> None:
        before = time.monotonic() - QUIET_S
        for connection in list(self.connections):
            if connection.quiet_since <= before:
                connection.close_if_idle()
        self._drainer = self.loop.call_later(DRAIN_EVERY_S, self._close_quiet)

    @property
    def in_use(self) -> int:
        """Connections with a request under way, or between requests and not closed yet."""
        return sum(1 for connection in self.connections if connection.exchange.is_active or connection.is_idle)

    def close(self) -> None:
        """Break every connection and stop all timers."""
        for timer in (self._sweeper, self._drainer):
            if timer is not None:
                timer.cancel()
        self._sweeper = self._drainer = None
        self.checker.close()
        for connection in list(self.connections):
            connection.abort()
        for session in list(self.tcp_connections):
            session.abort()
        for cluster in self.clusters.values():
            self.pool.close_all(cluster.close())
        self.wheel.close()
        for writer in self._logs.values():
            writer.close()


def _share_of(cluster: Cluster, worker_count: int) -> Cluster:
    return replace(cluster, limits=share_of(cluster.limits, worker_count))


def chain_key(name: str, index: int) -> str:
    """What tells the chains of a listener apart."""
    return name or f"#{index}"


def _http_filters(snapshot: Snapshot) -> dict[tuple[str, str], tuple[Direction, HttpFilter]]:
    return {
        (listener.name, chain_key(chain.name, index)): (listener.direction, chain.filter)
        for listener in snapshot.listeners
        for index, chain in enumerate(listener.chains)
        if isinstance(chain.filter, HttpFilter)
    }


def _table_of(snapshot: Snapshot, listener: str, config: HttpFilter) -> RouteTable:
    if config.inline_routes is not None:
        return config.inline_routes
    table = snapshot.route_tables.get(config.route_table)
    if table is None:
        raise SnapshotError(
            f'listener "{listener}": route table "{config.route_table}" is not in this snapshot; send it first'
        )
    return table
