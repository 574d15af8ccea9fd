"""What one process serves traffic with: the data plane, the way its spans take to the collector, and an orderly end."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Final

from mesh.net.tasks import spawn
from mesh.telemetry.otlp import SpanExporter
from sidecar.config import HttpFilter, Snapshot
from sidecar.descriptors import default_max_connections
from sidecar.relay import MarkedRelay
from sidecar.server import DataPlane
from sidecar.spans import ExportingSink
from sidecar.worker_share import ALONE, WorkerShare

logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """What a process needs to know to serve."""

    service: str
    """Name of our spans' service, unless the configuration gives one."""
    instance: str = ""
    """Who we are in the spans' resource."""
    max_connections: int = 0
    """Client connections that may be open at once in each process, >= 0; 0: half of the descriptors.
    Source: Envoy, global downstream connection limit."""
    workers: WorkerShare = ALONE


class Serving:
    """Made inside the loop with a TaskGroup that outlives it. At the end `drain`, `flush_spans`, `close`."""

    def __init__(self, config: ServingConfig, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.exporter = SpanExporter({"k8s.pod.name": config.instance})
        self.data_plane = DataPlane(tasks, ExportingSink(self.exporter, config.service), config.workers)
        self.data_plane.plane.max_downstream_connections = config.max_connections or default_max_connections()
        self._exporting = spawn(tasks, self.exporter.run(), name="span-export")
        self._relays: dict[tuple[str, int], MarkedRelay] = {}
        self._collector: tuple[str, int] | None = None

    async def relay(self, address: tuple[str, int]) -> MarkedRelay:
        """The way for gRPC to an address, past our own interception."""
        relay = self._relays.get(address)
        if relay is None:
            relay = self._relays[address] = MarkedRelay(address, self._tasks)
            await relay.start()
        return relay

    def on_applied(self, snapshot: Snapshot) -> None:
        """A snapshot is in force: send spans where it says."""
        if collector_of(snapshot) != self._collector:
            spawn(self._tasks, self.follow_collector(snapshot), name="collector")

    async def follow_collector(self, snapshot: Snapshot) -> None:
        """As `on_applied`; the way is open when this returns."""
        self._collector = collector_of(snapshot)
        self.exporter.target = "" if self._collector is None else (await self.relay(self._collector)).target

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, let what is under way end."""
        plane = self.data_plane
        plane.drain()
        deadline = time.monotonic() + timeout_s
        while not plane.is_drained and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if plane.active_requests:
            logger.warning("requests broken at the end of the drain", extra={"requests": plane.active_requests})

    async def flush_spans(self) -> None:
        """One last attempt to send what spans there are."""
        self._exporting.cancel()
        await asyncio.wait([self._exporting])

    def close(self) -> None:
        """Break every connection."""
        self.data_plane.close()
        for relay in self._relays.values():
            relay.close()


def collector_of(snapshot: Snapshot) -> tuple[str, int] | None:
    """The first endpoint of the cluster that spans go to."""
    for listener in snapshot.listeners:
        for chain in listener.chains:
            tracing = chain.filter.tracing if isinstance(chain.filter, HttpFilter) else None
            cluster = snapshot.clusters.get(tracing.collector_cluster) if tracing is not None else None
            if cluster is not None and cluster.endpoints:
                return cluster.endpoints[0].address, cluster.endpoints[0].port
    return None
