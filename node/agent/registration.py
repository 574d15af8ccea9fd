"""The Node object and its heartbeat. Source: Kubernetes docs, "Nodes", "Node heartbeats"."""

import asyncio
import logging
import os
import platform
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from mesh.api.resources import LEASES, NODES, Json
from mesh.backoff import Backoff
from mesh.client.errors import AlreadyExistsError, ApiError, NotFoundError
from mesh.client.rest import ApiClient, PatchType
from mesh.clock import Clock
from mesh.net.tasks import spawn
from node.agent.status import rfc3339
from node.config import NodeConfig

logger = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
_RETRY = Backoff(base_s=0.2, cap_s=5.0, jitter=0.0)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_VERSION = "v1.32.0+meshwork"

_Work = Callable[[], Awaitable[None]]


def machine_capacity(max_pods: int) -> dict[str, str]:
    """What this machine has: cpu, memory, ephemeral-storage and pods, as quantities."""
    memory_kib = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory_kib = int(line.split()[1])
    disk = os.statvfs("/")
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory_kib}Ki",
        "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
        "pods": str(max_pods),
    }


def node_object(config: NodeConfig) -> Json:
    """The Node as it is created. Its status is written apart. Pure but for the machine's architecture."""
    architecture = _architecture()
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": config.name,
            "labels": {
                "kubernetes.io/hostname": config.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture,
                "beta.kubernetes.io/os": "linux",
                "beta.kubernetes.io/arch": architecture,
            },
        },
        "spec": {"podCIDR": config.pod_cidr, "podCIDRs": [config.pod_cidr]},
    }


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def node_status(config: NodeConfig, capacity: Mapping[str, str], now: float, ready_since: float) -> Json:
    """The Node's status, as a strategic merge patch. Pure but for facts of the kernel."""
    system = platform.uname()
    return {
        "capacity": dict(capacity),
        "allocatable": dict(capacity),
        "addresses": [
            {"type": "InternalIP", "address": config.address},
            {"type": "Hostname", "address": config.name},
        ],
        "conditions": [
            {
                "type": type_,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": rfc3339(now),
                "lastTransitionTime": rfc3339(ready_since),
            }
            for type_, status, reason, message in _CONDITIONS
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_port}},
        "nodeInfo": {
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "kernelVersion": system.release,
            "osImage": _os_image(),
            "containerRuntimeVersion": "meshwork-host://0.1.0",
            "kubeletVersion": _VERSION,
            "kubeProxyVersion": _VERSION,
            "operatingSystem": "linux",
            "architecture": _architecture(),
        },
    }


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


class Registration:
    """Keeps the Node object and its Lease alive."""

    def __init__(self, config: NodeConfig, client: ApiClient, capacity: Mapping[str, str], clock: Clock) -> None:
        self._config = config
        self._client = client
        self._capacity = capacity
        self._clock = clock
        self._ready_since = clock.wall()
        self.registered = asyncio.Event()
        """Set when the Node is there and says Ready."""

    async def run(self) -> None:
        """Register, then renew until cancelled. An API server that is away is waited for."""
        await self._until_done(self._register)
        self.registered.set()
        logger.info("node is registered", extra={"node": self._config.name})
        async with asyncio.TaskGroup() as group:
            spawn(group, self._heartbeats(), name="node lease")
            spawn(group, self._statuses(), name="node status")

    async def _until_done(self, work: _Work) -> None:
        tries = 0
        while True:
            try:
                await work()
                return
            except ApiError as exc:
                tries += 1
                logger.info("node registration failed, trying again", extra={"error": str(exc)})
                await asyncio.sleep(_RETRY.ceiling_s(tries))

    async def _register(self) -> None:
        wanted = node_object(self._config)
        try:
            await self._client.create(NODES, wanted)
        except AlreadyExistsError:
            patch = {"metadata": {"labels": wanted["metadata"]["labels"]}}
            await self._client.patch(NODES, self._config.name, patch)
        await self._renew()
        await self._write_status()

    async def _write_status(self) -> None:
        status = node_status(self._config, self._capacity, self._clock.wall(), self._ready_since)
        await self._client.patch(
            NODES,
            self._config.name,
            {"status": status},
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )

    async def _statuses(self) -> None:
        while True:
            await asyncio.sleep(self._config.status_period_s)
            await self._until_done(self._write_status)

    async def _heartbeats(self) -> None:
        was_away = False
        while True:
            await asyncio.sleep(self._config.lease_renew_s)
            try:
                await self._renew()
                if was_away:
                    # Somebody may have called the node NotReady meanwhile.
                    await self._write_status()
                was_away = False
            except NotFoundError:
                await self._until_done(self._register)
            except ApiError as exc:
                was_away = True
                logger.info("heartbeat failed", extra={"error": str(exc)})

    async def _renew(self) -> None:
        now = datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self._config.name,
            "leaseDurationSeconds": max(1, round(self._config.lease_renew_s * 4)),
            "renewTime": now,
        }
        try:
            await self._client.patch(LEASES, self._config.name, {"spec": spec}, LEASE_NAMESPACE)
        except NotFoundError:
            lease = {
                "apiVersion": LEASES.api_version,
                "kind": "Lease",
                "metadata": {"name": self._config.name, "namespace": LEASE_NAMESPACE},
                "spec": spec,
            }
            await self._client.create(LEASES, lease, LEASE_NAMESPACE)
