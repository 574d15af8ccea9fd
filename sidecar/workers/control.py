"""The control process of several workers: own ports, the stream to the control plane, merged metrics, an orderly end."""

import asyncio
import logging
import random
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mesh.net.tasks import spawn
from sidecar.config import Bootstrap
from sidecar.environment import Environment
from sidecar.own_ports import Answers, OwnPorts, Ports
from sidecar.relay import MarkedRelay
from sidecar.workers.errors import WorkerLostError
from sidecar.workers.group import Configuration, WorkerGroup
from sidecar.workers.keeper_messages import ENCODER, FROM_KEEPER, MAX_PACKET_BYTES, Ended, Kill, Started, Stopping
from sidecar.workers.link import WorkerLink
from sidecar.workers.pages import GroupPages, GroupState
from sidecar.workers.ports import PortReservations

if TYPE_CHECKING:
    from mesh.xds.client import AdsStatus
    from sidecar.workers.receiver import GroupReceiver

logger: Final = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 30.0

_Configure = Callable[[asyncio.TaskGroup], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupConfig:
    """What the control process knows from its start."""

    count: int
    ports: Ports
    identity: Mapping[str, Any]


class _Stopped(Exception):
    """Ends the task group, and with it everything that runs."""


class GroupControl:
    """Made and run inside the loop."""

    def __init__(self, config: GroupConfig, keeper: socket.socket) -> None:
        self._config = config
        self._keeper = keeper
        self._stop = asyncio.Event()
        self._has_keeper = True
        self._group = WorkerGroup(self._kill)
        self._reservations = PortReservations()
        self._own_ports = OwnPorts()
        self._receiver: GroupReceiver | None = None
        self._status: AdsStatus | None = None
        self._relay: MarkedRelay | None = None
        self._is_static_ready = False
        self._is_draining = False
        self._restarts = dict.fromkeys(range(config.count), 0)
        self._pages: GroupPages | None = None
        self._started = time.monotonic()

    async def run_from_bootstrap(self, bootstrap: Bootstrap) -> None:
        """The workers have the snapshot from their start; they are told when. Raises MeshError when it can't be applied."""

        async def configure(_: asyncio.TaskGroup) -> None:
            ports = self._reservations.ports_of(bootstrap.snapshot)
            await self._group.apply((), Configuration(ports=ports))
            self._is_static_ready = True

        await self._run(configure)

    async def run_in_mesh(self, environment: Environment) -> None:
        """Hand the workers what the control plane says."""
        from mesh.xds.client import AdsClient
        from sidecar.control_plane import ads_config
        from sidecar.workers.receiver import GroupReceiver

        async def configure(tasks: asyncio.TaskGroup) -> None:
            self._relay = MarkedRelay(environment.discovery, tasks)
            await self._relay.start()
            self._receiver = GroupReceiver(self._group, self._reservations)
            client = AdsClient(ads_config(environment, self._relay.target), self._receiver, random.Random())
            self._status = client.status
            spawn(tasks, client.run(), name="ads")

        await self._run(configure)

    async def _run(self, configure: _Configure) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the keeper passes it on as SIGTERM
        self._keeper.setblocking(False)
        try:
            async with asyncio.TaskGroup() as tasks:
                loop.add_reader(self._keeper, self._on_keeper, tasks)
                self._pages = pages = GroupPages(self._group, self._state, tasks)
                try:
                    await self._own_ports.open(
                        self._config.ports, Answers(admin=pages.admin, metrics=pages.metrics, ready=pages.ready)
                    )
                    await self._until_workers_are_there()
                    await configure(tasks)
                    await self._stop.wait()
                    await self._drain()
                finally:
                    self._tell(Stopping())  # before the workers see us go
                    loop.remove_reader(self._keeper)
                    self._own_ports.close()
                    self._reservations.close()
                    if self._relay is not None:
                        self._relay.close()
                raise _Stopped
        except* _Stopped:
            pass

    async def _until_workers_are_there(self) -> None:
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await self._group.wait_for(self._config.count)
        except TimeoutError as exc:
            there = len(self._group.links)
            raise WorkerLostError(f"{there} of {self._config.count} workers have come up; the log says why") from exc

    async def _drain(self) -> None:
        self._is_draining = True
        self._tell(Stopping())
        if self._has_keeper:
            await self._group.drain(self._config.ports.drain_timeout_s)

    def _state(self) -> GroupState:
        has_config = self._is_static_ready or (self._receiver is not None and self._receiver.has_complete_config)
        has_all = len(self._group.links) == self._config.count
        return GroupState(
            is_ready=has_config and has_all and not self._is_draining,
            identity=self._config.identity,
            xds_status={} if self._status is None else self._status.shown(),
            xds_counters={} if self._status is None else self._status.counters(),
            restarts=self._restarts,
            started=self._started,
        )

    # -- the keeper

    def _on_keeper(self, tasks: asyncio.TaskGroup) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._keeper, MAX_PACKET_BYTES, 1)
        except BlockingIOError:
            return
        except OSError as exc:
            logger.warning("the keeper's channel broke", extra={"error": exc.strerror})
            packet, descriptors = b"", []
        if not packet:
            # Without a keeper nobody would start a worker again, or end us.
            asyncio.get_running_loop().remove_reader(self._keeper)
            self._has_keeper = False
            self._stop.set()
            return
        match FROM_KEEPER.decode(packet):
            case Started(index, pid):
                spawn(tasks, self._join(index, pid, descriptors[0]), name=f"worker-{index}")
            case Ended(index):
                self._restarts[index] += 1

    async def _join(self, index: int, pid: int, descriptor: int) -> None:
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        _, link = await asyncio.get_running_loop().create_unix_connection(
            lambda: WorkerLink(index, pid, self._on_lost), sock=sock
        )
        await self._group.join(link)

    def _on_lost(self, link: WorkerLink) -> None:
        self._group.leave(link)
        if self._pages is not None:
            self._pages.on_ended(link.index)

    def _kill(self, link: WorkerLink) -> None:
        link.close()
        self._tell(Kill(link.index, link.pid))

    def _tell(self, message: Kill | Stopping) -> None:
        try:
            self._keeper.send(ENCODER.encode(message))
        except OSError as exc:
            logger.warning("the keeper was not told", extra={"error": exc.strerror})
