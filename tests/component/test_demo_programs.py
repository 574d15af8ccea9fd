"""The two programs of the demo's pods, against each other on loopback."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mesh.cli.demo.exchange import Handler, Request, Response
from mesh.cli.demo.exchange import _converse as converse
from mesh.cli.demo.load import LoadServer
from mesh.cli.demo.spans import parse_traceparent
from mesh.cli.demo.web import WebApplication

pytestmark = pytest.mark.component


@asynccontextmanager
async def _listening(handler: Handler) -> AsyncIterator[int]:
    stopping, ended, opened = asyncio.Event(), asyncio.Semaphore(0), 0

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            await converse(handler, reader, writer, stopping)
        writer.close()
        await writer.wait_closed()
        ended.release()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        stopping.set()
        server.close()
        await server.wait_closed()
        for _ in range(opened):
            await ended.acquire()


async def _post(server: LoadServer, path: str, **query: str) -> Any:
    response: Response = await server.handle(Request("POST", path, query, {}, b""))
    assert response.status == 200, response.body
    return json.loads(response.body)


def test_the_load_counts_channels_and_failures() -> None:
    async def work() -> None:
        web = WebApplication({"POD_NAME": "p1", "CHANNEL": "canary"})
        async with _listening(web.handle) as port:
            load, url = LoadServer(), f"http://127.0.0.1:{port}/"
            good = await _post(load, "/run", url=url, count="50", concurrency="3")
            assert (good["total"], good["failed"], good["by_channel"]) == (50, 0, {"canary": 50})
            await web.handle(Request("POST", "/-/switch", {"status": "500"}, {}, b""))
            bad = await _post(load, "/run", url=url, count="5")
            assert (bad["total"], bad["failed"], bad["by_status"]) == (5, 5, {"500": 5})

    asyncio.run(work())


def test_a_started_load_runs_until_it_is_stopped() -> None:
    async def work() -> None:
        web = WebApplication({"POD_NAME": "p1", "COLOR": "blue"})
        async with _listening(web.handle) as port:
            load = LoadServer()
            await _post(load, "/start", url=f"http://127.0.0.1:{port}/", rate="2000", concurrency="2")
            while json.loads((await load.handle(Request("GET", "/report", {}, {}, b""))).body)["total"] < 20:
                await asyncio.sleep(0.01)
            report = await _post(load, "/stop")
            assert report["failed"] == 0
            assert report["by_channel"]["blue"] == report["total"] >= 20

    asyncio.run(work())


@pytest.mark.parametrize(
    ("path", "query"), [("/run", {"url": "ftp://x/"}), ("/stop", {}), ("/run", {"url": "http://x/", "count": "many"})]
)
def test_a_wrong_order_is_refused(path: str, query: dict[str, str]) -> None:
    async def work() -> int:
        return (await LoadServer().handle(Request("POST", path, query, {}, b""))).status

    assert asyncio.run(work()) == 400


@pytest.mark.parametrize(
    ("header", "is_valid"),
    [
        ("00-" + "a" * 32 + "-" + "b" * 16 + "-01", True),
        ("00-" + "0" * 32 + "-" + "b" * 16 + "-01", False),
        ("ff-" + "a" * 32 + "-" + "b" * 16 + "-01", False),
        ("", False),
    ],
)
def test_traceparent(header: str, is_valid: bool) -> None:
    assert (parse_traceparent(header) is not None) == is_valid
