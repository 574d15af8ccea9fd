"""Real Envoy, booted from our bootstrap file, takes its configuration from our ADS and splits 90/10."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from mesh.xds.envoy_bootstrap import EnvoyIdentity, render_envoy_bootstrap
from tests.component.discovery_harness import NAMESPACE, Mesh, eventually, running_mesh
from tests.component.discovery_traffic import REQUESTS, ask, has_listener, shares, upstream
from tests.loopback_port import free_port

pytestmark = pytest.mark.interop

ENVOY = Path(__file__).parents[2] / ".envoy/lib/python3.11/site-packages/envoy/_bin/envoy"


@asynccontextmanager
async def envoy(mesh: Mesh, folder: Path, *, uses_delta: bool, pod: str = "", mode: str = "NONE") -> AsyncIterator[int]:
    """A running Envoy, as the proxy of `pod` if it is given; `mode` is its interception. Gives its admin port."""
    admin = free_port()
    identity = EnvoyIdentity(
        namespace=NAMESPACE,
        token=await mesh.token(pod),
        pod=pod or "envoy",
        ca_pem=mesh.ca_file.read_text(),
        discovery_address=f"127.0.0.1:{mesh.discovery.ads.port}",
        admin_port=admin,
        interception_mode=mode,
        uses_delta=uses_delta,
    )
    bootstrap = folder / "envoy.yaml"
    bootstrap.write_text(render_envoy_bootstrap(identity))
    log = folder / "envoy.log"
    arguments = ["--concurrency", "1", "--disable-hot-restart", "--log-path", str(log), "-l", "info"]
    process = await asyncio.create_subprocess_exec(str(ENVOY), "-c", str(bootstrap), *arguments)
    try:
        yield admin
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)


async def _splits(uses_delta: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with upstream("one") as one, upstream("two") as two, running_mesh(folder) as mesh:
            await mesh.service("web")
            await mesh.pod("web-1", "web", version="v1")
            await mesh.pod("web-2", "web", version="v2")
            await mesh.endpoints("web", ("127.0.0.1", one, "web-1"), ("127.0.0.1", two, "web-2"))
            await mesh.subsets()
            await mesh.split(90, 10)
            async with envoy(mesh, folder, uses_delta=uses_delta), aiohttp.ClientSession() as session:
                await eventually(lambda: has_listener(session), 15)
                assert (await mesh.condition("Programmed"))["status"] == "True"
                for host in ("web", "web.shop.svc.cluster.local:80"):
                    found = await shares(session, host)
                    assert 0.03 * REQUESTS < found["two"] < 0.18 * REQUESTS, found
                assert await ask(session, "nobody.example") == (502, "no service of the mesh has this Host\n")
                proxies = list(mesh.discovery.publisher.proxies)
                assert [(p.identity.kind, p.state.is_delta) for p in proxies] == [("envoy", uses_delta)]
                assert not proxies[0].state.errors
                await mesh.split(
                    0, 100, timeout="3s", retries={"attempts": 3, "retryOn": "5xx,503", "perTryTimeout": "1s"}
                )
                assert (await mesh.condition("Programmed"))["status"] == "True"
                assert set(await shares(session, "web")) == {"two"}
                assert not proxies[0].state.errors


@pytest.mark.parametrize("uses_delta", [True, False], ids=["delta", "state-of-the-world"])
def test_envoy_takes_its_configuration_and_splits_by_weight(uses_delta: bool) -> None:
    asyncio.run(_splits(uses_delta))
