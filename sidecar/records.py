"""A finished request as one value, for the access log and for spans. Built only when one of them wants it."""

from dataclasses import dataclass

from mesh.routing.table import Provenance
from mesh.telemetry.trace_context import TraceContext
from sidecar.config import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """What happened to one request. Texts come from the request and may hold anything a header may hold."""

    direction: Direction
    listener: str
    start_s: float
    """Seconds since the Unix epoch."""
    duration_ms: float
    method: str
    target: str
    """After the client's request line; the query is included."""
    authority: str
    minor: int
    """HTTP/1 minor version of the request."""
    status: int
    """0: the client went away first."""
    flags: str
    detail: str
    """Why the proxy answered itself, or empty."""
    request_bytes: int
    response_bytes: int
    attempts: int
    cluster: str
    endpoint: str
    route: str
    provenance: Provenance | None
    request_id: str
    client: str
    """`address:port`."""
    service: str
    """From `Tracing.service_name`."""
    trace: TraceContext | None = None
    """This hop's span, when there is one."""
    parent_span_id: bytes = b""


class SpanSink:
    """Takes the records of sampled requests. This one throws them away; the exporter derives from it."""

    __slots__ = ()

    def offer(self, record: RequestRecord) -> None:
        """Called on the loop after the response; must not block. `record.trace` is set."""
