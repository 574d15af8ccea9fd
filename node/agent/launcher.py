"""Makes what a pod needs on this node (network, files, volumes) and starts its containers."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path, PurePosixPath
from typing import Protocol

from mesh.api.meta import Quantity
from mesh.api.node import HostImage
from mesh.api.pod import Container, Pod, Volume
from mesh.clock import Clock
from mesh.net import capabilities
from mesh.net.container_process import kill_in_network_namespace
from mesh.net.private_mounts import Mount
from mesh.net.spawn import Record, Spawn
from node.agent.objects import PodObjects
from node.agent.pod_files import hostname, hosts_file, resolv_conf
from node.agent.state import PodState, container_id
from node.config import NodeConfig
from node.errors import ContainerConfigError, VolumeError
from node.runtime import volumes
from node.runtime.environment import PodFields, build_environment, expand, field_value, resource_value
from node.runtime.images import ResolvedImage, command_line, resolve_image
from node.runtime.spawners import ContainerRuntime, log_file

HOST_NETWORK = "/proc/thread-self/ns/net"
"""The namespace of a pod with hostNetwork: the node's own."""
INTERCEPTION = "meshwork.dev/interception"
"""Annotation of a pod; `redirect` sends its traffic through its sidecar."""
_REFRESH_S = 60.0
"""ConfigMap and Secret volumes follow their objects within this time. Source: kubelet's sync period."""
_TOKEN_AGE = 0.8
_STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT_RUNS = 2
"""Runs of a container whose logs are kept: this one and the one before (`kubectl logs --previous`)."""


class PodNetwork(Protocol):
    """A pod's network as the network room hands it out."""

    @property
    def netns_path(self) -> Path: ...
    @property
    def address(self) -> str: ...


