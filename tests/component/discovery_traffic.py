"""Upstreams and requests through a proxy without interception (`127.0.0.1:15001`)."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

REQUESTS = 400
PROXY_PORT = 15001


@asynccontextmanager
async def upstream(text: str) -> AsyncIterator[int]:
    """A server that answers `text`."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def ask(session: aiohttp.ClientSession, host: str, path: str = "/") -> tuple[int, str]:
    async with session.get(f"http://127.0.0.1:{PROXY_PORT}{path}", headers={"Host": host}) as answer:
        return answer.status, await answer.text()


async def has_listener(session: aiohttp.ClientSession) -> bool:
    try:
        status, _ = await ask(session, "web")
    except aiohttp.ClientError:
        return False
    return status == 200


async def shares(session: aiohttp.ClientSession, host: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(REQUESTS):
        status, text = await ask(session, host)
        assert status == 200, text
        found[text] += 1
    return found
