"""Finished requests -> spans. The hot path offers a record only for sampled requests."""

from typing import Final

from mesh.telemetry.otlp import CLIENT, SERVER, SpanData, SpanExporter
from sidecar.config import Direction
from sidecar.records import RequestRecord, SpanSink

_NS_PER_S: Final = 1_000_000_000


class ExportingSink(SpanSink):
    """Hands spans to the exporter."""

    __slots__ = ("_exporter", "_service")

    def __init__(self, exporter: SpanExporter, service: str) -> None:
        self._exporter = exporter
        self._service = service
        """Our own workload; used unless the configuration names a service."""

    def offer(self, record: RequestRecord) -> None:
        self._exporter.offer(to_span(record, self._service))


def to_span(record: RequestRecord, service: str) -> SpanData:
    """A span with OpenTelemetry's HTTP attributes, and ours for what the proxy decided."""
    assert record.trace is not None
    is_inbound = record.direction is Direction.INBOUND
    start_ns = int(record.start_s * _NS_PER_S)
    attributes: dict[str, str | int | float | bool] = {
        "http.request.method": record.method,
        "url.path": record.target.partition("?")[0],
        "server.address": record.authority,
        "http.response.status_code": record.status,
        "mesh.direction": record.direction.value,
        "mesh.cluster": record.cluster,
        "mesh.endpoint": record.endpoint,
        "mesh.route": record.route,
        "mesh.attempts": record.attempts,
        "mesh.request_id": record.request_id,
    }
    if record.flags:
        attributes["mesh.response_flags"] = record.flags
    if record.provenance is not None:
        attributes["mesh.cause"] = str(record.provenance)
    return SpanData(
        service=record.service or service,
        trace_id=record.trace.trace_id,
        span_id=record.trace.span_id,
        parent_span_id=record.parent_span_id,
        name=f"{record.authority} {record.method}",
        kind=SERVER if is_inbound else CLIENT,
        start_ns=start_ns,
        end_ns=start_ns + int(record.duration_ms * 1e6),
        is_error=record.status == 0 or record.status >= 500,
        attributes=attributes,
    )
