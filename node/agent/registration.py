"""The Node object and its heartbeat. Source: Kubernetes docs, "Nodes", "Node heartbeats"."""

import asyncio
import logging
import os
import platform
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
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

_LEAST_MEMORY_KIB = 100 * 1024
_LEAST_DISK = 0.10
_LEAST_PIDS = 500
_STARTING_LOOK_S = 0.05
_LOOK_S = 10.0
"""Conditions are looked at this often at least. Source: kubelet nodeStatusUpdateFrequency."""

_Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the node's conditions are made of."""

    memory_kib: int
    """Available."""
    disk_free: float
    """Share of the state directory's file system, 0 to 1."""
    pids_left: int
    runtime_problem: str
    """"" when containers can be started."""


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


def _available_kib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0


def measure(state_dir: Path, runtime_problem: str) -> Health:
    """How this machine is now."""
    disk = os.statvfs(state_dir)
    tasks = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return Health(
        memory_kib=_available_kib(),
        disk_free=disk.f_bavail / max(1, disk.f_blocks),
        pids_left=int(Path("/proc/sys/kernel/pid_max").read_text()) - tasks,
        runtime_problem=runtime_problem,
    )


def node_conditions(health: Health) -> dict[str, tuple[bool, str, str]]:
    """Condition type -> (holds, reason, message). Pure. Thresholds: kubelet's default hard eviction limits."""
    low_memory, low_disk, low_pids = (
        health.memory_kib < _LEAST_MEMORY_KIB,
        health.disk_free < _LEAST_DISK,
        health.pids_left < _LEAST_PIDS,
    )
    is_ready = not health.runtime_problem
    return {
        "MemoryPressure": (
            low_memory,
            "KubeletHasInsufficientMemory" if low_memory else "KubeletHasSufficientMemory",
            f"{health.memory_kib // 1024} MiB of memory available",
        ),
        "DiskPressure": (
            low_disk,
            "KubeletHasDiskPressure" if low_disk else "KubeletHasNoDiskPressure",
            f"{'less' if low_disk else 'more'} than {_LEAST_DISK:.0%} of the node's disk is free",
        ),
        "PIDPressure": (
            low_pids,
            "KubeletHasInsufficientPID" if low_pids else "KubeletHasSufficientPID",
            f"{'fewer' if low_pids else 'more'} than {_LEAST_PIDS} process ids left",
        ),
        "Ready": (
            is_ready,
            "KubeletReady" if is_ready else "KubeletNotReady",
            "the node agent and its spawners run" if is_ready else health.runtime_problem,
        ),
    }


def node_status(
    config: NodeConfig,
    capacity: Mapping[str, str],
    conditions: Mapping[str, tuple[bool, str, str]],
    since: Mapping[str, float],
    now: float,
) -> Json:
    """The Node's status, as a strategic merge patch; `since` says when each condition last changed."""
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
                "status": "True" if holds else "False",
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": rfc3339(now),
                "lastTransitionTime": rfc3339(since[type_]),
            }
            for type_, (holds, reason, message) in conditions.items()
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

    def __init__(
        self,
        config: NodeConfig,
        client: ApiClient,
        capacity: Mapping[str, str],
        clock: Clock,
        *,
        runtime_problem: Callable[[], str],
    ) -> None:
        self._config = config
        self._client = client
        self._capacity = capacity
        self._clock = clock
        self._runtime_problem = runtime_problem
        self._written: dict[str, bool] = {}
        self._since: dict[str, float] = {}
        self.registered = asyncio.Event()
        """Set when the Node is there and says Ready."""

    async def run(self) -> None:
        """Register, then renew until cancelled. An API server that is away is waited for."""
        await self._until_done(self._register)
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
        now = self._clock.wall()
        conditions = self._conditions()
        for type_, (holds, _, _) in conditions.items():
            if self._written.get(type_) != holds:
                self._since[type_] = now
        status = node_status(self._config, self._capacity, conditions, self._since, now)
        await self._client.patch(
            NODES,
            self._config.name,
            {"status": status},
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )
        self._written = {type_: holds for type_, (holds, _, _) in conditions.items()}
        if self._written["Ready"]:
            self.registered.set()

    def _conditions(self) -> dict[str, tuple[bool, str, str]]:
        return node_conditions(measure(self._config.state_dir, self._runtime_problem()))

    async def _statuses(self) -> None:
        """Write the status when a condition changes, and every now and then."""
        due = self._clock.now() + self._config.status_period_s
        while True:
            # A node that starts becomes ready as soon as its spawners are there.
            await asyncio.sleep(
                min(_LOOK_S, self._config.lease_renew_s) if self._written["Ready"] else _STARTING_LOOK_S
            )
            holds = {type_: one[0] for type_, one in self._conditions().items()}
            if holds != self._written or self._clock.now() >= due:
                await self._until_done(self._write_status)
                due = self._clock.now() + self._config.status_period_s

    async def _heartbeats(self) -> None:
        was_away = False
        renewed_at = self._clock.now()
        while True:
            await asyncio.sleep(self._config.lease_renew_s)
            try:
                # A machine that slept, or a process that was stopped, saw no error.
                was_away = was_away or self._clock.now() - renewed_at > 3 * self._config.lease_renew_s
                await self._renew()
                renewed_at = self._clock.now()
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
