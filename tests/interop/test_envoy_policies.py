"""Real Envoy takes everything that policies can say at once, and does it."""

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mesh.api.resources import DESTINATION_RULES, NODES, PODS, TRAFFIC_LIMITS, VIRTUAL_SERVICES, Resource
from tests.component.discovery_harness import Mesh, eventually, running_mesh
from tests.component.discovery_traffic import PROXY_PORT, ask, has_listener
from tests.every_policy import ROUTES, RULES
from tests.interop.test_envoy_ads import envoy

pytestmark = pytest.mark.interop

NEAR = {"topology.kubernetes.io/region": "north", "topology.kubernetes.io/zone": "n1"}


@asynccontextmanager
async def recorder(text: str) -> AsyncIterator[tuple[int, list[web.Request]]]:
    """An upstream that answers `text` and its own path; gives its port and the requests so far."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        status = 503 if request.path == "/again" and len([r for r in seen if r.path == "/again"]) == 1 else 200
        return web.Response(text=f"{text} {request.path}", status=status)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1]), seen
    finally:
        await runner.cleanup()


async def _pod_on(mesh: Mesh, name: str, app: str, node: str) -> None:
    containers = [{"name": "app", "image": "host", "ports": [{"containerPort": 8080}]}]
    await mesh.create(PODS, name, {"spec": {"nodeName": node, "containers": containers}}, labels={"app": app})


async def _objects(mesh: Mesh, one: int, two: int) -> None:
    await mesh.create(NODES, "near", {}, labels=NEAR)
    await mesh.create(NODES, "far", {}, labels={"topology.kubernetes.io/region": "south"})
    await _pod_on(mesh, "client", "client", "near")
    for app, (spec, annotations) in RULES.items():
        await mesh.service(app)
        await _pod_on(mesh, f"{app}-1", app, "near")
        await _pod_on(mesh, f"{app}-2", app, "far")
        await mesh.endpoints(app, ("127.0.0.1", one, f"{app}-1"), ("127.0.0.1", two, f"{app}-2"))
        await mesh.create(DESTINATION_RULES, app, {"spec": {"host": app, **spec}}, annotations=annotations)
    annotations = {"meshwork.dev/replay": "any", "meshwork.dev/retriable-headers": "x-again, x-more"}
    await mesh.create(VIRTUAL_SERVICES, "web", {"spec": {"hosts": ["web"], "http": ROUTES}}, annotations=annotations)


async def _all_programmed(mesh: Mesh) -> None:
    for resource, names in ((DESTINATION_RULES, list(RULES)), (VIRTUAL_SERVICES, ["web"])):
        for name in names:
            assert (await mesh.condition("Accepted", resource, name))["status"] == "True"
            await eventually(partial(_is_programmed, mesh, resource, name), 15)


async def _is_programmed(mesh: Mesh, resource: Resource, name: str) -> bool:
    return bool((await mesh.condition("Programmed", resource, name))["status"] == "True")


def test_envoy_carries_out_every_field() -> None:
    async def check() -> None:
        async with contextlib.AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            one, first = await stack.enter_async_context(recorder("one"))
            two, second = await stack.enter_async_context(recorder("two"))
            mesh = await stack.enter_async_context(running_mesh(folder))
            await _objects(mesh, one, two)
            admin = await stack.enter_async_context(envoy(mesh, folder, uses_delta=True, pod="client"))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            await eventually(lambda: has_listener(session), 15)
            await _all_programmed(mesh)
            (proxy,) = mesh.discovery.publisher.proxies
            assert not proxy.state.errors
            await _answers_by_itself(session)
            await _routes(session, first + second)
            await _balances(session)
            await _cluster_state(session, admin)
            assert [r.path for r in first + second if r.path == "/healthz"], "no active health check was seen"
            mirrored = [r for r in first + second if r.headers.get("Host") == "web-shadow"]
            assert mirrored

    asyncio.run(check())


async def _answers_by_itself(session: aiohttp.ClientSession) -> None:
    url = f"http://127.0.0.1:{PROXY_PORT}"
    asked = {"Host": "web", "Origin": "https://b.example", "Access-Control-Request-Method": "PUT"}
    async with session.options(f"{url}/cors", headers=asked) as answer:
        assert answer.status == 200
        found = {name.lower(): value for name, value in answer.headers.items()}
        assert found["access-control-allow-origin"] == "https://b.example"
        assert found["access-control-allow-methods"] == "GET,PUT"
        assert found["access-control-max-age"] == "86400"
        assert found["access-control-allow-credentials"] == "true"
    before = asyncio.get_running_loop().time()
    assert (await ask(session, "web", "/fault"))[0] == 418
    assert asyncio.get_running_loop().time() - before >= 0.05
    async with session.get(f"{url}/away/x", headers={"Host": "web"}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["location"]) == (308, "https://web:80/away/x")
    assert await ask(session, "web", "/said") == (299, "hi")


async def _routes(session: aiohttp.ClientSession, _seen: list[web.Request]) -> None:
    status, text = await ask(session, "web", "/aGaIn/and/again")
    assert (status, text.partition(" ")[2]) == (200, "/again")
    headers = {"Host": "web", "x-a": "2", "x-b": ""}
    async with session.get(f"http://127.0.0.1:{PROXY_PORT}/x17?q=v1", headers=headers) as answer:
        assert answer.headers["x-seen"] == "yes"
    async with session.get(f"http://127.0.0.1:{PROXY_PORT}/x17?q=v1", headers={**headers, "x-c": "1"}) as answer:
        assert "x-seen" not in answer.headers
    assert (await ask(session, "web", "/mirror"))[0] == 200


async def _balances(session: aiohttp.ClientSession) -> None:
    """Failover keeps to the near one, a key to its one, and the shares are those asked for."""
    near: Counter[str] = Counter()
    for _ in range(20):
        near[(await ask(session, "web"))[1]] += 1
    assert set(near) == {"one /"}
    by_user: dict[str, set[str]] = {}
    for number in range(60):
        headers = {"Host": "ring", "x-user": f"u{number % 12}"}
        async with session.get(f"http://127.0.0.1:{PROXY_PORT}/", headers=headers) as answer:
            by_user.setdefault(headers["x-user"], set()).add(await answer.text())
    assert all(len(answers) == 1 for answers in by_user.values())
    assert len(set().union(*by_user.values())) == 2
    shares: Counter[str] = Counter()
    for _ in range(200):
        async with aiohttp.ClientSession() as fresh:
            shares[(await ask(fresh, "maglev"))[1]] += 1
    assert 20 <= shares["one /"] <= 180


async def _cluster_state(session: aiohttp.ClientSession, admin: int) -> None:
    async with session.get(f"http://127.0.0.1:{admin}/clusters?format=json") as answer:
        statuses = (await answer.json())["cluster_statuses"]
    hosts = {
        status["name"].split("|")[-1].split(".")[0]: {
            h["locality"].get("region", ""): (h.get("priority", 0), h.get("weight")) for h in status["host_statuses"]
        }
        for status in statuses
        if status["name"].startswith("outbound|80||")
    }
    assert {region: priority for region, (priority, _) in hosts["web"].items()} == {"north": 0, "south": 1}
    assert {region: priority for region, (priority, _) in hosts["slow"].items()} == {"north": 0, "south": 1}
    assert {region: priority for region, (priority, _) in hosts["maglev"].items()} == {"north": 0, "south": 0}


def test_envoy_takes_limits_of_what_is_let_in() -> None:
    """With interception, whose listeners work only in a pod's network: what is tested is that Envoy acknowledges them."""

    async def check() -> None:
        async with contextlib.AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            mesh = await stack.enter_async_context(running_mesh(folder))
            await mesh.service("web")
            await mesh.pod("web-1", "web")
            rate = {"maxTokens": 10, "tokensPerFill": 5, "fillInterval": "1s", "status": 503}
            spec = {"selector": {"matchLabels": {"app": "web"}}, "localRateLimit": rate, "adaptiveConcurrency": {}}
            await mesh.create(TRAFFIC_LIMITS, "web", {"spec": spec})
            admin = await stack.enter_async_context(envoy(mesh, folder, uses_delta=True, pod="web-1", mode="REDIRECT"))
            session = await stack.enter_async_context(aiohttp.ClientSession())

            async def has_filters() -> bool:
                try:
                    async with session.get(f"http://127.0.0.1:{admin}/config_dump") as answer:
                        text = await answer.text()
                except aiohttp.ClientError:
                    return False
                return "local_rate_limit.shop.web" in text and "gradient_controller_config" in text

            await eventually(has_filters, 15)
            await eventually(lambda: _is_programmed(mesh, TRAFFIC_LIMITS, "web"), 15)
            (proxy,) = mesh.discovery.publisher.proxies
            assert not proxy.state.errors

    asyncio.run(check())
