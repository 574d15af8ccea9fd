"""Spans: encoding, and the queue's bounds."""

import asyncio

import pytest

from mesh.telemetry.otlp import CLIENT, SERVER, SpanData, SpanExporter
from mesh.telemetry.otlp_call import encode
from mesh.telemetry.trace_context import TraceContext
from sidecar.config import Direction
from sidecar.records import RequestRecord
from sidecar.spans import to_span

pytestmark = pytest.mark.unit


def span(service: str = "web", number: int = 1) -> SpanData:
    return SpanData(
        service=service,
        trace_id=b"0" * 31 + b"1",
        span_id=b"%016x" % number,
        name="GET",
        kind=CLIENT,
        start_ns=5,
        end_ns=9,
        is_error=True,
        attributes={"text": "a", "count": 3, "share": 0.5, "yes": True},
    )


def test_spans_are_grouped_by_service_with_typed_attributes() -> None:
    request = encode([span("b"), span("a"), span("b", 2)], {"k8s.pod.name": "p"})
    services = [[one.value.string_value for one in group.resource.attributes] for group in request.resource_spans]
    assert services == [["p", "a"], ["p", "b"]]
    assert [len(group.scope_spans[0].spans) for group in request.resource_spans] == [1, 2]
    found = request.resource_spans[0].scope_spans[0].spans[0]
    assert (found.trace_id.hex(), found.parent_span_id, found.end_time_unix_nano) == ("0" * 31 + "1", b"", 9)
    kinds = {one.key: one.value.WhichOneof("value") for one in found.attributes}
    assert kinds == {"text": "string_value", "count": "int_value", "share": "double_value", "yes": "bool_value"}


def test_spans_beyond_the_queue_and_without_a_collector_are_counted_as_lost() -> None:
    async def work() -> None:
        exporter = SpanExporter({}, max_queued=2)
        exporter.offer(span())
        assert exporter.dropped_total == 1
        exporter.target = "127.0.0.1:1"
        for _ in range(3):
            exporter.offer(span())
        assert exporter.dropped_total == 2

    asyncio.run(work())


def test_failed_export_is_counted_and_does_not_end_the_exporter() -> None:
    async def work() -> None:
        exporter = SpanExporter({})
        exporter.target = "unix:/nonexistent/collector.sock"
        exporter.offer(span())
        running = asyncio.gather(exporter.run(), return_exceptions=True)
        async with asyncio.timeout(10):
            while not exporter.dropped_total:
                await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.wait([running])
        assert (exporter.dropped_total, exporter.exported_total) == (1, 0)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("direction", "kind", "status", "is_error"),
    [
        (Direction.INBOUND, SERVER, 404, False),
        (Direction.OUTBOUND, CLIENT, 503, True),
        (Direction.OUTBOUND, CLIENT, 0, True),
    ],
)
def test_record_becomes_a_span(direction: Direction, kind: int, status: int, is_error: bool) -> None:
    record = RequestRecord(
        direction=direction, listener="l", start_s=2.0, duration_ms=1.5, method="GET", target="/a?secret=1",
        authority="web", minor=1, status=status, flags="UH", detail="", request_bytes=1, response_bytes=2, attempts=1,
        cluster="c", endpoint="e", route="r", provenance=None, request_id="i", client="x:1", service="",
        trace=TraceContext(b"1" * 32, b"2" * 16, True), parent_span_id=b"3" * 16,
    )  # fmt: skip
    made = to_span(record, "web.shop")
    assert (made.kind, made.is_error, made.service) == (kind, is_error, "web.shop")
    assert made.end_ns - made.start_ns == 1_500_000
    assert made.attributes["url.path"] == "/a"  # the query may hold secrets
    assert made.attributes["mesh.response_flags"] == "UH"
