"""Which privileges a process keeps: the bounding set, its own sets, and no_new_privs. Source: capabilities(7).

Call these in a forked child only: all act on the calling thread.
"""

import ctypes
from collections.abc import Iterable

from mesh.net.linux import _check, _libc

NUMBERS = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "DAC_READ_SEARCH": 2,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "LINUX_IMMUTABLE": 9,
    "NET_BIND_SERVICE": 10,
    "NET_BROADCAST": 11,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "IPC_LOCK": 14,
    "IPC_OWNER": 15,
    "SYS_MODULE": 16,
    "SYS_RAWIO": 17,
    "SYS_CHROOT": 18,
    "SYS_PTRACE": 19,
    "SYS_PACCT": 20,
    "SYS_ADMIN": 21,
    "SYS_BOOT": 22,
    "SYS_NICE": 23,
    "SYS_RESOURCE": 24,
    "SYS_TIME": 25,
    "SYS_TTY_CONFIG": 26,
    "MKNOD": 27,
    "LEASE": 28,
    "AUDIT_WRITE": 29,
    "AUDIT_CONTROL": 30,
    "SETFCAP": 31,
    "MAC_OVERRIDE": 32,
    "MAC_ADMIN": 33,
    "SYSLOG": 34,
    "WAKE_ALARM": 35,
    "BLOCK_SUSPEND": 36,
    "AUDIT_READ": 37,
    "PERFMON": 38,
    "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}
"""Linux capabilities without their CAP_ prefix, as Kubernetes writes them."""

APP_CONTAINER = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "SETFCAP",
)
"""What an app container keeps unless its securityContext says otherwise: the container engines' usual set without
NET_RAW (which would allow the sidecar's SO_MARK, and so a way around the sidecar), MKNOD and AUDIT_WRITE."""

SIDECAR = ("NET_ADMIN", "NET_BIND_SERVICE")
"""What a sidecar keeps: SO_MARK needs NET_ADMIN."""

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_HEADER_VERSION_3 = 0x20080522
_EINVAL = 22


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def numbers_of(names: Iterable[str]) -> frozenset[int]:
    """The numbers of capabilities named with or without CAP_. Raises KeyError with the unknown name."""
    return frozenset(NUMBERS[name.upper().removeprefix("CAP_")] for name in names)


def drop_bounding_set(keep: frozenset[int]) -> None:
    """Drop every capability that is not in `keep` from the bounding set: no later execve brings it back. OSError."""
    for number in range(64):
        if number in keep:
            continue
        try:
            _check(_libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0))
        except OSError as exc:
            if exc.errno == _EINVAL:
                return  # past the kernel's last capability
            raise


def keep_only(keep: frozenset[int]) -> None:
    """Reduce the calling thread's own sets to `keep`; nothing is inherited over execve but by uid 0's rules. OSError."""
    _check(_libc.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0))
    mask = sum(1 << number for number in keep) & _permitted_mask()
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (_Data * 2)(_Data(low, low, 0), _Data(high, high, 0))
    _check(_libc.capset(ctypes.byref(_Header(_HEADER_VERSION_3, 0)), data))


def _permitted_mask() -> int:
    data = (_Data * 2)()
    _check(_libc.capget(ctypes.byref(_Header(_HEADER_VERSION_3, 0)), data))
    return int(data[0].permitted) | int(data[1].permitted) << 32


def forbid_new_privileges() -> None:
    """Set no_new_privs: set-user-id programs and file capabilities give nothing from now on. OSError."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0))
