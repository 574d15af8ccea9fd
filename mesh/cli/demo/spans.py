"""How the demo's application takes part in a trace: W3C trace context in, OpenTelemetry spans out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TRACEPARENT = re.compile(r"^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$")


@dataclass(frozen=True, slots=True)
class Parent:
    """The caller's span. Source: W3C Trace Context level 2, "traceparent header"."""

    trace_id: str
    span_id: str
    is_sampled: bool


def parse_traceparent(value: str) -> Parent | None:
    """The caller's span, or None when the header is absent or invalid."""
    match = _TRACEPARENT.match(value)
    if match is None:
        return None
    return Parent(match[1], match[2], bool(int(match[3], 16) & 1))


class SpanSink:
    """Exports spans with the OpenTelemetry SDK, which is loaded when the first one is recorded."""

    def __init__(self, endpoint: str, resource: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._resource = dict(resource)
        self._tracer: Any = None

    def record(
        self, name: str, parent: Parent, started_ns: int, ended_ns: int, attributes: Mapping[str, str | int]
    ) -> None:
        """Export one finished server span under `parent`. Does nothing without an endpoint. Blocks: call it in a thread."""
        if not self._endpoint:
            return
        from opentelemetry import trace

        if self._tracer is None:
            self._tracer = self._make_tracer()
        remote = trace.SpanContext(
            trace_id=int(parent.trace_id, 16),
            span_id=int(parent.span_id, 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(1),
        )
        context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        span = self._tracer.start_span(
            name, context=context, kind=trace.SpanKind.SERVER, start_time=started_ns, attributes=dict(attributes)
        )
        span.end(end_time=ended_ns)

    def _make_tracer(self) -> Any:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(resource=Resource.create(dict(self._resource)))
        exporter = OTLPSpanExporter(endpoint=self._endpoint, insecure=True, timeout=5)
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200))
        return provider.get_tracer("mesh.cli.demo")
