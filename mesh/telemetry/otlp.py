"""Span export: OTLP over gRPC, in batches, from a bounded queue. Spans are lost rather than waited for; losses are counted.

Uses the OTLP messages directly: the OpenTelemetry SDK would cost a sidecar several MiB and a thread for what is one call here.
gRPC and the messages (10 MiB) are imported when there is a collector to send to, not before.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mesh.telemetry.otlp_call import CollectorChannel

logger: Final = logging.getLogger(__name__)

_MAX_BATCH: Final = 512
_FLUSH_EVERY_S: Final = 1.0
"""At most so long a span waits. Each call delays requests by a millisecond or two (measured), so not too often. Source: Envoy waits 5 s."""
_CALL_TIMEOUT_S: Final = 5.0

SERVER: Final = 2
CLIENT: Final = 3
"""opentelemetry.proto.trace.v1.Span.SpanKind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanData:
    """One finished span. Ids are lower-case hexadecimal bytes."""

    service: str
    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes = b""
    name: str
    kind: int
    """SERVER or CLIENT."""
    start_ns: int
    end_ns: int
    is_error: bool = False
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)


class SpanExporter:
    """Takes spans on the loop and sends them from `run`, which the owner spawns. `target` may change at any time."""

    def __init__(self, resource: Mapping[str, str], max_queued: int = 4096) -> None:
        self._resource = dict(resource)
        self._queue: deque[SpanData] = deque()
        self._max_queued = max_queued
        self._wake = asyncio.Event()
        self._has_batch = asyncio.Event()
        """A whole batch waits: it need not wait any longer."""
        self.target = ""
        """gRPC target of the collector; empty: spans are dropped."""
        self.exported_total = 0
        self.dropped_total = 0
        """Spans lost: no collector, a full queue, a failed call."""

    def offer(self, span: SpanData) -> None:
        """Queue a span. Never blocks."""
        if not self.target or len(self._queue) >= self._max_queued:
            self.dropped_total += 1
            return
        self._queue.append(span)
        self._wake.set()
        if len(self._queue) >= _MAX_BATCH:
            self._has_batch.set()

    async def run(self) -> None:
        """Send what is queued, for ever. Cancelled, it makes one last attempt."""
        target, channel = "", None
        try:
            while True:
                await self._wake.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FLUSH_EVERY_S):
                        await self._has_batch.wait()
                self._wake.clear()
                self._has_batch.clear()
                if self.target != target and channel is not None:
                    await channel.close()
                    channel = None
                if channel is None:
                    target = self.target
                    channel = _open_channel(target)
                await self._flush(channel)
        finally:
            if channel is None and self.target and self._queue:
                channel = _open_channel(self.target)
            if channel is not None:
                await self._flush(channel, timeout_s=1.0)
                await channel.close()

    async def _flush(self, channel: "CollectorChannel", timeout_s: float = _CALL_TIMEOUT_S) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))]
            error = await channel.export(batch, self._resource, timeout_s)
            if not error:
                self.exported_total += len(batch)
                continue
            self.dropped_total += len(batch)
            logger.warning(
                "spans were not exported", extra={"spans": len(batch), "target": self.target, "error": error}
            )


def _open_channel(target: str) -> "CollectorChannel":
    from mesh.telemetry.otlp_call import CollectorChannel

    return CollectorChannel(target)
