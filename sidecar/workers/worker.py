"""One worker: a data plane that does what the control process tells it over its channel, and drains when that ends.

SIGTERM to a worker alone drains it; it is replaced. SIGINT is ignored: at a terminal it reaches all, and the keeper sees to it.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from mesh.errors import MeshError
from mesh.telemetry.istio import Peer
from sidecar.admin import AdminSource, answer_admin
from sidecar.config import Snapshot
from sidecar.metrics import MetricsSource, render_metrics
from sidecar.server import Prepared
from sidecar.serving import Serving, ServingConfig
from sidecar.workers.errors import FrameError
from sidecar.workers.messages import (
    MAX_FRAME_BYTES,
    Commit,
    Discard,
    Done,
    Drain,
    FrameReader,
    Prepare,
    Question,
    Scrape,
    Show,
    Stage,
    frame,
    question,
)

if TYPE_CHECKING:
    from sidecar.workers.staging import Staging

logger: Final = logging.getLogger(__name__)

_MAX_QUEUED: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker knows from its start."""

    index: int
    serving: ServingConfig
    own: Peer
    identity: Mapping[str, Any]
    static: Snapshot | None
    """The snapshot of a bootstrap file; None: resources come over the channel."""
    drain_timeout_s: float
    """When it drains without being told how long it may take. Seconds, >= 0."""


class _Ended(Exception):
    """Ends the task group, and with it everything that runs."""


class Worker:
    """Made and run inside the loop."""

    def __init__(self, config: WorkerConfig, channel: socket.socket) -> None:
        self._config = config
        self._channel = channel
        self._started = time.monotonic()
        self._questions: asyncio.Queue[Question | None] = asyncio.Queue(_MAX_QUEUED)
        self._prepared: Prepared | None = None
        self._snapshot: Snapshot | None = None
        self._problem = ""
        self._staging: Staging | None = _new_staging() if config.static is None else None

    async def run(self) -> None:
        """Serve until told to drain, until the channel ends, or until SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = Serving(self._config.serving, tasks)
                try:
                    transport, _ = await loop.create_unix_connection(lambda: _Channel(self), sock=self._channel)
                    await self._obey(serving, cast(asyncio.WriteTransport, transport))
                finally:
                    serving.close()
                raise _Ended
        except* _Ended:
            pass

    def on_question(self, asked: Question) -> None:
        """From the channel. The control process waits for answers, so few questions are ever queued."""
        self._questions.put_nowait(asked)

    def on_channel_lost(self) -> None:
        """The control process has ended, or given us up."""
        self._end()

    def _end(self) -> None:
        self._questions.put_nowait(None)

    async def _obey(self, serving: Serving, transport: asyncio.WriteTransport) -> None:
        while True:
            match await self._questions.get():
                case None:
                    await serving.drain(self._config.drain_timeout_s)
                    await serving.flush_spans()
                    return
                case Stage() as stage:
                    self._stage(stage)
                case Prepare() as asked:
                    self._answer(transport, Done(asked.serial, self._prepare(serving, asked.ports)))
                case Commit() as asked:
                    self._answer(transport, Done(asked.serial, await self._commit(serving)))
                case Discard() as asked:
                    self._discard()
                    self._answer(transport, Done(asked.serial))
                case Scrape() as asked:
                    self._answer(transport, Done(asked.serial, "", render_metrics(self._metrics(serving))))
                case Show() as asked:
                    self._answer(transport, self._show(serving, asked))
                case Drain() as asked:
                    await serving.drain(asked.timeout_s)
                    await serving.flush_spans()
                    self._answer(transport, Done(asked.serial))
                    transport.close()
                    return

    def _answer(self, transport: asyncio.WriteTransport, done: Done) -> None:
        if transport.is_closing():
            return
        try:
            transport.write(frame(done))
        except FrameError:
            transport.write(frame(Done(done.serial, f"the answer is longer than {MAX_FRAME_BYTES >> 20} MiB")))

    def _stage(self, stage: Stage) -> None:
        assert self._staging is not None
        try:
            self._staging.stage(stage)
        except MeshError as exc:
            self._problem = self._problem or str(exc)

    def _prepare(self, serving: Serving, ports: Mapping[str, int]) -> str:
        if self._problem:
            return self._problem
        try:
            self._snapshot = self._config.static if self._staging is None else self._staging.snapshot()
            assert self._snapshot is not None
            self._prepared = serving.data_plane.prepare(self._snapshot, ports)
        except MeshError as exc:
            return str(exc)
        return ""

    async def _commit(self, serving: Serving) -> str:
        prepared, self._prepared = self._prepared, None
        if prepared is None or self._snapshot is None:
            return "nothing is prepared"
        await serving.data_plane.commit(prepared)
        if self._staging is not None:
            self._staging.commit()
        serving.on_applied(self._snapshot)
        return ""

    def _discard(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.discard()
        self._problem = ""
        if self._staging is not None:
            self._staging.roll_back()

    def _metrics(self, serving: Serving) -> MetricsSource:
        return MetricsSource(plane=serving.data_plane.plane, own=self._config.own, exporter=serving.exporter)

    def _show(self, serving: Serving, asked: Show) -> Done:
        source = AdminSource(
            metrics=lambda: self._metrics(serving),
            is_ready=lambda: True,
            identity=self._config.identity,
            xds_status=dict,
            started=self._started,
        )
        found = answer_admin(source, asked.path)
        if found is None:
            return Done(asked.serial, "not found")
        return Done(asked.serial, "" if found.status == 200 else "failed", found.body, found.content_type)


def _new_staging() -> "Staging":
    # Imported only here: with a bootstrap file no process needs the xDS messages.
    from sidecar.workers.staging import Staging

    return Staging()


class _Channel(asyncio.Protocol):
    """The worker's end of the channel."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._frames = FrameReader()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._worker.on_question(question(body))
        except FrameError as exc:
            logger.error("what the control process says can't be read", extra={"error": str(exc)})
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.on_channel_lost()
