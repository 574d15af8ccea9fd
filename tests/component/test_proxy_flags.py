"""Every response flag that the data plane knows can be reached, and the access log tells it. Over real sockets.

DI, FI and RL belong to filters and are tested with them; UC, UT, SI, DT, UMSDR and URX in their own files as well.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.resilience.limits import CircuitLimits
from mesh.resilience.retry import RetryOn, RetryPolicy
from mesh.routing.table import Route
from sidecar.config import AccessLog, AccessLogFormat, Cluster, HttpFilter
from tests.component.plane_harness import (
    OK,
    Client,
    client,
    cluster,
    forward,
    origin,
    run,
    running,
    snapshot,
    total,
    until,
)
from tests.loopback_port import free_port

pytestmark = pytest.mark.component

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def babbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 banana\r\n\r\n")
    await reader.read()


async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")


async def fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 No\r\nDate: d\r\nContent-Length: 0\r\n\r\n")


async def sends(user: Client) -> None:
    user.get("/", "Connection: close")
    await user.reader.read()


async def leaves(user: Client) -> None:
    user.get()
    await asyncio.sleep(0.05)
    user.writer.transport.abort()


async def breaks_its_body(user: Client) -> None:
    user.get("/", "Transfer-Encoding: chunked", method="POST")
    user.send(b"zzz\r\n")
    await user.reader.read()


async def speaks_nonsense(user: Client) -> None:
    user.send(b"GET / HTTP/1.1\r\nbad header\r\n\r\n")
    await user.reader.read()


@dataclass(frozen=True)
class Case:
    flags: str
    status: int
    code: str
    script: Script = never
    route: dict[str, Any] = field(default_factory=dict)
    upstream: dict[str, Any] = field(default_factory=dict)
    http: dict[str, Any] = field(default_factory=dict)
    client: Callable[[Client], Awaitable[None]] = sends
    ports: str = "up"
    """"up", "closed", "none", or "missing": what the route's cluster has."""


RETRY = RetryPolicy(conditions=RetryOn.SERVER_ERROR, max_retries=1)
CASES = [
    Case("NC", 503, "cluster_not_found", ports="missing"),
    Case("UH", 503, "no_healthy_upstream", ports="none"),
    Case("UF", 503, "upstream_reset_before_response_started{remote_connection_failure}", ports="closed"),
    Case(
        "UF,URX",
        503,
        "upstream_reset_before_response_started{remote_connection_failure}",
        ports="closed",
        route={"retry": RETRY},
    ),
    Case("UC", 503, "upstream_reset_before_response_started{connection_termination}", script=closes),
    Case("UC", 200, "upstream_reset_after_response_started{connection_termination}", script=breaks_off),
    Case("UT", 504, "response_timeout", route={"timeout_s": 0.05}),
    Case(
        "UT,URX",
        504,
        "upstream_per_try_timeout",
        route={"retry": RetryPolicy(conditions=RetryOn.RESET, max_retries=1, per_try_timeout_s=0.03)},
    ),
    Case("URX", 503, "via_upstream", script=fails, route={"retry": RETRY}),
    Case("UPE", 502, "upstream_reset_before_response_started{protocol_error}", script=babbles),
    Case(
        "UO", 503, "upstream_reset_before_response_started{overflow}", upstream={"limits": CircuitLimits(max_pending=0)}
    ),
    Case("UMSDR", 504, "upstream_max_stream_duration_reached", upstream={"max_stream_duration_s": 0.05}),
    Case("DT", 504, "max_duration_timeout", route={"max_stream_duration_s": 0.05}),
    Case("SI", 504, "stream_idle_timeout", http={"stream_idle_timeout_s": 0.05}),
    Case("DC", 0, "downstream_remote_disconnect", client=leaves),
    Case("DPE", 400, "http1.codec_error", client=breaks_its_body),
    Case("DPE", 400, "", client=speaks_nonsense),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.flags}-{at}" for at, case in enumerate(CASES)])
def test_flag_is_reached_and_the_log_says_why(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "access.log"

    async def body() -> None:
        async with AsyncExitStack() as stack:
            up = await stack.enter_async_context(origin(script=case.script))
            ports = {"up": (up.port,), "closed": (free_port(),)}.get(case.ports, ())
            clusters: list[Cluster] = [cluster("c", *ports, **case.upstream)]
            routes: list[Route] = [forward("d" if case.ports == "missing" else "c", **case.route)]
            log = AccessLog(path=str(path), format=AccessLogFormat.JSON)
            http = HttpFilter(route_table="table", access_log=log, **case.http)
            plane = await stack.enter_async_context(running(snapshot(clusters, routes, http=http)))
            user = await stack.enter_async_context(client(plane))
            await asyncio.wait_for(_finish(case, user), 10)
            await until(lambda: total(plane, case.status, case.flags) == 1)
            state = plane.plane.clusters["c"]
            assert (state.active, state.pending, state.retries) == (0, 0, 0)

    run(body())
    if not case.code:
        return  # a head that cannot be read is counted, not logged
    (line,) = path.read_bytes().splitlines()
    entry = msgspec.json.decode(line)
    assert (entry["response_flags"], entry["response_code_details"]) == (case.flags, case.code)
    assert (entry["detail"] != "") is (case.flags != "URX")


async def _finish(case: Case, user: Client) -> None:
    with contextlib.suppress(ConnectionError):
        await case.client(user)


def test_no_route_is_nr_and_a_good_request_has_no_flag() -> None:
    async def body() -> None:
        async with origin(lambda _: OK) as up:
            config = snapshot([cluster("c", up.port)])
            async with running(config) as plane, client(plane) as user:
                assert (await user.ask()).status == 200
                assert total(plane, 200, "") == 1
            table = config.route_tables["table"]
            lost = replace(config, route_tables={"table": replace(table, virtual_hosts=())})
            async with running(lost) as plane, client(plane) as user:
                assert (await user.ask()).status == 404
                assert total(plane, 404, "NR") == 1

    run(body())
