"""What a listener does to heads before they are routed, and how it limits its connections."""

import asyncio
from typing import Any

import pytest

from mesh.http.path import EscapedSlashes
from mesh.routing.table import DirectResponse, PathKind, PathMatch, Route, RouteMatch
from sidecar.config import HttpFilter, UnderscoreAction
from tests.component.plane_harness import client, cluster, forward, origin, run, running, snapshot, total, until

pytestmark = pytest.mark.component

TRACE = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


def _http(**changes: Any) -> HttpFilter:
    return HttpFilter(route_table="table", **changes)


async def _heads(http: HttpFilter, *asked: tuple[str, tuple[str, ...]]) -> list[bytes]:
    """What the upstream gets of these requests, (path, header lines) each."""
    async with origin() as up, running(snapshot([cluster("c", up.port)], http=http)) as plane, client(plane) as user:
        for path, lines in asked:
            assert (await user.ask(path, *lines)).status == 200
        return up.requests


def test_invalid_trace_headers_are_dropped_although_nothing_is_traced() -> None:
    async def body() -> None:
        bad, good, later = await _heads(
            _http(),
            ("/", (f"traceparent: ff-{TRACE}-01", "tracestate: a=1")),
            ("/", (f"traceparent: 00-{TRACE}-03", "tracestate: a=1,b=2")),
            ("/", (f"TraceParent: cc-{TRACE}-01-x", "tracestate: a=1", "Tracestate: b=2,,a=3")),
        )
        assert b"trace" not in bad.lower()
        assert f"traceparent: 00-{TRACE}-03\r\n".encode() in good
        assert b"tracestate: a=1,b=2\r\n" in good
        assert f"traceparent: 00-{TRACE}-01\r\n".encode() in later
        assert b"tracestate: a=1,b=2\r\n" in later
        assert later.lower().count(b"\ntrace") == 2

    run(body())


def test_path_is_normalised_before_it_is_routed() -> None:
    async def body() -> None:
        secret = Route(
            name="secret",
            match=RouteMatch(path=PathMatch(kind=PathKind.PREFIX, value="/secret")),
            action=DirectResponse(status=403),
        )
        http = _http(normalize_path=True, merge_slashes=True, escaped_slashes=EscapedSlashes.UNESCAPE_AND_FORWARD)
        async with origin() as up:
            config = snapshot([cluster("c", up.port)], [secret, forward("c")], http=http)
            async with running(config) as plane, client(plane) as user:
                for path in (
                    "/secret",
                    "/a/../secret",
                    "//secret",
                    "/a/%2e%2e/secret",
                    "/a%2f..%2fsecret",
                    "/%73ecret",
                    "/a/..;x/secret",
                ):
                    assert (await user.ask(path)).status == 403, path
                assert (await user.ask("/a/./b?c=/../d")).status == 200
                assert up.requests[0].startswith(b"GET /a/b?c=/../d HTTP/1.1\r\nhost: a.example\r\n")

    run(body())


def test_escaped_slashes_are_refused_or_redirected() -> None:
    async def body() -> None:
        for action, status in ((EscapedSlashes.REJECT, 400), (EscapedSlashes.UNESCAPE_AND_REDIRECT, 307)):
            async with (
                running(snapshot([cluster("c")], http=_http(escaped_slashes=action))) as plane,
                client(plane) as user,
            ):
                answer = await user.ask("/a%2Fb?c=%2F")
                assert answer.status == status
                if status == 307:
                    assert answer.headers["location"] == "http://a.example/a/b?c=%2F"

    run(body())


def test_edge_believes_nothing_about_who_came_before() -> None:
    async def body() -> None:
        lines = (
            "X-Forwarded-For: 6.6.6.6",
            "X-Forwarded-Proto: https",
            "X-Request-Id: mine",
            "X-Envoy-Attempt-Count: 9",
            "X-Envoy-Expected-Rq-Timeout-Ms: 1",
            "X-Envoy-Internal: true",
            "X-Forwarded-Client-Cert: By=spiffe://evil",
        )
        inside = (await _heads(_http(), ("/", lines)))[0].lower()
        edge = (await _heads(_http(use_remote_address=True), ("/", lines)))[0].lower()
        hops = (
            await _heads(
                _http(use_remote_address=True, trusted_hops=1, preserve_external_request_id=True), ("/", lines)
            )
        )[0].lower()
        quiet = (await _heads(_http(use_remote_address=True, skip_xff_append=True), ("/", lines)))[0].lower()
        for head in (inside, edge, hops, quiet):
            assert b"x-envoy-internal" not in head
            assert b"client-cert" not in head
        assert b"x-forwarded-for: 6.6.6.6\r\n" in inside
        assert b"x-forwarded-proto: https\r\n" in inside
        assert b"x-request-id: mine\r\n" in inside
        assert b"x-envoy-attempt-count: 9\r\n" in inside
        assert b"x-forwarded-for: 6.6.6.6, 127.0.0.1\r\n" in edge
        assert b"x-forwarded-proto: http\r\n" in edge
        assert b"mine" not in edge
        assert edge.count(b"x-request-id: ") == 1
        assert b"x-envoy-attempt-count" not in edge
        assert b"x-envoy-expected-rq-timeout-ms: 15000\r\n" in edge
        assert b"x-forwarded-proto: https\r\n" in hops
        assert b"x-request-id: mine\r\n" in hops
        assert b"x-forwarded-for: 6.6.6.6\r\n" in quiet

    run(body())


