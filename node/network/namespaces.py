"""Network namespaces: made, joined to the node's bridge, found again and taken away.

A `NamespaceWorker` is one thread that may enter other namespaces (setns acts on a thread), so the agent's loop never
blocks and never changes its own. Measured on 2 cores: namespace, veth pair, address and routes 4 ms; rules 2-5 ms.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from mesh.net import linux
from node.network.errors import NetworkError
from node.network.interception import interception_rules
from node.network.rules import apply_rules

T = TypeVar("T")

_SCOPE_LINK = 253
_POD_SYSCTLS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/default/accept_redirects": "0",
    # The pod network is IPv4; loopback keeps ::1.
    "net/ipv6/conf/default/disable_ipv6": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLink:
    """How one pod is joined to its node."""

    netns_path: Path
    host_interface: str
    address: str
    gateway: str
    bridge: str
    intercept: bool


def host_interface_name(uid: str) -> str:
    """The node's end of a pod's veth pair: 14 characters, from the uid."""
    return "pod" + hashlib.sha256(uid.encode()).hexdigest()[:11]


def write_sysctls(values: dict[str, str]) -> None:
    """Set sysctls (path below /proc/sys -> value) in the calling thread's network namespace; absent ones are skipped."""
    for path, value in values.items():
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys", path).write_text(value)


def _is_namespace(path: Path) -> bool:
    """`path` is a namespace bound to a name, and not just the empty file left by an interrupted set-up."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def bind_new_namespace(path: Path) -> None:
    """Move the calling thread into a new network namespace and bind that to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o444)
    linux.unshare(linux.CLONE_NEWNET)
    linux.mount("/proc/thread-self/ns/net", str(path), flags=linux.MS_BIND)


def unbind_namespace(path: Path) -> None:
    """Take the name away; the kernel ends the namespace with its last process."""
    with contextlib.suppress(FileNotFoundError):
        if _is_namespace(path):
            linux.umount(str(path), linux.MNT_DETACH)
        path.unlink()


def find_link(ip: Any, name: str) -> Any | None:
    """The link called `name` in the namespace of the pyroute2 handle `ip`, or None."""
    try:
        return ip.link("get", ifname=name)[0]
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


@contextlib.contextmanager
def system_errors(doing: str) -> Iterator[None]:
    """Turn errors of the kernel into NetworkError, naming what was being done."""
    try:
        yield
    except NetlinkError as error:
        raise NetworkError(f"{doing}: {os.strerror(error.code)}") from error
    except OSError as error:
        raise NetworkError(f"{doing}: {error.strerror or error}") from error


class NamespaceWorker:
    """One thread with a netlink handle in the node's namespace. Calls run one after the other."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="namespaces", initializer=self._open)
        self._home = -1
        self._node: Any = None

    def _open(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._node = IPRoute()

    async def call(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work(*args)` on the thread. Not interrupted by cancellation: a half-made namespace helps nobody."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, work, *args))

    async def close(self) -> None:
        """End the thread. Namespaces and links stay."""
        await self.call(self._close)
        self._threads.shutdown(wait=False)

    def _close(self) -> None:
        self._node.close()
        os.close(self._home)

    @property
    def node(self) -> Any:
        """The netlink handle of the node's namespace. For work running on the thread."""
        return self._node

    @contextlib.contextmanager
    def inside(self, path: Path) -> Iterator[None]:
        """Enter the namespace bound to `path` for the block. For work running on the thread."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            linux.setns(fd, linux.CLONE_NEWNET)
            yield
        finally:
            os.close(fd)
            linux.setns(self._home, linux.CLONE_NEWNET)

    def join_pod(self, link: PodLink) -> None:
        """Make the pod's namespace and join it to the bridge. What is complete is left as it is; a half-made one is redone."""
        with system_errors(f"network of pod {link.address} ({link.netns_path.name})"):
            if self._is_joined(link):
                return
            self._remove(link.netns_path, link.host_interface)
            try:
                self._make_namespace(link)
                self._make_veth(link)
            except BaseException:
                self._remove(link.netns_path, link.host_interface)
                raise

    def remove_pod(self, netns_path: Path, host_interface: str) -> None:
        """Take the pod's link and the name of its namespace away. What is not there is not an error."""
        with system_errors(f"removing the network of {netns_path.name}"):
            self._remove(netns_path, host_interface)

    def _is_joined(self, link: PodLink) -> bool:
        # The link comes up as the last step, so an interrupted set-up never looks complete.
        found = find_link(self._node, link.host_interface) if _is_namespace(link.netns_path) else None
        return found is not None and found.get("state") == "up"

    def _remove(self, netns_path: Path, host_interface: str) -> None:
        found = find_link(self._node, host_interface)
        if found is not None:
            self._node.link("del", index=found["index"])
        unbind_namespace(netns_path)

    def _make_namespace(self, link: PodLink) -> None:
        try:
            bind_new_namespace(link.netns_path)
            write_sysctls(_POD_SYSCTLS)
            if link.intercept:
                apply_rules(interception_rules())
        finally:
            linux.setns(self._home, linux.CLONE_NEWNET)

    def _make_veth(self, link: PodLink) -> None:
        fd = os.open(link.netns_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            peer = {"ifname": "eth0", "net_ns_fd": fd}
            self._node.link("add", ifname=link.host_interface, kind="veth", peer=peer)
        finally:
            os.close(fd)
        bridge = find_link(self._node, link.bridge)
        host_end = find_link(self._node, link.host_interface)
        if bridge is None or host_end is None:
            raise NetworkError(f"bridge {link.bridge} is missing; was the node's network set up?")
        with self.inside(link.netns_path), IPRoute() as pod:
            self._set_pod_addresses(pod, link)
        self._node.link("set", index=host_end["index"], master=bridge["index"], state="up")

    @staticmethod
    def _set_pod_addresses(pod: Any, link: PodLink) -> None:
        """A /32 and a default route: all traffic passes the node's IP layer, also between neighbours on the bridge,

        so that the answer to a translated connection is translated back.
        """
        pod.link("set", index=1, state="up")
        eth0 = find_link(pod, "eth0")
        assert eth0 is not None
        pod.link("set", index=eth0["index"], state="up")
        pod.addr("add", index=eth0["index"], address=link.address, prefixlen=32)
        pod.route("add", dst=f"{link.gateway}/32", oif=eth0["index"], scope=_SCOPE_LINK)
        pod.route("add", dst="default", gateway=link.gateway, oif=eth0["index"])
