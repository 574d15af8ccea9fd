"""Span export: OTLP over gRPC, in batches, from a bounded queue. Spans are lost rather than waited for; losses are counted.

Uses the OTLP messages directly: the OpenTelemetry SDK would cost a sidecar several MiB and a thread for what is one call here.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

logger: Final = logging.getLogger(__name__)

_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_MAX_BATCH: Final = 512
_FLUSH_EVERY_S: Final = 0.5
_CALL_TIMEOUT_S: Final = 5.0
_SCOPE: Final = "meshwork.sidecar"

SERVER: Final = trace_pb2.Span.SPAN_KIND_SERVER
CLIENT: Final = trace_pb2.Span.SPAN_KIND_CLIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanData:
    """One finished span. Ids are lower-case hexadecimal bytes."""

    service: str
    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes = b""
    name: str
    kind: trace_pb2.Span.SpanKind.ValueType
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

    async def run(self) -> None:
        """Send what is queued, for ever. Cancelled, it makes one last attempt."""
        target, channel = "", None
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(_FLUSH_EVERY_S)
                self._wake.clear()
                if self.target != target and channel is not None:
                    await channel.close()
                    channel = None
                if channel is None:
                    target = self.target
                    channel = grpc.aio.insecure_channel(target)
                await self._flush(channel)
        finally:
            if channel is not None:
                await self._flush(channel, timeout_s=1.0)
                await channel.close()

    async def _flush(self, channel: grpc.aio.Channel, timeout_s: float = _CALL_TIMEOUT_S) -> None:
        call = channel.unary_unary(
            _METHOD,
            request_serializer=trace_service_pb2.ExportTraceServiceRequest.SerializeToString,
            response_deserializer=trace_service_pb2.ExportTraceServiceResponse.FromString,
        )
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))]
            try:
                await call(encode(batch, self._resource), timeout=timeout_s)
                self.exported_total += len(batch)
            except grpc.aio.AioRpcError as exc:
                self.dropped_total += len(batch)
                logger.warning(
                    "spans were not exported",
                    extra={"spans": len(batch), "target": self.target, "error": exc.details()},
                )


def encode(batch: list[SpanData], resource: Mapping[str, str]) -> Any:
    """An ExportTraceServiceRequest, one ResourceSpans per service."""
    by_service = sorted(batch, key=lambda span: span.service)
    return trace_service_pb2.ExportTraceServiceRequest(
        resource_spans=[
            trace_pb2.ResourceSpans(
                resource=resource_pb2.Resource(attributes=_attributes({**resource, "service.name": service})),
                scope_spans=[
                    trace_pb2.ScopeSpans(
                        scope=common_pb2.InstrumentationScope(name=_SCOPE), spans=[_span(span) for span in spans]
                    )
                ],
            )
            for service, spans in groupby(by_service, key=lambda span: span.service)
        ]
    )


def _span(span: SpanData) -> Any:
    code = trace_pb2.Status.STATUS_CODE_ERROR if span.is_error else trace_pb2.Status.STATUS_CODE_UNSET
    return trace_pb2.Span(
        trace_id=bytes.fromhex(span.trace_id.decode()),
        span_id=bytes.fromhex(span.span_id.decode()),
        parent_span_id=bytes.fromhex(span.parent_span_id.decode()),
        name=span.name,
        kind=span.kind,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_attributes(span.attributes),
        status=trace_pb2.Status(code=code),
        flags=1,
    )


def _attributes(values: Mapping[str, str | int | float | bool]) -> list[Any]:
    return [common_pb2.KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def _value(value: str | int | float | bool) -> Any:
    match value:
        case bool():
            return common_pb2.AnyValue(bool_value=value)
        case int():
            return common_pb2.AnyValue(int_value=value)
        case float():
            return common_pb2.AnyValue(double_value=value)
        case _:
            return common_pb2.AnyValue(string_value=value)
