"""The trace service with the real OpenTelemetry exporter on one side and a TLS client on the other."""

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from controlplane.traces.buffer import Span, SpanBuffer
from controlplane.traces.service import RunningTraces, TracesConfig, serve
from mesh.identity.pki import CertificateAuthority, CertificateRequest, KeyPair
from mesh.identity.tls import client_context

pytestmark = pytest.mark.component


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[tuple[RunningTraces, Path, KeyPair]]:
    now = datetime.datetime.now(datetime.UTC)
    authority = CertificateAuthority.load_or_create(folder, now)
    pair = authority.ensure("server", CertificateRequest(common_name="server", names=("127.0.0.1",)), now)
    config = TracesConfig(
        otlp_address="127.0.0.1:0", query_address="127.0.0.1:0", certificate=pair, ca_file=authority.cert_file
    )
    async with serve(config) as running:
        yield running, authority.cert_file, pair


def _export(port: int) -> str:
    """Two nested spans through the SDK; returns the trace id."""
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(
        SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True, timeout=5))
    )
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("outer") as outer, tracer.start_as_current_span("inner", attributes={"n": 3}):
        trace_id = outer.get_span_context().trace_id
    provider.shutdown()
    return f"{trace_id:032x}"


def test_exported_spans_can_be_read_back_with_a_client_certificate(tmp_path: Path) -> None:
    async def work() -> None:
        async with _running(tmp_path) as (running, ca_file, pair):
            trace_id = await asyncio.to_thread(_export, running.otlp_port)
            url = f"https://127.0.0.1:{running.query_port}/api/traces"
            connector = aiohttp.TCPConnector(ssl=client_context(ca_file, pair))
            async with aiohttp.ClientSession(connector=connector) as session:
                async with session.get(f"{url}/{trace_id}") as response:
                    trace = await response.json()
                spans = {span["name"]: span for span in trace["spans"]}
                assert spans["inner"]["parent_span_id"] == spans["outer"]["span_id"]
                assert spans["inner"]["attributes"] == {"n": 3}
                assert spans["inner"]["service"] == "shop"
                async with session.get(f"{url}/{'0' * 31}1") as response:
                    assert response.status == 404
                async with session.get(url, params={"limit": "0"}) as response:
                    assert response.status == 400

    asyncio.run(work())


def test_a_query_without_a_client_certificate_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with _running(tmp_path) as (running, ca_file, _):
            connector = aiohttp.TCPConnector(ssl=client_context(ca_file))
            async with aiohttp.ClientSession(connector=connector) as session:
                with pytest.raises(aiohttp.ClientError):
                    await session.get(f"https://127.0.0.1:{running.query_port}/api/traces")

    asyncio.run(work())


def _span(trace: int, span: int) -> Span:
    return Span(
        trace_id=f"{trace:032x}", span_id=f"{span:016x}", parent_span_id="", service="s", name="n", kind="server",
        start_ns=span, end_ns=span + 1, is_error=False,
    )  # fmt: skip


def test_the_oldest_trace_makes_room_and_is_counted() -> None:
    buffer = SpanBuffer(max_spans=4)
    for trace in (1, 2, 3):
        buffer.add(_span(trace, 1))
        buffer.add(_span(trace, 2))
    assert len(buffer) == 4
    assert buffer.dropped == 2
    assert buffer.trace(f"{1:032x}") == ()
    assert [spans[0].trace_id for spans in buffer.newest(9)] == [f"{3:032x}", f"{2:032x}"]


def test_a_span_reported_twice_is_kept_once() -> None:
    buffer = SpanBuffer()
    buffer.add(_span(1, 1))
    buffer.add(_span(1, 1))
    assert len(buffer) == 1
