"""The spawner protocol: the messages between a node agent and the processes that start containers for it.

One message per packet of a SOCK_SEQPACKET unix socket, JSON, at most `MAX_PACKET_BYTES`. Requests carry a `serial` the
reply repeats; `Exited` comes unasked. Descriptors travel with `Spawn` as SCM_RIGHTS, in the order its `descriptors`
names them. A spawner keeps a record of each child until it is forgotten, so an agent that restarts misses no exit.
"""

from typing import Literal

import msgspec

from mesh.net.private_mounts import Mount

MAX_PACKET_BYTES = 192 * 1024
"""Below Linux's default limit of one packet (net.core.wmem_default, 208 KiB)."""
MAX_DESCRIPTORS = 4
LIST_PAGE = 200

Descriptor = Literal["netns", "mntns", "stdout", "stderr"]


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    serial: int = 0


class LogFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a child's output goes, in CRI's format: `<RFC 3339 nanoseconds> stdout|stderr F|P <text>`."""

    path: str
    max_bytes: int = 10 << 20
    """A file that would grow past this is renamed to `path.1` (`.1` to `.2`, ...). Bytes, >= 1."""
    max_files: int = 3
    """Files kept, the current one included. >= 1."""


class Spawn(_Message, frozen=True, kw_only=True, tag="spawn"):
    """Start a program in given namespaces. Answered by Spawned when it has been executed, or Failed."""

    id: str
    """Unique among the spawner's records; the caller's choice."""
    argv: tuple[str, ...]
    """Program and arguments; the program is looked up in env's PATH. Sidecar spawners take arguments only."""
    env: dict[str, str] = {}
    """The whole environment."""
    cwd: str = "/"
    hostname: str = ""
    """Of a UTS namespace of its own; "" keeps the machine's. Unused with descriptor `mntns`."""
    mounts: tuple[Mount, ...] = ()
    """Made in a private mount namespace, in this order; unused with descriptor `mntns`."""
    descriptors: tuple[Descriptor, ...] = ()
    """What the passed descriptors are. `mntns` joins that mount namespace instead of making a private one."""
    log: LogFile | None = None
    """The spawner copies the output there. Without it and without stdout/stderr descriptors, output is dropped."""
    capabilities: tuple[str, ...] = ()
    """Capabilities kept; all others are dropped for good."""
    user: int | None = None
    """Numeric user (and `group`) to become; None stays as the spawner."""
    group: int | None = None
    allow_privileges: bool = False
    """Leave all capabilities and no_new_privs alone (securityContext.privileged)."""
    is_ephemeral: bool = False
    """Forget the record once Exited has been sent: for probes and hooks."""


class List(_Message, frozen=True, kw_only=True, tag="list"):
    """Ask for the records, sorted by id, `LIST_PAGE` at a time."""

    after: str = ""
    """Only ids greater than this."""


class Signal(_Message, frozen=True, kw_only=True, tag="signal"):
    """Send a signal. SIGKILL reaches every process of the child's group and mount namespace, others the child only."""

    id: str
    signal: int


class Forget(_Message, frozen=True, kw_only=True, tag="forget"):
    """Drop the record of a child that has ended. An unknown id is fine."""

    id: str


Request = Spawn | List | Signal | Forget


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a spawner knows of one child."""

    id: str
    pid: int
    start_ticks: int
    """Start time in clock ticks since boot (/proc/pid/stat field 22): with the pid it names a process for ever."""
    started_at: float
    """Seconds since the epoch."""
    exit_status: int | None = None
    """None while it runs; 0..255 exit code; -N ended by signal N."""
    finished_at: float = 0.0
    mount_namespace: int = 0
    """Inode of its own mount namespace; 0 for a command that joined another's."""


class Spawned(_Message, frozen=True, kw_only=True, tag="spawned"):
    record: Record


class Listing(_Message, frozen=True, kw_only=True, tag="listing"):
    records: tuple[Record, ...]
    more: bool


class Done(_Message, frozen=True, kw_only=True, tag="done"):
    """A Signal or Forget was carried out."""


class Failed(_Message, frozen=True, kw_only=True, tag="failed"):
    """The request was not carried out."""

    error: str


class Exited(_Message, frozen=True, kw_only=True, tag="exited"):
    """A child has ended and its output is in the log."""

    record: Record


Reply = Spawned | Listing | Done | Failed | Exited

request_decoder = msgspec.json.Decoder(Request)
reply_decoder = msgspec.json.Decoder(Reply)
encode = msgspec.json.Encoder().encode


def process_start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return 0
    return int(text.rpartition(b")")[2].split()[19])
