"""One real node in a network and mount namespace of its own: API server, spawners, network and agent."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from controlplane.apiserver.config import ApiServerConfig, NodeAddress
from controlplane.apiserver.server import running
from controlplane.store.sqlite import open_sqlite_store
from mesh.api.core import Node
from mesh.api.pod import ContainerStatus, Pod
from mesh.api.resources import EVENTS, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS, Json
from mesh.client.errors import AlreadyExistsError, ApiError, NotFoundError
from mesh.client.rest import ApiClient, ClientConfig
from mesh.net import linux
from mesh.net.tasks import cancel_and_wait, spawn
from node.__main__ import network_config
from node.agent.agent import NodeAgent
from node.agent.state import ContainerFacts
from node.config import NodeConfig, load_config
from node.network.node_network import NodeNetwork

WAIT_S = 20.0
NODE = "node-1"
API_PORT = 6443


class PodNetworkOnly(NodeNetwork):
    """The real network without service proxy and DNS, which have tests of their own."""

    async def run(self, client: ApiClient) -> None:
        await asyncio.Event().wait()


def in_namespaces(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` on a new loop in a thread with its own network and mount namespaces; raise what it raises."""
    failure: list[BaseException] = []

    def body() -> None:
        try:
            linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWNS)
            linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
            linux.mount("tmpfs", "/run", "tmpfs")
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_awaited(work))
        except BaseException as exc:
            failure.append(exc)

    thread = threading.Thread(target=body, name="node-under-test")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


@dataclass
class NodeUnderTest:
    """What a test may do with its node."""

    home: Path
    config: NodeConfig
    client: ApiClient
    group: asyncio.TaskGroup
    api: "RestartableApi"
    spawners: "SpawnerProcesses"
    agent: NodeAgent | None = None
    _task: asyncio.Task[None] | None = None

    async def start_agent(self) -> None:
        """Start the agent in this process and wait until its node is ready."""
        client_config = ClientConfig.from_kubeconfig(self.config.kubeconfig)
        self.agent = NodeAgent(self.config, client_config, PodNetworkOnly(network_config(self.config)))
        self._task = spawn(self.group, self.agent.run(), name="agent")
        await asyncio.wait_for(self.agent.registered.wait(), WAIT_S)

    async def stop_agent(self) -> None:
        """End the agent as SIGTERM does; pods go on."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None

    @asynccontextmanager
    async def agent_process(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        """The agent as a process of its own, as `mesh up` runs it; ended with kill -9 when the block ends."""
        command = [sys.executable, "-m", "node", "--config", str(self.home / "run" / f"{NODE}.json")]
        process = subprocess.Popen(command)
        try:
            yield process
        finally:
            process.kill()
            await asyncio.to_thread(process.wait, 10)

    def facts(self, pod: str, container: str) -> ContainerFacts:
        """What the agent knows of a container."""
        assert self.agent is not None
        worker = self.agent.find_worker("default", pod)
        assert worker is not None
        return worker.state.facts(container)

    @asynccontextmanager
    async def without_api(self) -> AsyncIterator[None]:
        """The API server is down during the block."""
        await self.api.stop()
        try:
            yield
        finally:
            await self.api.start()

    def kill_spawner(self, name: str) -> None:
        """kill -9 of one spawner; its supervisor starts a new one."""
        self.spawners.kill(name)

    def stop_spawner(self, name: str) -> None:
        """End one spawner; nobody starts it again."""
        self.spawners.end(name)

    async def wait_node(self, holds: Callable[[Node], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds(Node.of(await self.client.get(NODES, NODE))):
                await asyncio.sleep(0.02)

    async def create(self, pod: Json) -> Pod:
        """Create a pod that is bound to this node already."""
        return Pod.of(await self.client.create(PODS, pod, "default"))

    async def pod(self, name: str) -> Pod:
        return Pod.of(await self.client.get(PODS, name, "default"))

    async def wait_for(self, name: str, holds: Callable[[Pod], bool], *, timeout_s: float = WAIT_S) -> Pod:
        """Wait until the pod satisfies `holds`; fails with its status."""
        pod: Pod | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    pod = await self.pod(name)
                    if holds(pod):
                        return pod
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"pod {name} did not get there: {pod and pod.status}") from None

    async def wait_gone(self, name: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    await self.pod(name)
                except NotFoundError:
                    return
                await asyncio.sleep(0.02)

    async def logs(self, name: str, **query: str) -> str:
        """`kubectl logs` through the API server."""
        return (await self.client.raw("GET", f"/api/v1/namespaces/default/pods/{name}/log", query=query)).decode()

    async def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of the pod's events."""
        found = await self.client.list(EVENTS, "default")
        return [(e["reason"], e["message"]) for e in found["items"] if e["involvedObject"]["name"] == name]

    async def wait_event(self, name: str, reason: str) -> str:
        async with asyncio.timeout(WAIT_S):
            while True:
                for found, message in await self.events(name):
                    if found == reason:
                        return message
                await asyncio.sleep(0.05)