class Network(Protocol):
    """What this room needs of `node.network.NodeNetwork`. All idempotent."""

    async def add_pod(self, uid: str, namespace: str, name: str, *, intercept: bool) -> PodNetwork: ...
    async def remove_pod(self, uid: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """Where a pod's containers will run."""

    address: str
    netns_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A container that was started."""

    record: Record
    image: str
    is_forked: bool


class PodDirectory:
    """Where a pod's things are: `state_dir/pods/UID/{state.json,volumes,logs,etc}`."""

    def __init__(self, state_dir: Path, uid: str) -> None:
        self.root = state_dir / "pods" / uid
        self.state_file = self.root / "state.json"
        self.volumes = self.root / "volumes"
        self.account = self.root / "service-account"
        self.etc = self.root / "etc"

    def make(self) -> None:
        """Have the directories. Raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (self.volumes, self.etc):
            path.mkdir(exist_ok=True)

    def log(self, container: str, attempt: int) -> Path:
        """The log file of one run."""
        return self.root / "logs" / container / f"{attempt}.log"

    def prune_logs(self, container: str, attempt: int) -> None:
        """Delete the logs of runs older than the one before `attempt`."""
        for path in (self.root / "logs" / container).glob("*.log*"):
            number = path.name.partition(".")[0]
            if number.isdigit() and int(number) <= attempt - _KEPT_RUNS:
                path.unlink(missing_ok=True)


class Launcher:
    """One per node. Holds no state of pods but when their tokens must be renewed."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        objects: PodObjects,
        network: Network,
        runtime: ContainerRuntime,
        host_images: Callable[[], Iterable[HostImage]],
        capacity: Mapping[str, Quantity],
        clock: Clock,
    ) -> None:
        self._config = config
        self._objects = objects
        self._network = network
        self._runtime = runtime
        self._host_images = host_images
        self._capacity = capacity
        self._clock = clock
        self._renew_token_at: dict[str, float] = {}

    def directory(self, uid: str) -> PodDirectory:
        return PodDirectory(self._config.state_dir, uid)

    async def set_up(self, pod: Pod) -> Sandbox:
        """Network, files and volumes. Idempotent. Raises VolumeError, ApiError and the network's errors."""
        directory = self.directory(pod.metadata.uid)
        directory.make()
        sandbox = await self._sandbox(pod)
        machine = ""
        with contextlib.suppress(OSError):
            machine = Path("/etc/resolv.conf").read_text()
        (directory.etc / "hosts").write_text(hosts_file(pod, sandbox.address, self._config))
        (directory.etc / "resolv.conf").write_text(resolv_conf(pod, self._config, machine))
        await self.refresh(pod, sandbox.address)
        return sandbox

    async def _sandbox(self, pod: Pod) -> Sandbox:
        if pod.spec.host_network:
            return Sandbox(address=self._config.address, netns_path=HOST_NETWORK)
        meta = pod.metadata
        intercept = meta.annotations.get(INTERCEPTION) == "redirect"
        network = await self._network.add_pod(meta.uid, meta.namespace, meta.name, intercept=intercept)
        return Sandbox(address=network.address, netns_path=str(network.netns_path))

    async def tear_down(self, uid: str, netns_path: str) -> None:
        """Give the network back and delete volumes; logs and state stay. Idempotent.

        Processes that containers of a spawner that died left in the pod's network are killed.
        """
        self._renew_token_at.pop(uid, None)
        if netns_path and netns_path != HOST_NETWORK:
            kill_in_network_namespace(netns_path)
        await self._network.remove_pod(uid)
        directory = self.directory(uid)
        volumes.remove_tree(directory.volumes)
        volumes.remove_tree(directory.account)

    def forget(self, uid: str) -> None:
        """Delete everything of the pod. Raises VolumeError."""
        volumes.remove_tree(self.directory(uid).root)

    async def refresh(self, pod: Pod, address: str) -> float:
        """Bring volumes and token up to date; returns seconds until the next time. Raises VolumeError, ApiError."""
        directory = self.directory(pod.metadata.uid)
        follows = False
        for volume in pod.spec.volumes:
            follows |= await self._fill(pod, volume, directory.volumes / volume.name, address)
        due_s = _REFRESH_S if follows else float("inf")
        if await self._has_token(pod, directory):
            due_s = min(due_s, await self._refresh_token(pod, directory))
        return due_s

    async def _fill(self, pod: Pod, volume: Volume, path: Path, address: str) -> bool:
        """Make one volume's content. True when it follows objects that may change."""
        if volume.empty_dir is not None:
            volumes.make_empty_dir(path)
            return False
        if volume.host_path is not None:
            volumes.host_path(volume)
            return False
        if volume.config_map is not None:
            wanted = volume.config_map
            found = await self._objects.config_map(pod.metadata.namespace, wanted.name)
            content = found.files() if found is not None else None
            what, mode = f'configmap "{wanted.name}"', wanted.default_mode
            self._write(path, what, content, wanted.items, mode, optional=wanted.optional)
            return True
        if volume.secret is not None:
            secret = volume.secret
            kept = await self._objects.secret(pod.metadata.namespace, secret.secret_name)
            content = kept.files() if kept is not None else None
            what, mode = f'secret "{secret.secret_name}"', secret.default_mode
            self._write(path, what, content, secret.items, mode, optional=secret.optional)
            return True
        if volume.downward is not None:
            self._write_downward(pod, volume, path, address)
            return True
        raise VolumeError(
            f'volume "{volume.name}": this node knows emptyDir, configMap, secret, downwardAPI and hostPath volumes'
        )

    @staticmethod
    def _write(
        path: Path,
        what: str,
        content: Mapping[str, bytes] | None,
        items: tuple[object, ...],
        mode: int,
        *,
        optional: bool,
    ) -> None:
        if content is None and not optional:
            raise VolumeError(f"{what} not found")
        files = volumes.selected_files(content or {}, items, mode, what, optional=optional)  # type: ignore[arg-type]  # items are KeyToPath in both kinds
        volumes.write_files(path, files)

    def _write_downward(self, pod: Pod, volume: Volume, path: Path, address: str) -> None:
        assert volume.downward is not None
        files = {}
        for item in volume.downward.items:
            if item.field_ref is not None:
                text = field_value(pod, item.field_ref, self._fields(address))
            elif item.resource_field_ref is not None:
                text = resource_value(pod, pod.spec.containers[0], item.resource_field_ref, self._fields(address))
            else:
                continue
            mode = volume.downward.default_mode if item.mode is None else item.mode
            files[volumes.checked_relative(item.path, "path")] = (text.encode(), mode)
        volumes.write_files(path, files)

    async def _has_token(self, pod: Pod, directory: PodDirectory) -> bool:
        return directory.account.exists() or await self._objects.wants_token(pod)

    async def _refresh_token(self, pod: Pod, directory: PodDirectory) -> float:
        """Renew the token when it is due; seconds until it is due again."""
        uid, now = pod.metadata.uid, self._clock.wall()
        due = self._renew_token_at.get(uid, 0.0)
        if now < due:
            return due - now
        token = await self._objects.token(pod)
        content = {
            "token": token.text.encode(),
            "namespace": pod.metadata.namespace.encode(),
            "ca.crt": self._config.ca_file.read_bytes(),
        }
        volumes.write_files(directory.account, {PurePosixPath(k): (v, 0o644) for k, v in content.items()})
        wait_s = max(1.0, (token.expires_at - now) * _TOKEN_AGE)
        self._renew_token_at[uid] = now + wait_s
        return wait_s

    def _fields(self, address: str) -> PodFields:
        return PodFields(pod_ip=address, host_ip=self._config.address, capacity=self._capacity)

    def image(self, container: Container) -> ResolvedImage:
        """What the container's image stands for. Raises ImageError; NotReadyError while HostImages are not known yet."""
        return resolve_image(container.image, self._host_images())

    async def start(
        self, pod: Pod, container: Container, state: PodState, image: ResolvedImage, attempt: int
    ) -> Started:
        """Start one run. Raises ContainerConfigError, VolumeError, SpawnError, ApiError."""
        uid = pod.metadata.uid
        directory = self.directory(uid)
        check_user(pod, container)
        env = await self.environment(pod, container, state, image)
        line = tuple(expand(word, env) for word in command_line(container, image))
        mounts = self._mounts(pod, container, directory)
        directory.prune_logs(container.name, attempt)
        log_path = directory.log(container.name, attempt)
        request = Spawn(
            id=container_id(uid, container.name, attempt),
            argv=line,
            env=env,
            cwd=container.working_dir or image.working_dir or "/",
            hostname="" if pod.spec.host_network else hostname(pod),
            mounts=mounts,
            log=log_file(log_path, max_bytes=self._config.log_max_bytes, max_files=self._config.log_max_files),
            capabilities=capability_names(container, is_sidecar=image.is_sidecar),
            user=_first(container.security_context.run_as_user, pod.spec.security_context.run_as_user),
            group=_first(container.security_context.run_as_group, pod.spec.security_context.run_as_group),
            allow_privileges=container.security_context.privileged,
        )
        record = await self._runtime.start(request, state.netns_path, is_forked=image.is_sidecar)
        return Started(record=record, image=image.host_image, is_forked=image.is_sidecar)

    async def environment(
        self, pod: Pod, container: Container, state: PodState, image: ResolvedImage
    ) -> dict[str, str]:
        """The container's whole environment. Raises ContainerConfigError, ApiError."""
        defaults = {
            # The agent's interpreter first, so that `python3` has the libraries the cluster itself was set up with.
            "PATH": f"{os.path.dirname(sys.executable)}:{_STANDARD_PATH}",
            "HOME": os.environ.get("HOME", "/"),
            "HOSTNAME": hostname(pod),
            "KUBERNETES_SERVICE_HOST": str(ip_network(self._config.service_cidr)[1]),
            "KUBERNETES_SERVICE_PORT": "443",
            **dict(image.env),
        }
        sources = await self._objects.sources(pod, container)
        return build_environment(pod, container, self._fields(state.address), sources, defaults)

    def _mounts(self, pod: Pod, container: Container, directory: PodDirectory) -> tuple[Mount, ...]:
        places = {
            volume.name: volumes.host_path(volume) if volume.host_path else directory.volumes / volume.name
            for volume in pod.spec.volumes
        }
        own = volumes.container_mounts(container, places)
        mounts = [Mount(source=str(directory.etc / name), target=f"/etc/{name}") for name in ("hosts", "resolv.conf")]
        taken = {mount.target.rstrip("/") for mount in own}
        if directory.account.exists() and volumes.SERVICE_ACCOUNT_DIR not in taken:
            mounts.append(Mount(source=str(directory.account), target=volumes.SERVICE_ACCOUNT_DIR, read_only=True))
        return (*mounts, *own)


