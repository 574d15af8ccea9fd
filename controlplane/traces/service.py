"""The trace service: OTLP over gRPC in, JSON over HTTPS out.

- `POST` of spans: `opentelemetry.proto.collector.trace.v1.TraceService/Export` on the OTLP address (plain gRPC, inside the cluster).
- `GET /api/traces?limit=20&service=NAME`: the newest traces. `GET /api/traces/ID`: one, 404 when it is not kept. `GET /healthz`.
  The query address is HTTPS and asks for a client certificate of the cluster's CA.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from controlplane.traces.buffer import Span, SpanBuffer
from controlplane.traces.decode import decode_spans
from controlplane.traces.errors import TracesError
from mesh.identity.pki import KeyPair
from mesh.identity.tls import ClientCertificate, server_context
from mesh.net.tasks import run_to_end

logger = logging.getLogger(__name__)
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_MAX_LISTED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesConfig:
    """Where to listen and who we are."""

    otlp_address: str = "172.30.0.1:4317"
    """host:port for OTLP over gRPC; port 0 takes a free one."""
    query_address: str = "172.30.0.1:15015"
    """host:port of the HTTPS query API; port 0 takes a free one."""
    certificate: KeyPair
    """The query API's server certificate."""
    ca_file: Path
    """Signs the client certificates that may query."""
    max_spans: int = 20_000
    """Spans kept in memory, > 0; about 1 KB each."""


@dataclass(frozen=True, slots=True)
class RunningTraces:
    """The service while it runs, with the ports it got."""

    buffer: SpanBuffer
    otlp_port: int
    query_port: int


class _TraceReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, buffer: SpanBuffer) -> None:
        self._buffer = buffer

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, _context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        spans, rejected = decode_spans(request)
        for span in spans:
            self._buffer.add(span)
        response = trace_service_pb2.ExportTraceServiceResponse()
        if rejected:
            response.partial_success.rejected_spans = rejected
            response.partial_success.error_message = f"{rejected} spans have an invalid trace or span id"
        return response


@contextlib.asynccontextmanager
async def serve(config: TracesConfig) -> AsyncIterator[RunningTraces]:
    """Listen for the time of the block. Raises TracesError when an address can't be had."""
    buffer = SpanBuffer(config.max_spans)
    receiver = grpc.aio.server(
        options=(("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0))
    )
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_TraceReceiver(buffer), receiver)  # type: ignore[no-untyped-call]  # generated
    try:
        otlp_port = receiver.add_insecure_port(config.otlp_address)
    except RuntimeError as exc:
        raise TracesError(f"can't listen for spans on {config.otlp_address}: {exc}") from exc
    runner = web.AppRunner(_query_application(buffer), access_log=None)
    try:
        await run_to_end(receiver.start())  # grpc.aio can't stop a server whose start was cancelled
        await runner.setup()
        query_port = await _listen(runner, config)
        yield RunningTraces(buffer, otlp_port, query_port)
    finally:
        await runner.cleanup()
        await receiver.stop(grace=0.5)


async def run(config: TracesConfig) -> None:
    """Serve until cancelled."""
    async with serve(config) as running:
        logger.info("trace service is ready", extra={"otlp_port": running.otlp_port, "query_port": running.query_port})
        await asyncio.Event().wait()


async def _listen(runner: web.AppRunner, config: TracesConfig) -> int:
    host, _, port = config.query_address.rpartition(":")
    context = server_context(config.certificate, config.ca_file, client_certificate=ClientCertificate.REQUIRED)
    site = web.TCPSite(runner, host, int(port), ssl_context=context)
    try:
        await site.start()
    except OSError as exc:
        raise TracesError(f"can't listen for queries on {config.query_address}: {exc.strerror}") from exc
    bound: int = runner.addresses[0][1]
    return bound


def _query_application(buffer: SpanBuffer) -> web.Application:
    async def list_traces(request: web.Request) -> web.Response:
        limit = request.query.get("limit", "20")
        if not limit.isdecimal() or not 1 <= int(limit) <= _MAX_LISTED:
            return web.json_response({"error": f"limit={limit}: want a number from 1 to {_MAX_LISTED}"}, status=400)
        traces = buffer.newest(int(limit), request.query.get("service", ""))
        return web.json_response({"traces": [_trace_json(spans) for spans in traces], "dropped_spans": buffer.dropped})

    async def show_trace(request: web.Request) -> web.Response:
        trace_id = request.match_info["trace_id"].lower()
        spans = buffer.trace(trace_id)
        if not spans:
            return web.json_response(
                {"error": f"no trace {trace_id}: not sampled, not arrived yet, or displaced"}, status=404
            )
        return web.json_response(_trace_json(spans))

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"spans": len(buffer), "dropped_spans": buffer.dropped})

    application = web.Application()
    application.add_routes(
        [
            web.get("/api/traces", list_traces),
            web.get("/api/traces/{trace_id}", show_trace),
            web.get("/healthz", health),
        ]
    )
    return application


def _trace_json(spans: tuple[Span, ...]) -> dict[str, object]:
    return {"trace_id": spans[0].trace_id, "spans": [span.to_json() for span in spans]}
