"""OTLP messages to spans. Pure. Source: opentelemetry-proto, trace/v1/trace.proto."""

from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controlplane.traces.buffer import Span

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS_ERROR = 2
MAX_ATTRIBUTES = 64
MAX_TEXT = 1024


def decode_spans(request: ExportTraceServiceRequest) -> tuple[list[Span], int]:
    """The valid spans of an export request, and how many were invalid (wrong id lengths, all-zero ids)."""
    spans: list[Span] = []
    rejected = 0
    for service, raw in _raw_spans(request):
        if len(raw.trace_id) != 16 or len(raw.span_id) != 8 or not any(raw.trace_id) or not any(raw.span_id):
            rejected += 1
            continue
        spans.append(_span(service, raw))
    return spans, rejected


def _raw_spans(request: ExportTraceServiceRequest) -> Iterator[tuple[str, Any]]:
    for resource in request.resource_spans:
        service = str(_attributes(resource.resource.attributes).get("service.name", "unknown_service"))
        for scope in resource.scope_spans:
            for raw in scope.spans:
                yield service, raw


def _span(service: str, raw: Any) -> Span:
    return Span(
        trace_id=raw.trace_id.hex(),
        span_id=raw.span_id.hex(),
        parent_span_id=raw.parent_span_id.hex(),
        service=service,
        name=raw.name[:MAX_TEXT],
        kind=_KINDS[raw.kind] if 0 <= raw.kind < len(_KINDS) else _KINDS[0],
        start_ns=raw.start_time_unix_nano,
        end_ns=raw.end_time_unix_nano,
        is_error=raw.status.code == _STATUS_ERROR,
        attributes=_attributes(raw.attributes),
    )


def _attributes(pairs: Any) -> dict[str, str | int | float | bool]:
    """The scalar attributes; lists and maps are left out, long texts cut."""
    found: dict[str, str | int | float | bool] = {}
    for pair in list(pairs)[:MAX_ATTRIBUTES]:
        which = pair.value.WhichOneof("value")
        if which == "string_value":
            found[pair.key] = pair.value.string_value[:MAX_TEXT]
        elif which in ("int_value", "double_value", "bool_value"):
            found[pair.key] = getattr(pair.value, which)
    return found
