"""A finished request as one value, for the access log and for spans. Built only when one of them wants it."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesh.routing.table import Provenance
from mesh.telemetry.trace_context import TraceContext
from sidecar.code_details import code_details
from sidecar.config import Direction

if TYPE_CHECKING:
    from sidecar.endpoint import EndpointState
    from sidecar.exchange import Exchange


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
    code: str = ""
    """Envoy's response code details, such as `via_upstream`."""
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


def record_of(exchange: "Exchange", elapsed_ms: float, host: "EndpointState | None") -> RequestRecord:
    """The record of a request that has just ended at `host` (None: it reached no endpoint)."""
    head = exchange.template.head
    tracing = exchange.runtime.filter.tracing
    parent = exchange.template.parent
    return RequestRecord(
        direction=exchange.runtime.direction,
        listener=exchange.runtime.listener,
        start_s=time.time() - elapsed_ms / 1000.0,
        duration_ms=elapsed_ms,
        method=head.method.decode("latin-1"),
        target=head.target.decode("latin-1"),
        authority=head.authority.decode("latin-1"),
        minor=head.minor,
        status=exchange.status,
        flags=exchange.flags,
        detail=exchange.detail,
        code=exchange.code
        or code_details(
            exchange.flags, endpoint=host.text if host is not None else "", has_responded=exchange.has_responded
        ),
        request_bytes=exchange.request_bytes,
        response_bytes=exchange.response_bytes,
        attempts=exchange.attempts,
        cluster=exchange.branch.name,
        endpoint=host.text if host is not None else "",
        route=exchange.route.name,
        provenance=exchange.branch.provenance,
        request_id=(head.request_id or exchange.request_id).decode("latin-1"),
        client=exchange.connection.peer_text,
        service=tracing.service_name if tracing is not None else "",
        trace=exchange.trace,
        parent_span_id=parent.span_id if parent is not None else b"",
    )
