"""Real Envoy runs by an HTTPRoute whose parent is a Service; the API server and its status as Gateway API says."""

import asyncio
import contextlib
import tempfile
from collections import Counter
from pathlib import Path

import aiohttp
import orjson
import pytest

from mesh.api.resources import HTTP_ROUTES, VIRTUAL_SERVICES, Json
from mesh.client.errors import InvalidError
from tests.component.discovery_harness import NAMESPACE, Mesh, eventually, running_mesh
from tests.component.discovery_traffic import PROXY_PORT, ask, has_listener
from tests.every_http_rule import HTTP_RULES
from tests.interop.test_envoy_ads import envoy
from tests.interop.test_envoy_policies import recorder

pytestmark = pytest.mark.interop

URL = f"http://127.0.0.1:{PROXY_PORT}"


async def _parent_conditions(mesh: Mesh, name: str) -> dict[str, Json]:
    """By type, once all are about the present generation and every proxy has answered."""

    async def current() -> dict[str, Json] | None:
        obj = await mesh.client.get(HTTP_ROUTES, name, NAMESPACE)
        parents = (obj.get("status") or {}).get("parents") or ()
        found = {c["type"]: c for parent in parents for c in parent["conditions"]}
        is_new = found and all(c["observedGeneration"] == obj["metadata"]["generation"] for c in found.values())
        return found if is_new and found["Programmed"]["reason"] != "Pending" else None

    found: dict[str, Json] = await eventually(current, 15)
    return found


async def _location(session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with session.get(f"{URL}{path}", headers={"Host": "web"}, allow_redirects=False) as answer:
        return answer.status, answer.headers["location"]


async def _serves_both_versions(mesh: Mesh) -> None:
    for version in ("v1", "v1beta1"):
        path = f"/apis/gateway.networking.k8s.io/{version}/namespaces/{NAMESPACE}/httproutes/web"
        assert orjson.loads(await mesh.client.raw("GET", path))["apiVersion"].endswith(version)
    broken = {"parentRefs": [{"name": "web"}], "rules": [{"filters": [{"type": "Magic"}]}]}
    with pytest.raises(InvalidError, match="Magic"):
        await mesh.create(HTTP_ROUTES, "broken", {"spec": broken})


async def _routes(session: aiohttp.ClientSession) -> None:
    found: Counter[str] = Counter()
    for _ in range(200):
        found[(await ask(session, "web"))[1]] += 1
    assert 20 <= found["two /"] <= 90
    assert found["one /"] + found["two /"] == 200
    assert await ask(session, "web", "/full/x") == (200, "one /whole")
    assert await ask(session, "web", "/pre/x") == (200, "one /fix/x")
    assert await ask(session, "web", "/root/x") == (200, "one /x")
    assert await ask(session, "web", "/root") == (200, "one /")
    assert (await ask(session, "web", "/gone"))[0] == 500
    async with session.get(f"{URL}/exact?q=v", headers={"Host": "web", "x-a": "2"}) as answer:
        assert await answer.text() == "two /exact"
    assert await _location(session, "/secure/x") == (302, "https://web.example/secure/x")
    assert await _location(session, "/moved/x?y=1") == (301, "http://web/x?y=1")
    async with session.get(f"{URL}/cors", headers={"Host": "web", "Origin": "https://a.example"}) as answer:
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert answer.headers["x-route"] == "cors"


async def _sessions() -> None:
    """Without the cookie or header any of the two answers; with it always the same."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        async with session.get(f"{URL}/session", headers={"Host": "web"}) as answer:
            cookie, first = answer.cookies["sid"], await answer.text()
            assert cookie["max-age"] == "3600"
        for _ in range(20):
            headers = {"Host": "web", "Cookie": f"sid={cookie.coded_value}"}
            async with session.get(f"{URL}/session", headers=headers) as answer:
                assert await answer.text() == first
        async with session.get(f"{URL}/header", headers={"Host": "web"}) as answer:
            token, first = answer.headers["x-sid"], await answer.text()
        for _ in range(20):
            async with session.get(f"{URL}/header", headers={"Host": "web", "x-sid": token}) as answer:
                assert await answer.text() == first


def test_envoy_runs_by_an_http_route() -> None:
    async def check() -> None:
        async with contextlib.AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            one, _ = await stack.enter_async_context(recorder("one"))
            two, second = await stack.enter_async_context(recorder("two"))
            mesh = await stack.enter_async_context(running_mesh(folder))
            for name, ports in (("web", [one]), ("canary", [two]), ("both", [one, two])):
                await mesh.service(name)
                for number, _ in enumerate(ports):
                    await mesh.pod(f"{name}-{number}", name)
                located = [("127.0.0.1", port, f"{name}-{number}") for number, port in enumerate(ports)]
                await mesh.endpoints(name, *located)
            parents = [{"group": "", "kind": "Service", "name": "web", "port": 80}]
            await mesh.create(HTTP_ROUTES, "web", {"spec": {"parentRefs": parents, "rules": HTTP_RULES}})
            await stack.enter_async_context(envoy(mesh, folder, uses_delta=True))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            await eventually(lambda: has_listener(session), 15)
            found = await _parent_conditions(mesh, "web")
            assert {type_: (c["status"], c["reason"]) for type_, c in found.items()} == {
                "Accepted": ("True", "Accepted"),
                "ResolvedRefs": ("False", "BackendNotFound"),
                "Programmed": ("True", "Programmed"),
            }
            await _serves_both_versions(mesh)
            await _routes(session)
            await _sessions()
            hosts = {request.path: request.headers["Host"] for request in second}
            assert (hosts["/cors"], hosts["/exact"]) == ("web-shadow", "inner.example")
            await _virtual_service_counts(mesh, session)

    asyncio.run(check())


async def _virtual_service_counts(mesh: Mesh, session: aiohttp.ClientSession) -> None:
    spec = {"hosts": ["web"], "http": [{"directResponse": {"status": 299}}]}
    await mesh.create(VIRTUAL_SERVICES, "web", {"spec": spec})

    async def is_refused() -> bool:
        return bool((await _parent_conditions(mesh, "web"))["Accepted"]["reason"] == "Conflict")

    await eventually(is_refused)
    message = (await _parent_conditions(mesh, "web"))["Accepted"]["message"]
    assert f"HTTPRoute {NAMESPACE}/web and VirtualService {NAMESPACE}/web" in message

    async def is_taken() -> bool:
        return (await ask(session, "web"))[0] == 299

    await eventually(is_taken)
