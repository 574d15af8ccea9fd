"""Listeners, snapshots, TCP, protocol detection, drain, log and spans of the data plane."""

import asyncio
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.routing.table import (
    DirectResponse,
    Forward,
    HeaderMatch,
    HeaderMutation,
    HeaderValue,
    MatchKind,
    PathKind,
    PathMatch,
    Provenance,
    Redirect,
    Route,
    RouteMatch,
    RouteTable,
    StringMatch,
    VirtualHost,
    WeightedCluster,
)
from mesh.telemetry.trace_context import parse_traceparent
from sidecar.config import (
    AccessLog,
    AccessLogFormat,
    ClusterKind,
    FilterChain,
    HttpFilter,
    Listener,
    Snapshot,
    TcpFilter,
    Tracing,
)
from sidecar.errors import ListenError, SnapshotError
from sidecar.records import RequestRecord, SpanSink
from tests.component.plane_harness import OK, client, cluster, forward, origin, run, running, snapshot, total, until

pytestmark = pytest.mark.component


class Spans(SpanSink):
    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def offer(self, record: RequestRecord) -> None:
        self.records.append(record)


def test_split_follows_weights_and_changes_with_the_snapshot() -> None:
    async def body() -> None:
        async with origin() as one, origin() as two:
            clusters = [cluster("one", one.port), cluster("two", two.port)]

            def split(first: int, second: int) -> Snapshot:
                action = Forward(
                    clusters=(WeightedCluster(name="one", weight=first), WeightedCluster(name="two", weight=second))
                )
                return snapshot(clusters, [Route(action=action)])

            async with running(split(90, 10)) as plane, client(plane) as user:
                for _ in range(400):
                    assert (await user.ask()).status == 200
                assert 15 <= len(two.requests) <= 75
                before = len(one.requests)
                await plane.apply(split(0, 1))
                for _ in range(20):
                    assert (await user.ask()).status == 200
                assert len(one.requests) == before

    run(body())


def test_removed_endpoint_gets_no_more_requests_and_its_idle_connection_closes() -> None:
    async def body() -> None:
        async with (
            origin() as one,
            origin() as two,
            running(snapshot([cluster("c", one.port)])) as plane,
            client(plane) as user,
        ):
            await user.ask()
            await plane.apply(snapshot([cluster("c", two.port)]))
            assert (await user.ask()).status == 200
            assert (len(one.requests), len(two.requests)) == (1, 1)
            await until(lambda: one.open == 0)

    run(body())


def test_request_under_way_survives_the_removal_of_its_cluster() -> None:
    async def body() -> None:
        release = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            writer.write(OK)
            await reader.read()

        async with (
            origin(script=slow) as up,
            running(snapshot([cluster("old", up.port)])) as plane,
            client(plane) as user,
        ):
            user.get()
            await until(lambda: up.open == 1)
            await plane.apply(snapshot([cluster("new", up.port)]))
            release.set()
            assert (await user.response()).status == 200
            await until(lambda: up.open == 0)

    run(body())


def test_bad_snapshot_changes_nothing() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            good = plane.plane.snapshot
            with pytest.raises(SnapshotError, match="route table"):
                await plane.apply(replace(good, route_tables={}))
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                extra = replace(good.listeners[0], name="extra", port=taken.getsockname()[1])
                with pytest.raises(ListenError, match="cannot bind"):
                    await plane.apply(replace(good, listeners=(*good.listeners, extra)))
            assert (await user.ask()).status == 200
            assert plane.plane.snapshot is good

    run(body())


def test_routes_by_host_path_and_header_with_rewrites_and_redirects() -> None:
    async def body() -> None:
        async with origin() as up:
            added = HeaderMutation(add=(HeaderValue(name="x-new", value="1"),), remove=("x-old",))
            table = RouteTable(
                name="t",
                virtual_hosts=(
                    VirtualHost(
                        name="shop",
                        domains=("shop.example", "*.shop.example"),
                        routes=(
                            Route(
                                match=RouteMatch(path=PathMatch(kind=PathKind.EXACT, value="/teapot")),
                                action=DirectResponse(status=418, body=b"short and stout"),
                            ),
                            Route(
                                match=RouteMatch(path=PathMatch(value="/old")),
                                action=Redirect(prefix_rewrite="/new", status=308),
                            ),
                            Route(
                                match=RouteMatch(path=PathMatch(value="/api/")),
                                action=Forward(
                                    clusters=(WeightedCluster(name="c"),),
                                    prefix_rewrite="/v2/",
                                    host_rewrite="api.internal",
                                ),
                                request_headers=added,
                                response_headers=HeaderMutation(add=(HeaderValue(name="x-back", value="2"),)),
                            ),
                        ),
                    ),
                ),
            )
            config = snapshot([cluster("c", up.port)], http=HttpFilter(inline_routes=table))
            async with running(config) as plane, client(plane) as user:
                tea = await user.ask("/teapot", host="shop.example")
                assert (tea.status, tea.body) == (418, b"short and stout")
                moved = await user.ask("/old/x?y=1", host="eu.shop.example")
                assert (moved.status, moved.headers["location"]) == (308, "http://eu.shop.example/new/x?y=1")
                api = await user.ask("/api/a?b", "X-Old: 1", host="SHOP.example")
                assert api.headers["x-back"] == "2"
                head = up.requests[0]
                assert head.startswith(b"GET /v2/a?b HTTP/1.1\r\nhost: api.internal\r\n")
                assert b"x-new: 1\r\n" in head
                assert b"X-Old" not in head
                assert (await user.ask("/", host="else.example")).status == 404

    run(body())


