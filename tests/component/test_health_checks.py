"""Active health checks over real sockets: endpoints come and go by what they answer."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mesh.balance.endpoint import Endpoint
from mesh.resilience.health_check import HealthCheck
from mesh.resilience.outlier import OutlierConfig
from mesh.resilience.probe import HttpProbe, TcpProbe
from mesh.telemetry.istio import Peer
from sidecar.admin import config_dump
from sidecar.config import Cluster
from sidecar.metrics import MetricsSource, render_metrics
from sidecar.server import DataPlane
from tests.component.plane_harness import (
    OK,
    Origin,
    client,
    cluster,
    origin,
    run,
    running,
    snapshot,
    until,
)

pytestmark = pytest.mark.component

BAD = b"HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nbad"
HTTP = HttpProbe(path="/live")


def check(probe: HttpProbe | TcpProbe = HTTP, **changes: Any) -> HealthCheck:
    values: dict[str, Any] = {
        "probe": probe,
        "timeout_s": 1.0,
        "interval_s": 0.02,
        "no_traffic_interval_s": 0.02,
        "unhealthy_threshold": 2,
        "healthy_threshold": 2,
        **changes,
    }
    return HealthCheck(**values)


def checked(*ports: int, config: HealthCheck | None = None, **changes: Any) -> Cluster:
    return cluster("c", *ports, health_checks=(config or check(),), panic_threshold_percent=0.0, **changes)


def usable(plane: DataPlane) -> set[int]:
    return {host.port for host in plane.plane.clusters["c"].available}


def checks(one: Origin) -> list[bytes]:
    return [request for request in one.requests if b"user-agent: Envoy/HC" in request]


def stats(plane: DataPlane) -> Any:
    return plane.plane.checker.stats["c"]


def test_endpoint_leaves_by_a_wrong_answer_and_returns_after_passing_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar.health_checking")

    async def body() -> None:
        async with (
            origin() as good,
            origin(lambda _: BAD) as bad,
            running(snapshot([checked(good.port, bad.port)])) as plane,
        ):
            await until(lambda: usable(plane) == {good.port})
            async with client(plane) as user:
                for _ in range(10):
                    assert (await user.ask()).status == 200
            seen = len(checks(bad))
            assert len(bad.requests) == seen
            bad.answer = lambda _: OK
            await until(lambda: usable(plane) == {good.port, bad.port})
            assert len(checks(bad)) >= seen + 2
            assert (good.connections, bad.connections) == (2, 1)  # the checks keep theirs; the good one also serves
            assert checks(good)[0] == b"GET /live HTTP/1.1\r\nhost: c\r\nuser-agent: Envoy/HC\r\n\r\n"

    run(body())
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["endpoint fails its health check", "endpoint passes its health check"]
    assert vars(caplog.records[0])["reason"] == "status 500"


def test_threshold_decides_for_endpoints_that_do_not_answer() -> None:
    async def body() -> None:
        async with origin() as up, running(snapshot([checked(up.port, config=check(unhealthy_threshold=3))])) as plane:
            await until(lambda: stats(plane).success >= 1)
            up.answer = lambda _: None
            await until(lambda: stats(plane).network_failure >= 2)
            assert usable(plane) == {up.port}
            await until(lambda: not usable(plane))
            assert stats(plane).failure == 3
            async with client(plane) as user:
                assert (await user.ask()).status == 503

    run(body())


def test_closed_port_is_found_at_once_and_a_hanging_one_after_the_timeout() -> None:
    async def body() -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with origin() as gone:
            pass
        async with origin(script=hang) as stuck, origin() as good:
            config = checked(gone.port, stuck.port, good.port, config=check(timeout_s=0.05))
            async with running(snapshot([config])) as plane:
                await until(lambda: usable(plane) == {good.port})
                details = {
                    host.port: host.check.detail for host in plane.plane.clusters["c"].hosts.values() if host.check
                }
                assert "refused" in details[gone.port]
                assert details[stuck.port] == "no result within 0.05 s"
                await until(lambda: stuck.open <= 1)

    run(body())


def _pong(data: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            for byte in data:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)

    return answer


@pytest.mark.parametrize(
    ("probe", "answer", "passes"),
    [
        (TcpProbe(), b"", True),
        (TcpProbe(send=b"PING", receive=(b"PO", b"NG")), b"+PO-NG", True),
        (TcpProbe(send=b"PING", receive=(b"PONG",)), b"LOADING", False),
    ],
)
def test_tcp_probes(probe: TcpProbe, answer: bytes, passes: bool) -> None:
    async def body() -> None:
        config = check(probe, timeout_s=0.1)
        async with origin(script=_pong(answer)) as up, running(snapshot([checked(up.port, config=config)])) as plane:
            await until(lambda: stats(plane).success + stats(plane).failure >= 3)
            assert bool(usable(plane)) is passes
            await until(lambda: up.open <= 1)
            assert (up.connections == 1) is (bool(probe.send) and passes)

    run(body())


@pytest.mark.parametrize(
    ("probe", "answer", "passes"),
    [
        (replace(HTTP, expected=((500, 501),)), BAD, True),
        (replace(HTTP, receive=(b"ok",)), OK, True),
        (replace(HTTP, receive=(b"fine",)), OK, False),
        (replace(HTTP, receive=(b"k",), response_buffer_bytes=1), OK, False),
        (replace(HTTP, method=b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", True),
        (HTTP, b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
        (HTTP, b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
        (HTTP, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 extra", True),
        (HTTP, b"SSH-2.0-OpenSSH\r\n", False),
        (HTTP, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", False),
    ],
)  # fmt: skip
def test_http_answers(probe: HttpProbe, answer: bytes, passes: bool) -> None:
    async def body() -> None:
        async with origin(lambda _: answer) as up:
            config = checked(up.port, config=check(probe))
            async with running(snapshot([config])) as plane:
                await until(lambda: stats(plane).success + stats(plane).failure >= 3)
                assert bool(usable(plane)) is passes
                assert (stats(plane).success > 0) is passes

    run(body())


def test_retriable_status_counts_like_no_answer() -> None:
    async def body() -> None:
        probe = replace(HTTP, retriable=((500, 501),))
        async with origin() as up, running(snapshot([checked(up.port, config=check(probe))])) as plane:
            await until(lambda: stats(plane).success >= 1)
            up.answer = lambda _: BAD
            await until(lambda: stats(plane).failure == 1)
            assert usable(plane) == {up.port}
            await until(lambda: not usable(plane))
            assert stats(plane).network_failure == 0

    run(body())


def test_server_that_closes_idle_check_connections_is_well() -> None:
    async def body() -> None:
        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")  # closes when the next check comes

        async with origin(script=once) as up, running(snapshot([checked(up.port)])) as plane:
            await until(lambda: stats(plane).success >= 5)
            assert stats(plane).failure == 0
            assert up.connections >= 5

    run(body())


def test_unchanged_configuration_goes_on_and_removed_endpoints_stop() -> None:
    async def body() -> None:
        async with origin() as one, origin() as two:
            config = checked(one.port, two.port)
            async with running(snapshot([config])) as plane:
                await until(lambda: len(checks(one)) > 2 and len(checks(two)) > 2)
                await plane.apply(snapshot([replace(config, choice_count=3)]))
                await until(lambda: len(checks(one)) > 5)
                assert (one.connections, two.connections) == (1, 1)
                await plane.apply(snapshot([checked(one.port)]))
                await until(lambda: two.open == 0)
                seen = len(two.requests)
                await until(lambda: len(checks(one)) > 8)
                assert len(two.requests) == seen
                # Without checks nothing speaks against an endpoint any more.
                one.answer = lambda _: BAD
                await until(lambda: not usable(plane))
                await plane.apply(snapshot([replace(config, health_checks=())]))
                assert usable(plane) == {one.port, two.port}
                await until(lambda: one.open == 0)

    run(body())


@pytest.mark.parametrize("ignores", [False, True])
def test_endpoint_that_joins_waits_for_its_first_pass(ignores: bool) -> None:
    async def body() -> None:
        release = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await release.wait()
                writer.write(OK)

        async with origin() as old, origin(script=slow) as new:
            config = checked(old.port, ignores_new_hosts_until_checked=ignores)
            config = replace(config, panic_threshold_percent=80.0)
            async with running(snapshot([config])) as plane:
                await until(lambda: stats(plane).success >= 1)
                joined = Endpoint(address="127.0.0.1", port=new.port)
                await plane.apply(snapshot([replace(config, endpoints=(*config.endpoints, joined))]))
                state = plane.plane.clusters["c"]
                assert state.is_panicking is not ignores  # one of two is below 80 %, one of one is not
                assert usable(plane) == ({old.port} if ignores else {old.port, new.port})
                release.set()
                await until(lambda: not state.is_panicking and usable(plane) == {old.port, new.port})

    run(body())


@pytest.mark.parametrize("returns", [True, False])
def test_passing_check_lets_an_ejected_endpoint_return(returns: bool) -> None:
    async def body() -> None:
        def answer(request: bytes) -> bytes:
            return OK if b"GET /live" in request else BAD

        outlier = OutlierConfig(consecutive_5xx=1, uneject_on_active_check=returns, max_ejection_percent=100)
        async with origin(answer) as up, running(snapshot([checked(up.port, outlier=outlier)])) as plane:
            state = plane.plane.clusters["c"]
            async with client(plane) as user:
                assert (await user.ask()).status == 500
            assert state.ejections_total == 1
            seen = stats(plane).success
            await until(lambda: stats(plane).success > seen + 2)
            assert usable(plane) == ({up.port} if returns else set())

    run(body())


def test_response_can_take_its_endpoint_out_at_once() -> None:
    async def body() -> None:
        failing = OK.replace(b"Date", b"X-Envoy-Immediate-Health-Check-Fail: true\r\nDate")
        async with origin(lambda _: failing) as leaving, origin() as staying:
            slow = check(interval_s=30.0, no_traffic_interval_s=30.0)
            async with (
                running(snapshot([checked(leaving.port, staying.port, config=slow)])) as plane,
                client(plane) as user,
            ):
                await until(lambda: stats(plane).success == 2)
                while len(leaving.requests) < 2:
                    assert (await user.ask()).status == 200
                assert usable(plane) == {staying.port}
                assert stats(plane).passive_failure == 1
                for _ in range(10):
                    await user.ask()
                assert len(leaving.requests) == 2

    run(body())


def test_endpoints_own_port_host_and_exemption() -> None:
    async def body() -> None:
        async with origin(lambda _: BAD) as app, origin() as side:
            own = Endpoint(address="127.0.0.1", port=app.port, check_port=side.port, check_host="side.example")
            free = Endpoint(address="127.0.0.2", port=app.port, is_unchecked=True)
            config = replace(checked(1), endpoints=(own, free))
            async with running(snapshot([config])) as plane:
                await until(lambda: stats(plane).success >= 3)
                assert len(plane.plane.clusters["c"].available) == 2
                assert not app.requests
                assert b"host: side.example\r\n" in side.requests[0]

    run(body())


def test_many_endpoints_are_checked_a_few_at_a_time() -> None:
    async def body() -> None:
        most = 0
        async with origin() as up:

            def count(_: bytes) -> bytes:
                nonlocal most
                most = max(most, up.open)
                return OK

            up.answer = count
            endpoints = tuple(Endpoint(address="127.0.0.1", port=n, check_port=up.port) for n in range(1, 301))
            once = check(reuses_connection=False, interval_s=30.0, no_traffic_interval_s=30.0)
            config = replace(checked(1, config=once), endpoints=endpoints)
            async with running(snapshot([config])) as plane:
                await until(lambda: stats(plane).success == 300)
                assert 0 < most <= 64
                await plane.apply(snapshot([cluster("other", up.port)]))
                await until(lambda: up.open == 0)

    run(body())


def test_checks_are_counted_and_shown() -> None:
    async def body() -> None:
        async with (
            origin() as good,
            origin(lambda _: BAD) as bad,
            running(snapshot([checked(good.port, bad.port)])) as plane,
        ):
            await until(lambda: stats(plane).success >= 1 and stats(plane).failure >= 1)
            page = render_metrics(MetricsSource(plane=plane.plane, own=Peer())).decode()
            assert 'envoy_cluster_health_check_healthy{envoy_cluster_name="c"} 1' in page
            for name in ("attempt", "success", "failure", "passive_failure", "network_failure"):
                assert f'envoy_cluster_health_check_{name}{{envoy_cluster_name="c"}} ' in page
            dump = config_dump(plane.plane.snapshot, plane.plane.clusters)
            assert (dump["clusters"][0]["health_checks"], dump["clusters"][0]["failing_checks"]) == (["http"], 1)
            rows = {row["address"]: row for row in dump["endpoints"]}
            assert rows[f"127.0.0.1:{bad.port}"]["health_flags"] == "/failed_active_hc"
            assert rows[f"127.0.0.1:{bad.port}"]["check_detail"] == "status 500"
            assert rows[f"127.0.0.1:{good.port}"]["check"] == "passing"

    run(body())
