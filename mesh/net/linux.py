"""The few Linux system calls Python 3.11 has no function for: namespaces, mounts, prctl.

Thin like `os`: each raises OSError with the kernel's errno, nothing else. All act on the calling thread.
"""

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000

MNT_DETACH = 0x2

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, *about: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), *about)


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (`CLONE_NEW*`). NEWUSER and NEWPID need a single-threaded process."""
    _check(_libc.unshare(flags))


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace `fd` refers to; `kind` is a CLONE_NEW* flag it must have, or 0."""
    _check(_libc.setns(fd, kind))


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Empty `fstype` and `data` are passed as NULL."""
    _check(
        _libc.mount(
            source.encode(),
            target.encode(),
            fstype.encode() if fstype else None,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), target)


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send `signal` to this process when the thread that made it ends. A change of identity clears it."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0))