def test_absolute_form_works_as_a_forward_proxy() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([cluster("c", up.port)])) as plane, client(plane) as user:
            user.send(b"GET http://web.default:80/p?q HTTP/1.1\r\nHost: ignored\r\n\r\n")
            assert (await user.response()).status == 200
            assert up.requests[0].startswith(b"GET /p?q HTTP/1.1\r\nhost: web.default:80\r\n")

    run(body())


def tcp_snapshot(port: int, *, detect: bool = False, http_port: int = 0) -> Snapshot:
    tcp = FilterChain(filter=TcpFilter(clusters=(WeightedCluster(name="t"),)))
    chains: tuple[FilterChain, ...] = (tcp,)
    table = RouteTable(name="r", virtual_hosts=(VirtualHost(name="v", domains=("*",), routes=(forward("h"),)),))
    if detect:
        chains = (FilterChain(name="http", detected_http=True, filter=HttpFilter(route_table="r")), tcp)
    return Snapshot(
        listeners=(Listener(name="in", address="127.0.0.1", port=0, chains=chains, detect_timeout_s=0.05),),
        route_tables={"r": table},
        clusters={"t": cluster("t", port), "h": cluster("h", *([http_port] if http_port else []))},
    )


async def _upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()
    writer.write(b"<end>")


def test_tcp_passes_through_with_half_close() -> None:
    async def body() -> None:
        async with origin(script=_upper) as up, running(tcp_snapshot(up.port)) as plane, client(plane) as user:
            user.send(b"hello")
            assert await user.reader.readexactly(5) == b"HELLO"
            user.writer.write_eof()
            assert await user.reader.read() == b"<end>"
            (series,) = plane.plane.stats.all_tcp()
            await until(lambda: series.closed == 1)
            assert (series.opened, series.received_bytes, series.sent_bytes) == (1, 5, 10)

    run(body())


def test_tcp_relay_respects_a_slow_reader() -> None:
    async def body() -> None:
        size = 32 << 20
        written = 0

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            while written < size:
                writer.write(b"x" * 65536)
                await writer.drain()
                written += 65536

        async with origin(script=flood) as up, running(tcp_snapshot(up.port)) as plane, client(plane) as user:
            seen = -1
            while seen != written or not seen:
                seen = written
                await asyncio.sleep(0.1)
            assert written < size // 2
            left = size
            while left:
                left -= len(await user.reader.read(1 << 20))

    run(body())


def test_tcp_without_an_endpoint_closes_the_connection() -> None:
    async def body() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        async with running(tcp_snapshot(port)) as plane, client(plane) as user:
            assert await user.at_eof()

    run(body())


def test_detection_sends_http_to_routes_and_the_rest_through() -> None:
    async def body() -> None:
        async with (
            origin(script=_upper) as raw,
            origin() as web,
            running(tcp_snapshot(raw.port, detect=True, http_port=web.port)) as plane,
        ):
            async with client(plane) as user:
                user.send(b"GET / HT")
                await asyncio.sleep(0.01)
                user.send(b"TP/1.1\r\nHost: a\r\n\r\n")
                assert (await user.response()).status == 200
            async with client(plane) as user:
                user.send(b"GET key\r\n")
                assert await user.reader.readexactly(9) == b"GET KEY\r\n"
            assert len(web.requests) == 1

    run(body())


def test_server_that_talks_first_is_not_kept_waiting_for_ever() -> None:
    async def body() -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 ready\r\n")
            await reader.read()

        async with (
            origin(script=greet) as up,
            running(tcp_snapshot(up.port, detect=True)) as plane,
            client(plane) as user,
        ):
            assert await user.reader.readline() == b"220 ready\r\n"

    run(body())


