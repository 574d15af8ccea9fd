"""The control plane as a process: starts in order, survives kill -9, ends on SIGTERM, refuses bad configurations."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.config import ControlPlaneConfig, load_config, with_components
from controlplane.errors import ControlPlaneConfigError
from mesh.api.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS, Json
from mesh.client.errors import ApiError
from mesh.client.informer import Change, Informer
from mesh.client.rest import ApiClient, ClientConfig
from mesh.errors import MeshError
from tests.loopback_port import free_port

pytestmark = pytest.mark.component


def _write_config(folder: Path, **more: Any) -> Path:
    port = free_port()
    config = {
        "home": str(folder),
        "api_addresses": [f"127.0.0.1:{port}"],
        "external_server": f"https://127.0.0.1:{port}",
        "cluster_address": "127.0.0.1",
        "nodes": [{"name": "node-1", "address": "127.0.0.1"}],
        "traces_otlp_port": free_port(),
        "traces_query_port": free_port(),
        "discovery_port": free_port(),
        "discovery_monitor_port": free_port(),
    }
    path = folder / "controlplane.json"
    path.write_text(json.dumps(config | more))
    return path


@dataclass
class _Process:
    """A running `python -m controlplane`."""

    process: asyncio.subprocess.Process
    log: Path

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 15)

    def text(self) -> str:
        return self.log.read_text()


async def _start(home: Path, config: Path, *flags: str, pass_fds: Sequence[int] = ()) -> _Process:
    log = home / "log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "controlplane", "--config", str(config), *flags),
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
        )
    return _Process(process, log)


async def _client(home: Path) -> ApiClient:
    """A client of the cluster's admin, once the kubeconfig is there and the server answers."""
    async with asyncio.timeout(20):
        while True:
            with suppress(MeshError):
                config = ClientConfig.from_kubeconfig(home / "kubeconfig")
                async with ApiClient(config) as client:
                    await client.raw("GET", "/readyz")
                    return ApiClient(config)
            await asyncio.sleep(0.05)


async def _until_service_account(client: ApiClient, namespace: str) -> None:
    async with asyncio.timeout(15):
        while True:
            with suppress(ApiError):
                await client.get(SERVICE_ACCOUNTS, "default", namespace)
                return
            await asyncio.sleep(0.05)


async def _until_started(process: _Process, *parts: str) -> None:
    async with asyncio.timeout(15):
        while not all(f'"part": "{part}"' in process.text() for part in parts):
            await asyncio.sleep(0.05)


def test_kill_loses_nothing_and_clients_follow_the_restarted_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = _write_config(tmp_path)
        started_at = time.monotonic()
        first = await _start(tmp_path, config)
        async with await _client(tmp_path) as client:
            print(f"API ready after {time.monotonic() - started_at:.2f} s")
            changes: asyncio.Queue[Change[Json]] = asyncio.Queue()
            informer = Informer(client, CONFIG_MAPS, lambda obj: obj, namespace="shop")
            informer.add_handler(changes.put_nowait)
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(informer.run())
                namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
                await client.create(NAMESPACES, namespace)
                await _until_service_account(client, "shop")
                await informer.wait_synced()

                first.process.kill()
                await first.ended()
                second = await _start(tmp_path, config)
                async with await _client(tmp_path) as again:
                    assert (await again.get(NAMESPACES, "shop"))["status"]["phase"] == "Active"
                    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "after", "namespace": "shop"}}
                    await again.create(CONFIG_MAPS, body)

                async with asyncio.timeout(15):
                    while (await changes.get()).object["metadata"]["name"] != "after":
                        pass
                watcher.cancel()
                second.process.terminate()
                assert await second.ended() == 0
        text = second.text()
        assert text.count("part=apiserver") == 2
        assert "told to end" in text
        assert "Traceback" not in text

    asyncio.run(scenario())


def test_inherited_socket_serves_besides_the_own_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.socket() as inherited:
            inherited.bind(("127.0.0.1", 0))
            inherited.listen()
            outside = f"https://127.0.0.1:{inherited.getsockname()[1]}"
            config = _write_config(tmp_path, api_fd=inherited.fileno(), external_server=outside)
            process = await _start(tmp_path, config, "--log-format", "json", pass_fds=(inherited.fileno(),))
            async with await _client(tmp_path) as client:
                assert client.config.server == outside
                await _until_service_account(client, "default")
                await _until_started(process, "scheduler", "controllers", "discovery", "traces")
            process.process.send_signal(signal.SIGINT)
            assert await process.ended() == 0
        lines = [json.loads(line) for line in process.text().splitlines()]
        assert next(line["part"] for line in lines if "part" in line) == "apiserver"
        assert lines[-1]["message"].startswith("told to end")

    asyncio.run(scenario())


def test_address_in_use_ends_the_process_with_a_clear_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            process = await _start(tmp_path, _write_config(tmp_path, api_addresses=[address]))
            assert await process.ended() == 1
        assert "in use" in process.text()
        assert "Traceback" not in process.text()

    asyncio.run(scenario())


def test_part_that_fails_ends_the_process_and_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            config = _write_config(tmp_path, traces_query_port=taken.getsockname()[1])
            process = await _start(tmp_path, config)
            assert await process.ended() == 1
        assert "can't listen for queries" in process.text()
        assert "Traceback" not in process.text(), process.text()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unknown": 1}, "unknown"),
        ({"nodes": [{"name": "a"}]}, "address"),
        ({"trace_sampling_percent": 101}, "want 0 to 100"),
        ({"components": []}, "components is empty"),
        ({"components": ["etcd"]}, "etcd"),
        ({"home": "relative"}, "not absolute"),
        ({"home": 5}, "home"),
        ({"api_addresses": []}, "neither api_fd nor api_addresses"),
        ({"node_grace_s": 0}, "node_grace_s"),
    ],
)
def test_bad_configurations_are_refused_with_the_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = _write_config(tmp_path, **change)
    with pytest.raises(ControlPlaneConfigError, match=message):
        load_config(path)


def test_components_can_be_chosen_by_flag(tmp_path: Path) -> None:
    config = load_config(_write_config(tmp_path))
    assert isinstance(config, ControlPlaneConfig)
    assert with_components(config, "traces, apiserver").components == ("apiserver", "traces")
    with pytest.raises(ControlPlaneConfigError, match="unknown component 'foo'"):
        with_components(config, "foo")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ControlPlaneConfigError, match=r"broken\.json"):
        load_config(tmp_path / "broken.json")
    with pytest.raises(ControlPlaneConfigError, match="can't be read"):
        load_config(tmp_path / "none.json")
