"""What a spawner's forked child does to itself before it becomes the container: namespaces, mounts, descriptors, privileges.

Everything here acts on the calling process and is meant for a fresh fork of a single-threaded parent.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Mapping

from mesh.net import capabilities, linux
from mesh.net.errors import ContainerSetUpError
from mesh.net.private_mounts import enter_private_mounts
from mesh.net.spawn import Descriptor, Spawn

_RESET_SIGNALS = (signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXFSZ)


def enter_container(request: Spawn, descriptors: Mapping[Descriptor, int], *, parent: int, keeps_code: bool) -> None:
    """Turn the calling process into `request`'s container, short of running its program.

    `parent` is the spawner's pid: the container dies with it. `keeps_code` says that no execve follows, so privileges are
    dropped from the process itself too. Raises ContainerSetUpError, and OSError for single system calls.
    """
    os.setsid()
    linux.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the spawner died before the line above
    for number in _RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    _set_output(descriptors)
    _enter_namespaces(request, descriptors)
    _enter_directory(request.cwd)
    if not request.allow_privileges:
        _drop_privileges(request, keeps_code=keeps_code)
    _become_user(request)


def _set_output(descriptors: Mapping[Descriptor, int]) -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(descriptors.get("stdout", null), 1)
    os.dup2(descriptors.get("stderr", null), 2)
    os.close(null)


def _enter_namespaces(request: Spawn, descriptors: Mapping[Descriptor, int]) -> None:
    if (netns := descriptors.get("netns")) is not None:
        linux.setns(netns, linux.CLONE_NEWNET)
    if (mntns := descriptors.get("mntns")) is not None:
        linux.setns(mntns, linux.CLONE_NEWNS)
    else:
        enter_private_mounts(request.mounts)
        if request.hostname:
            linux.unshare(linux.CLONE_NEWUTS)
            socket.sethostname(request.hostname)


def _enter_directory(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as exc:
        raise ContainerSetUpError(f"working directory {path}: {exc.strerror}") from exc


def _drop_privileges(request: Spawn, *, keeps_code: bool) -> None:
    keep = capabilities.numbers_of(request.capabilities)
    capabilities.drop_bounding_set(keep)
    if keeps_code:
        capabilities.keep_only(keep)
    capabilities.forbid_new_privileges()


def _become_user(request: Spawn) -> None:
    if request.user is None and request.group is None:
        return
    try:
        os.setgroups([])
        if request.group is not None:
            os.setresgid(request.group, request.group, request.group)
        if request.user is not None:
            os.setresuid(request.user, request.user, request.user)
    except OSError as exc:
        raise ContainerSetUpError(
            f"becoming user {request.user}, group {request.group}: {exc.strerror}; a cluster that an ordinary user started "
            "has only that user: leave runAsUser and runAsGroup out, or start the cluster as root"
        ) from exc
    # A change of identity clears it.
    linux.set_parent_death_signal(signal.SIGKILL)


def close_other_descriptors(keep: frozenset[int] = frozenset()) -> None:
    """Close every descriptor above 2 that is not in `keep`: for a child that goes on without execve."""
    for name in os.listdir("/proc/self/fd"):
        if (fd := int(name)) > 2 and fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)


def kill_in_network_namespace(netns_path: str, mount_namespace: int = 0) -> None:
    """SIGKILL every process in the network namespace bound to `netns_path`; with `mount_namespace`, only those in that too.

    A bound namespace's inode is not used again, so this never hits a stranger. Cost: 10 us per process.
    """
    try:
        inode = os.stat(netns_path).st_ino
    except OSError:
        return
    for name in os.listdir("/proc"):
        if not name.isdigit() or _namespace_of(int(name), "net") != inode:
            continue
        if not mount_namespace or mount_namespace_of(int(name)) == mount_namespace:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGKILL)


def kill_mount_namespace(inode: int) -> None:
    """SIGKILL every process in the mount namespace `inode`: what a container left behind. Cost: 10 us per process."""
    for name in os.listdir("/proc"):
        if name.isdigit() and mount_namespace_of(int(name)) == inode:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGKILL)


def mount_namespace_of(pid: int) -> int:
    """The inode of a process's mount namespace; 0 when the process is gone or not ours to see."""
    return _namespace_of(pid, "mnt")


def _namespace_of(pid: int, kind: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return 0