def test_connection_straight_to_an_interception_port_is_refused() -> None:
    async def body() -> None:
        chain = FilterChain(filter=TcpFilter(clusters=(WeightedCluster(name="Passthrough"),)))
        listener = Listener(name="in", address="127.0.0.1", port=0, use_original_dst=True, chains=(chain,))
        passthrough = replace(cluster("Passthrough"), kind=ClusterKind.ORIGINAL_DST)
        async with running(Snapshot(listeners=(listener,), clusters={"Passthrough": passthrough})) as plane:
            async with client(plane) as user:
                assert await user.at_eof()
            assert plane.plane.stats.loops_refused == 1

    run(body())


def test_drain_closes_idle_connections_and_lets_requests_end() -> None:
    async def body() -> None:
        release = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            writer.write(OK)
            await reader.read()

        async with (
            origin(script=slow) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as busy,
            client(plane) as idle,
        ):
            busy.get()
            await until(lambda: up.open == 1 and len(plane.plane.connections) == 2)
            plane.drain()
            assert await idle.at_eof()
            assert plane.active_requests == 1
            release.set()
            assert (await busy.response()).headers["connection"] == "close"
            assert await busy.at_eof()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*plane.address("in"))

    run(body())


def test_access_log_names_route_endpoint_and_cause(tmp_path: Path) -> None:
    async def body() -> None:
        path = tmp_path / "access.log"
        http = HttpFilter(route_table="table", access_log=AccessLog(path=str(path), format=AccessLogFormat.JSON))
        cause = Provenance(
            kind="VirtualService", namespace="default", name="web", field="spec.http[0]", file="web.yaml", line=9
        )
        async with origin() as up:
            config = snapshot([cluster("c", up.port)], [replace(forward("c"), provenance=cause)], http=http)
            async with running(config) as plane, client(plane) as user:
                await user.ask('/a?"b"', "X-Request-Id: id-1")
                await user.ask("/c")
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            assert len(lines) == 2
            first = lines[0]
            assert (first["path"], first["response_code"], first["request_id"]) == ('/a?"b"', 200, "id-1")
            assert first["upstream_host"] == f"127.0.0.1:{up.port}"
            assert first["cause"] == "VirtualService default/web spec.http[0] (web.yaml:9)"
            assert len(lines[1]["request_id"]) == 36

    run(body())


def test_traces_are_continued_sampled_or_marked_unsampled() -> None:
    async def body() -> None:
        spans = Spans()

        def traced(percent: float) -> HttpFilter:
            return HttpFilter(
                route_table="table", tracing=Tracing(sampling_percent=percent, service_name="web.default")
            )

        def sent(request: bytes) -> bytes:
            return next(line for line in request.split(b"\r\n") if line.startswith(b"traceparent: "))[13:]

        trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        async with origin() as up:
            async with (
                running(snapshot([cluster("c", up.port)], http=traced(0.0)), spans) as plane,
                client(plane) as user,
            ):
                for _ in range(2):
                    await user.ask("/", f"traceparent: 00-{trace}-{parent}-01", "tracestate: a=b")
                await user.ask("/", f"traceparent: 00-{trace}-{parent}-00")
                await user.ask("/")
            first, second = (parse_traceparent(sent(request)) for request in up.requests[:2])
            assert first is not None
            assert second is not None
            assert first.trace_id == second.trace_id == trace.encode()
            assert first.span_id != second.span_id
            assert b"tracestate: a=b\r\n" in up.requests[0]
            assert sent(up.requests[2]) == f"00-{trace}-{parent}-00".encode()
            assert sent(up.requests[3]).endswith(b"-00")
            assert [record.parent_span_id for record in spans.records] == [parent.encode()] * 2
            assert spans.records[0].trace == first
            assert (spans.records[0].status, spans.records[0].service) == (200, "web.default")
            spans.records.clear()
            async with (
                running(snapshot([cluster("c", up.port)], http=traced(100.0)), spans) as plane,
                client(plane) as user,
            ):
                await user.ask("/")
                await user.ask("/")
            assert len({record.trace.trace_id for record in spans.records if record.trace}) == 2

    run(body())


def test_header_conditions_choose_the_route() -> None:
    async def body() -> None:
        async with origin() as canary, origin() as stable:
            match = RouteMatch(
                headers=(HeaderMatch(name="x-user", match=StringMatch(kind=MatchKind.EXACT, value="beta")),)
            )
            routes = [replace(forward("canary"), match=match), forward("stable")]
            config = snapshot([cluster("stable", stable.port), cluster("canary", canary.port)], routes)
            async with running(config) as plane, client(plane) as user:
                await user.ask("/", "X-User: beta")
                await user.ask("/", "X-User: alpha")
                await user.ask("/")
                assert (len(canary.requests), len(stable.requests)) == (1, 2)
                assert total(plane, 200) == 3

    run(body())
