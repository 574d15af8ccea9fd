"""A real sidecar process takes its configuration from the real discovery: readiness, split, drain, outage."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from mesh.api.resources import ENDPOINT_SLICES
from tests.component.discovery_harness import NAMESPACE, Mesh, eventually, running_mesh
from tests.component.discovery_traffic import REQUESTS, ask, has_listener, shares, upstream

pytestmark = pytest.mark.component

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def sidecar(mesh: Mesh, folder: Path) -> AsyncIterator[None]:
    """The sidecar of pod `client`, without interception."""
    await mesh.pod("client", "client")
    token = folder / "token"
    token.write_text(await mesh.token("client"))
    variables = {
        "POD_NAME": "client",
        "POD_NAMESPACE": NAMESPACE,
        "POD_IP": "127.0.0.1",
        "MESH_DISCOVERY_ADDRESS": f"127.0.0.1:{mesh.discovery.ads.port}",
        "MESH_CA_FILE": str(mesh.ca_file),
        "MESH_TOKEN_FILE": str(token),
        "MESH_INTERCEPTION_MODE": "NONE",
        "MESH_LABELS": '{"app": "client"}',
    }
    log = (folder / "sidecar.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", cwd=ROOT, env={**os.environ, **variables}, stdout=log, stderr=log
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
        log.close()


async def _work(folder: Path) -> None:
    async with upstream("one") as one, upstream("two") as two, running_mesh(folder) as mesh:
        await mesh.service("web")
        await mesh.pod("web-1", "web", version="v1")
        await mesh.pod("web-2", "web", version="v2")
        await mesh.endpoints("web", ("127.0.0.1", one, "web-1"), ("127.0.0.1", two, "web-2"))
        await mesh.subsets()
        await mesh.split(90, 10)
        async with sidecar(mesh, folder), aiohttp.ClientSession() as session:
            await eventually(lambda: has_listener(session), 15)
            (proxy,) = mesh.discovery.publisher.proxies
            assert proxy.identity.kind == "meshwork"
            assert not proxy.state.errors
            found = await shares(session, "web.shop")
            assert 0.03 * REQUESTS < found["two"] < 0.18 * REQUESTS, found
            await mesh.split(0, 100)
            assert (await mesh.condition("Programmed"))["status"] == "True"
            assert set(await shares(session, "web")) == {"two"}
            await mesh.client.delete(ENDPOINT_SLICES, f"web-{two}", NAMESPACE)
            await eventually(lambda: _answers(session, 503))
            assert not proxy.state.errors


async def _answers(session: aiohttp.ClientSession, status: int) -> bool:
    return (await ask(session, "web"))[0] == status


def test_a_sidecar_runs_by_what_discovery_says(tmp_path: Path) -> None:
    try:
        asyncio.run(_work(tmp_path))
    except BaseException:
        print((tmp_path / "sidecar.log").read_text()[-4000:])
        raise