def test_names_with_underscores_are_dropped_or_refused() -> None:
    async def body() -> None:
        (head,) = await _heads(_http(underscores=UnderscoreAction.DROP), ("/", ("X_A: 1", "X-B: 2")))
        assert b"X_A" not in head
        assert b"X-B: 2\r\n" in head
        refusing = snapshot([cluster("c")], http=_http(underscores=UnderscoreAction.REJECT))
        async with running(refusing) as plane, client(plane) as user:
            assert (await user.ask("/", "X_A: 1")).status == 400

    run(body())


def test_via_is_added_both_ways_when_asked_for() -> None:
    async def body() -> None:
        async with (
            origin(lambda _: b"HTTP/1.1 200 OK\r\nDate: d\r\nVia: 1.1 app\r\nContent-Length: 0\r\n\r\n") as up,
            running(snapshot([cluster("c", up.port)], http=_http(via="mesh-1"))) as plane,
            client(plane) as user,
        ):
            user.get("/", "Via: 1.0 other")
            head = (await user.reader.readuntil(b"\r\n\r\n")).lower()
            assert head.index(b"via: 1.1 app\r\n") < head.index(b"via: mesh-1\r\n")
            sent = up.requests[0].lower()
            assert sent.index(b"via: 1.0 other\r\n") < sent.index(b"via: mesh-1\r\n")
        (head,) = await _heads(_http(), ("/", ()))
        assert b"via" not in head.lower()

    run(body())


def test_connection_ends_after_its_requests() -> None:
    async def body() -> None:
        http = _http(max_requests_per_connection=2)
        async with (
            origin() as up,
            running(snapshot([cluster("c", up.port)], http=http)) as plane,
            client(plane) as user,
        ):
            for n in range(3):
                user.get(f"/{n}")
            assert "connection" not in (await user.response()).headers
            assert (await user.response()).headers["connection"] == "close"
            assert await user.at_eof()
            assert len(up.requests) == 2

    run(body())


def test_connection_ends_when_it_is_old() -> None:
    async def body() -> None:
        answer_now = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await answer_now.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        http = _http(max_connection_duration_s=1.0)
        async with (
            origin(script=script) as up,
            running(snapshot([cluster("c", up.port)], http=http)) as plane,
            client(plane) as busy,
            client(plane) as idle,
        ):
            busy.get()
            await until(lambda: up.open == 1)
            assert await idle.at_eof()  # then the other, which is older, is too old as well
            answer_now.set()
            assert (await busy.response()).headers["connection"] == "close"
            assert await busy.at_eof()

    run(body())


def test_request_that_does_not_come_whole_in_time_is_408() -> None:
    async def body() -> None:
        async with (
            origin() as up,
            running(snapshot([cluster("c", up.port)], http=_http(request_timeout_s=0.2))) as plane,
            client(plane) as user,
        ):
            user.get("/", "Content-Length: 10", method="POST")
            user.send(b"half")
            assert (await user.response()).status == 408
            assert await user.at_eof()
            assert total(plane, 408, "SI") == 1
            await until(lambda: up.open == 0)
            assert plane.plane.clusters["c"].active == 0

    run(body())


def test_empty_lines_between_requests_do_not_start_a_late_head() -> None:
    async def body() -> None:
        http = _http(request_headers_timeout_s=0.1)
        async with (
            origin() as up,
            running(snapshot([cluster("c", up.port)], http=http)) as plane,
            client(plane) as user,
        ):
            user.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n")
            assert (await user.response()).status == 200
            user.send(b"\r\n")
            await asyncio.sleep(0.3)
            assert (await user.ask()).status == 200
            assert up.connections == 1

    run(body())
