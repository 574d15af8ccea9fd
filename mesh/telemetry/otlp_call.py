"""The call that carries spans to a collector, and the messages it is made of. Imported by `otlp` when it is needed."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from mesh.telemetry.otlp import SpanData

_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_SCOPE: Final = "meshwork.sidecar"


class CollectorChannel:
    """A gRPC channel to a collector."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._export = self._channel.unary_unary(
            _METHOD,
            request_serializer=trace_service_pb2.ExportTraceServiceRequest.SerializeToString,
            response_deserializer=trace_service_pb2.ExportTraceServiceResponse.FromString,
        )

    async def export(self, batch: list[SpanData], resource: Mapping[str, str], timeout_s: float) -> str:
        """Send a batch. Returns what went wrong, or nothing."""
        try:
            await self._export(encode(batch, resource), timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            return exc.details() or exc.code().name
        return ""

    async def close(self) -> None:
        """Break calls and connections."""
        await self._channel.close()


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
        kind=trace_pb2.Span.SpanKind.ValueType(span.kind),
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
