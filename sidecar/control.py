"""The control side of a sidecar of one process: its own ports, the stream to the control plane, and an orderly end.

Two ways to run: in a pod, configured by the control plane; or alone, from an Envoy bootstrap file. `sidecar.workers` has the
counterpart for several processes.
"""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from mesh.net.tasks import spawn
from mesh.telemetry.istio import Peer
from sidecar.admin import AdminSource, answer_admin, answer_metrics, answer_ready
from sidecar.config import Bootstrap
from sidecar.environment import Environment
from sidecar.metrics import MetricsSource
from sidecar.own_ports import Answers, OwnPorts, Ports
from sidecar.responder import Answer
from sidecar.server import DataPlane
from sidecar.serving import Serving, ServingConfig

if TYPE_CHECKING:
    from mesh.xds.client import AdsStatus
    from sidecar.receiver import SnapshotReceiver

_Configure = Callable[[Serving, asyncio.TaskGroup], Coroutine[Any, Any, None]]


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
    max_connections: int = 0
    """See `ServingConfig.max_connections`."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to end the sidecar in good order; SIGTERM and SIGINT do."""
    is_started: asyncio.Event = field(default_factory=asyncio.Event)
    _own_ports: OwnPorts = field(default_factory=OwnPorts)
    _serving: Serving | None = None
    _receiver: "SnapshotReceiver | None" = None
    _status: "AdsStatus | None" = None
    _is_static_ready: bool = False
    _is_draining: bool = False
    _started: float = field(default_factory=time.monotonic)

    @property
    def bound(self) -> Mapping[str, int]:
        """The ports that were really taken, by name."""
        return self._own_ports.bound

    @property
    def plane(self) -> DataPlane | None:
        """The data plane, once it runs."""
        return self._serving.data_plane if self._serving is not None else None

    @property
    def is_ready(self) -> bool:
        """A complete configuration is in force and we are not on our way out."""
        has_config = self._is_static_ready or (self._receiver is not None and self._receiver.has_complete_config)
        return has_config and not self._is_draining

    async def run_from_bootstrap(self, bootstrap: Bootstrap) -> None:
        """Serve a static configuration until `stop`. Raises MeshError when it can't be applied."""

        async def configure(serving: Serving, tasks: asyncio.TaskGroup) -> None:
            await serving.data_plane.apply(bootstrap.snapshot)
            await serving.follow_collector(bootstrap.snapshot)
            self._is_static_ready = True

        await self._run(configure)

    async def run_in_mesh(self, environment: Environment) -> None:
        """Serve what the control plane says, until `stop`."""
        # Imported only here: gRPC and xDS messages are 20 MiB that a sidecar with a bootstrap file does without.
        from mesh.xds.client import AdsClient
        from sidecar.control_plane import ads_config
        from sidecar.receiver import SnapshotReceiver

        async def configure(serving: Serving, tasks: asyncio.TaskGroup) -> None:
            relay = await serving.relay(environment.discovery)
            self._receiver = SnapshotReceiver(serving.data_plane, serving.on_applied)
            client = AdsClient(ads_config(environment, relay.target), self._receiver, random.Random())
            self._status = client.status
            spawn(tasks, client.run(), name="ads")

        await self._run(configure)

    async def _run(self, configure: _Configure) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        config = ServingConfig(
            service=self.service, instance=str(self.identity.get("id", "")), max_connections=self.max_connections
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                self._serving = serving = Serving(config, tasks)
                try:
                    await self._own_ports.open(self.ports, self._answers())
                    await configure(serving, tasks)
                    self.is_started.set()
                    await self.stop.wait()
                    self._is_draining = True
                    await serving.drain(self.ports.drain_timeout_s)
                    await serving.flush_spans()
                finally:
                    serving.close()
                    self._own_ports.close()
                raise _Stopped
        except* _Stopped:
            pass

    def _answers(self) -> Answers:
        source = AdminSource(
            metrics=self._metrics,
            is_ready=lambda: self.is_ready,
            identity=self.identity,
            xds_status=lambda: {} if self._status is None else self._status.shown(),
            started=self._started,
        )
        return Answers(
            admin=partial(_answer, answer_admin, source),
            metrics=partial(_answer, answer_metrics, source),
            ready=partial(_answer, answer_ready, source),
        )

    def _metrics(self) -> MetricsSource:
        assert self._serving is not None
        return MetricsSource(
            plane=self._serving.data_plane.plane,
            own=self.own,
            exporter=self._serving.exporter,
            xds={} if self._status is None else self._status.counters(),
        )


def _answer(
    answer: Callable[[AdminSource, str], Answer | None], source: AdminSource, path: str, _query: str
) -> Answer | None:
    return answer(source, path)