def _first(own: int | None, of_pod: int | None) -> int | None:
    return of_pod if own is None else own


def check_user(pod: Pod, container: Container) -> None:
    """Refuse to run as root what says that it must not. Raises ContainerConfigError."""
    own, of_pod = container.security_context, pod.spec.security_context
    non_root = of_pod.run_as_non_root if own.run_as_non_root is None else own.run_as_non_root
    if non_root and not _first(own.run_as_user, of_pod.run_as_user):
        raise ContainerConfigError(
            f'container "{container.name}" has runAsNonRoot, but would run as the node\'s own user: give it a runAsUser'
        )


def capability_names(container: Container, *, is_sidecar: bool) -> tuple[str, ...]:
    """What a container keeps: the usual set, changed as its securityContext says. Raises ContainerConfigError."""
    base = set(capabilities.SIDECAR if is_sidecar else capabilities.APP_CONTAINER)
    wanted = container.security_context.capabilities
    add, drop = ({name.upper().removeprefix("CAP_") for name in names} for names in (wanted.add, wanted.drop))
    if "ALL" in drop:
        base.clear()
    base -= drop
    base |= set(capabilities.NUMBERS) if "ALL" in add else add
    unknown = base - set(capabilities.NUMBERS)
    if unknown:
        raise ContainerConfigError(f'container "{container.name}": unknown capabilities: {", ".join(sorted(unknown))}')
    return tuple(sorted(base))