def pod_object(name: str, *containers: Json, **spec: Any) -> Json:
    """A pod bound to the node. A container without an image is one of the machine's programs."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", **spec.pop("metadata", {})},
        "spec": {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": 5,
            "containers": [{"image": "host", **container} for container in containers],
            **spec,
        },
    }


def shell(name: str, script: str, **more: Any) -> Json:
    """A container that runs a shell script."""
    return {"name": name, "image": "host", "command": ["sh", "-c", script], **more}


def is_zombie(pid: int) -> bool:
    """The process has ended, whether or not somebody has noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def status_of(pod: Pod, name: str) -> ContainerStatus:
    """The status of one container; an empty one before the node has written any."""
    for status in (*pod.status.container_statuses, *pod.status.init_container_statuses):
        if status.name == name:
            return status
    return ContainerStatus()


@asynccontextmanager
async def api_server(home: Path, node_address: str = "127.0.0.1") -> AsyncIterator[None]:
    """The real API server on the node's loopback."""
    config = ApiServerConfig(
        home=home,
        api_addresses=(f"127.0.0.1:{API_PORT}",),
        external_server=f"https://127.0.0.1:{API_PORT}",
        nodes=(NodeAddress(name=NODE, address=node_address),),
    )
    (home / "store").mkdir(parents=True, exist_ok=True)
    store = await open_sqlite_store(home / "store" / "store.db")
    try:
        async with running(config, store):
            yield
    finally:
        await store.close()


class RestartableApi:
    """The API server as something that can go away and come back on the same address and store."""

    def __init__(self, home: Path, group: asyncio.TaskGroup) -> None:
        self._home = home
        self._group = group
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        is_up = asyncio.Event()
        self._task = spawn(self._group, self._serve(is_up), name="API server")
        await asyncio.wait_for(is_up.wait(), WAIT_S)

    async def _serve(self, is_up: asyncio.Event) -> None:
        async with api_server(self._home):
            is_up.set()
            await asyncio.Event().wait()

    async def stop(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None


class SpawnerProcesses:
    """Both spawners as processes of their own."""

    def __init__(self, directory: Path) -> None:
        module = ["--module", "tests.component.forked_sidecar"]
        self._commands = {
            "exec": ["node.spawner", "--socket", str(directory / "exec.sock")],
            "sidecar": ["sidecar.spawner", "--socket", str(directory / "sidecar.sock"), *module],
        }
        self._processes = {name: self._start(name) for name in self._commands}

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", *self._commands[name]])

    def end(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait(10)

    def kill(self, name: str) -> None:
        self.end(name)
        self._processes[name] = self._start(name)

    async def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            await asyncio.to_thread(process.wait, 10)


def write_node_config(home: Path, **more: Any) -> Path:
    """NODE.json for tests: short waits, no drain (nobody acknowledges here)."""
    run_dir = home / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    values: Mapping[str, Any] = {
        "name": NODE,
        "address": "127.0.0.1",
        "pod_cidr": "10.244.1.0/24",
        "state_dir": str(home / "node"),
        "run_dir": str(run_dir),
        "kubeconfig": str(run_dir / f"{NODE}.kubeconfig"),
        "exec_socket": str(run_dir / "exec.sock"),
        "sidecar_socket": str(run_dir / "sidecar.sock"),
        "ca_file": str(home / "pki" / "ca.crt"),
        "lease_renew_s": 1.0,
        "restart_base_s": 0.3,
        "drain_timeout_s": 0.0,
        **more,
    }
    path = run_dir / f"{NODE}.json"
    path.write_bytes(msgspec.json.encode(values))
    return path


async def make_default_account(client: ApiClient) -> None:
    """What the service account controller does; the pod's token needs it."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}
    with contextlib.suppress(AlreadyExistsError):
        await client.create(SERVICE_ACCOUNTS, account, "default")
    await client.get(NAMESPACES, "default")


def with_node(home: Path, test: Callable[[NodeUnderTest], Awaitable[None]], **config: Any) -> None:
    """Run `test` with a fresh node whose agent runs in this process. Every pod is deleted at the end."""

    async def work() -> None:
        path = write_node_config(home, **config)
        async with asyncio.TaskGroup() as group:
            api = RestartableApi(home, group)
            await api.start()
            processes = SpawnerProcesses(home / "run")
            try:
                async with _admin(home) as client:
                    await make_default_account(client)
                    node = NodeUnderTest(home, load_config(path), client, group, api, processes)
                    await node.start_agent()
                    try:
                        await test(node)
                    finally:
                        await _delete_pods(client)
                        await node.stop_agent()
            finally:
                await processes.stop()
                await api.stop()

    in_namespaces(work)


def _admin(home: Path) -> ApiClient:
    return ApiClient(ClientConfig.from_kubeconfig(home / "kubeconfig"))


async def _delete_pods(client: ApiClient) -> None:
    with contextlib.suppress(ApiError, TimeoutError):
        async with asyncio.timeout(5):
            while pods := (await client.list(PODS, "default"))["items"]:
                for pod in pods:
                    with contextlib.suppress(ApiError):
                        await client.delete(PODS, pod["metadata"]["name"], "default", grace_period_s=1)
                await asyncio.sleep(0.05)


IS_ROOT = os.geteuid() == 0
