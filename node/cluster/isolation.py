"""Becoming PID 1 of new namespaces, as root or as an ordinary user.

The process that calls `isolate` stays outside, small, and only waits: killing it kills the cluster (the kernel kills the new PID 1 with its
parent, and with PID 1 every process, namespace, mount and rule). An ordinary user gets a user namespace with itself as root.
"""

import contextlib
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from mesh.net import linux
from node.cluster.errors import ClusterError

_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWPID | linux.CLONE_NEWIPC
_APPARMOR_SWITCH = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


def isolate(run: Callable[[], int]) -> int:
    """Run `run` as PID 1 of new namespaces and return its exit status. Needs a single-threaded process. Raises ClusterError.

    SIGTERM, SIGINT and SIGHUP to the caller are handed on to PID 1.
    """
    _enter_namespaces()
    # After the change of identity, which would clear it.
    linux.set_parent_death_signal(signal.SIGKILL)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            linux.set_parent_death_signal(signal.SIGKILL)
            _mount_own_views()
            status = run()
        except ClusterError as error:
            os.write(2, f"node.cluster: {error}\n".encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return _wait(child)


def _enter_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    is_root = uid == 0
    try:
        linux.unshare(_NAMESPACES if is_root else _NAMESPACES | linux.CLONE_NEWUSER)
        if not is_root:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1\n")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1\n")
    except OSError as error:
        raise ClusterError(f"new namespaces: {error.strerror}; {_advice(is_root=is_root)}") from error


def _advice(*, is_root: bool) -> str:
    if is_root:
        return "this root lacks CAP_SYS_ADMIN: run on the machine itself or give the container --privileged"
    if _APPARMOR_SWITCH.exists() and _APPARMOR_SWITCH.read_text().strip() == "1":
        return "AppArmor forbids user namespaces here: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return (
        "the kernel forbids user namespaces here: check sysctl user.max_user_namespaces and "
        "kernel.unprivileged_userns_clone, or run as root"
    )


def _mount_own_views() -> None:
    try:
        # Own peer group: nothing reaches the machine, while private copies of containers see our later unmounts.
        linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
        linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SHARED)
        flags = linux.MS_NOSUID | linux.MS_NODEV
        linux.mount("proc", "/proc", "proc", flags | linux.MS_NOEXEC)
        linux.mount("tmpfs", "/run", "tmpfs", flags, "mode=755,size=64m")
    except OSError as error:
        where = error.filename or "/"
        raise ClusterError(
            f"mounting {where}: {error.strerror}; {_advice(is_root=os.geteuid() == 0)} "
            "(in a container, /proc must not be masked)"
        ) from error


def _wait(child: int) -> int:
    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
