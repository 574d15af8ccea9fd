"""The control side of a sidecar: its own ports, the stream to the control plane, span export, and an orderly end.

Two ways to run: in a pod, configured by the control plane; or alone, from an Envoy bootstrap file.
"""

import asyncio
import logging
import random
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mesh.net.tasks import spawn
from mesh.telemetry.istio import Peer
from mesh.telemetry.otlp import SpanExporter
from mesh.xds.client import AdsClient, AdsConfig, make_node
from sidecar.admin import AdminSource, answer_admin, answer_metrics, answer_ready
from sidecar.config import HttpFilter, Snapshot
from sidecar.environment import Environment
from sidecar.metrics import MetricsSource
from sidecar.receiver import SnapshotReceiver
from sidecar.relay import MarkedRelay
from sidecar.responder import Answer, port_of, serve
from sidecar.server import DataPlane
from sidecar.spans import ExportingSink

if TYPE_CHECKING:
    from sidecar.decode.bootstrap import Bootstrap

logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the sidecar's own ports listen. Port 0 takes a free one."""

    admin: tuple[str, int] | None = ("127.0.0.1", 15000)
    metrics: tuple[str, int] | None = ("0.0.0.0", 15020)
    ready: tuple[str, int] | None = ("0.0.0.0", 15021)
    drain_timeout_s: float = 5.0
    """At the end, wait this long for requests under way. Seconds, >= 0."""


_Configure = Callable[[DataPlane, asyncio.TaskGroup], Coroutine[Any, Any, None]]


class _Stopped(Exception):
    """Ends the task group, and with it everything that runs."""


@dataclass(slots=True)
class Control:
    """One running sidecar. Made and run inside the loop."""

    ports: Ports
    own: Peer
    service: str
    """Name of our spans' service, unless the configuration gives one."""
    identity: Mapping[str, Any]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to end the sidecar in good order; SIGTERM and SIGINT do."""
    bound: dict[str, int] = field(default_factory=dict)
    """The ports that were really taken, by name."""
    is_started: asyncio.Event = field(default_factory=asyncio.Event)
    plane: DataPlane | None = None
    _exporter: SpanExporter | None = None
    _relays: dict[tuple[str, int], MarkedRelay] = field(default_factory=dict)
    _receiver: SnapshotReceiver | None = None
    _client: AdsClient | None = None
    _is_static_ready: bool = False
    _is_draining: bool = False
    _started: float = field(default_factory=time.monotonic)
    _collector: tuple[str, int] | None = None

    @property
    def is_ready(self) -> bool:
        """A complete configuration is in force and we are not on our way out."""
        has_config = self._is_static_ready or (self._receiver is not None and self._receiver.has_complete_config)
        return has_config and not self._is_draining

    async def run_from_bootstrap(self, bootstrap: "Bootstrap") -> None:
        """Serve a static configuration until `stop`. Raises MeshError when it can't be applied."""

        async def configure(plane: DataPlane, tasks: asyncio.TaskGroup) -> None:
            await plane.apply(bootstrap.snapshot)
            await self._follow_collector(bootstrap.snapshot, tasks)
            self._is_static_ready = True

        await self._run(configure)

    async def run_in_mesh(self, environment: Environment) -> None:
        """Serve what the control plane says, until `stop`."""

        async def configure(plane: DataPlane, tasks: asyncio.TaskGroup) -> None:
            relay = await self._relay(environment.discovery, tasks)
            self._receiver = SnapshotReceiver(plane, lambda snapshot: self._on_applied(snapshot, tasks))
            config = AdsConfig(
                target=relay.target,
                server_name=environment.discovery[0],
                ca_file=environment.ca_file,
                token_file=environment.token_file,
                node=make_node(
                    environment.identity.node_id, environment.identity.cluster, environment.identity.metadata()
                ),
            )
            self._client = AdsClient(config, self._receiver, random.Random())
            spawn(tasks, self._client.run(), name="ads")

        await self._run(configure)

    async def _run(self, configure: _Configure) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._exporter = SpanExporter({"k8s.pod.name": str(self.identity.get("id", ""))})
                self.plane = DataPlane(tasks, ExportingSink(self._exporter, self.service))
                servers = await self._serve_own_ports()
                try:
                    exporting = spawn(tasks, self._exporter.run(), name="span-export")
                    await configure(self.plane, tasks)
                    self.is_started.set()
                    await self.stop.wait()
                    await self._drain(self.plane)
                    exporting.cancel()
                    await asyncio.wait([exporting])
                finally:
                    self.plane.close()
                    for relay in self._relays.values():
                        relay.close()
                    for server in servers:
                        server.close()
                raise _Stopped
        except* _Stopped:
            pass

    async def _serve_own_ports(self) -> list[asyncio.Server]:
        source = AdminSource(
            metrics=self._metrics,
            is_ready=lambda: self.is_ready,
            identity=self.identity,
            xds_status=self._xds_status,
            started=self._started,
        )
        servers: list[asyncio.Server] = []
        for name, address, answer in (
            ("admin", self.ports.admin, answer_admin),
            ("metrics", self.ports.metrics, answer_metrics),
            ("ready", self.ports.ready, answer_ready),
        ):
            if address is not None:
                servers.append(await serve(address, partial(_answer, answer, source)))
                self.bound[name] = port_of(servers[-1])
        return servers

    def _metrics(self) -> MetricsSource:
        assert self.plane is not None
        status = self._client.status if self._client is not None else None
        xds = {} if status is None else {"streams": status.streams, "acks": status.acks, "nacks": status.nacks}
        return MetricsSource(plane=self.plane.plane, own=self.own, exporter=self._exporter, xds=xds)

    def _xds_status(self) -> Mapping[str, Any]:
        if self._client is None:
            return {}
        status = self._client.status
        return {
            "is_connected": status.is_connected,
            "streams": status.streams,
            "acks": status.acks,
            "nacks": status.nacks,
            "last_error": status.last_error,
            "last_nack": status.last_nack,
            "held": dict(status.held),
        }

    def _on_applied(self, snapshot: Snapshot, tasks: asyncio.TaskGroup) -> None:
        if _collector_of(snapshot) != self._collector:
            spawn(tasks, self._follow_collector(snapshot, tasks), name="collector")

    async def _follow_collector(self, snapshot: Snapshot, tasks: asyncio.TaskGroup) -> None:
        """Send spans where this snapshot says."""
        assert self._exporter is not None
        self._collector = _collector_of(snapshot)
        self._exporter.target = "" if self._collector is None else (await self._relay(self._collector, tasks)).target

    async def _relay(self, address: tuple[str, int], tasks: asyncio.TaskGroup) -> MarkedRelay:
        relay = self._relays.get(address)
        if relay is None:
            relay = self._relays[address] = MarkedRelay(address, tasks)
            await relay.start()
        return relay

    async def _drain(self, plane: DataPlane) -> None:
        """Take nothing new, let what is under way end."""
        self._is_draining = True
        plane.drain()
        deadline = time.monotonic() + self.ports.drain_timeout_s
        while not plane.is_drained and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if plane.active_requests:
            logger.warning("requests broken at the end of the drain", extra={"requests": plane.active_requests})


def _answer(
    answer: Callable[[AdminSource, str], Answer | None], source: AdminSource, path: str, _query: str
) -> Answer | None:
    return answer(source, path)


def _collector_of(snapshot: Snapshot) -> tuple[str, int] | None:
    """The first endpoint of the cluster that spans go to."""
    for listener in snapshot.listeners:
        for chain in listener.chains:
            tracing = chain.filter.tracing if isinstance(chain.filter, HttpFilter) else None
            cluster = snapshot.clusters.get(tracing.collector_cluster) if tracing is not None else None
            if cluster is not None and cluster.endpoints:
                return cluster.endpoints[0].address, cluster.endpoints[0].port
    return None
