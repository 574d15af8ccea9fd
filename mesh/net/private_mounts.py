"""A private mount namespace: files and directories bound to places that need not exist on the machine.

Nothing is ever created on the machine's own file systems. A missing mount point is made on a tmpfs of our own: /run is
always one; where the missing place lies elsewhere, its nearest existing directory is covered by a tmpfs that holds
every old entry again (bind mounts and copies of symbolic links), so only the new entry differs. Works the same in a
user namespace, and needs no overlayfs there. Bounds: a covered directory may have at most 5,000 entries.
"""

import os
import stat
from collections.abc import Sequence

import msgspec

from mesh.net import linux
from mesh.net.errors import ContainerSetUpError

_MS_MOVE = 0x2000
_TMPFS_OPTIONS = "mode=0755,size=16m"
_MAX_ENTRIES = 5000
_KEPT_FLAGS = (
    (os.ST_NOSUID, linux.MS_NOSUID),
    (os.ST_NODEV, linux.MS_NODEV),
    (os.ST_NOEXEC, linux.MS_NOEXEC),
)


class Mount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file or directory of the machine, seen at `target` too."""

    source: str
    """Absolute path; must exist."""
    target: str
    """Absolute path inside."""
    read_only: bool = False


def enter_private_mounts(mounts: Sequence[Mount]) -> None:
    """Move the calling (forked, single-threaded) process into a mount namespace of its own with `mounts` in it.

    /run is an empty tmpfs in it. A later mount may lie inside an earlier one. Raises ContainerSetUpError.
    Cost: 0.3 ms plus 20 us per mount; 5 ms more when a directory of 200 entries must be covered.
    """
    try:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
        sources = [_open_source(mount) for mount in mounts]
        points = _MountPoints()
        if any(_needs_new_root(mount.target) for mount in mounts):
            points.replace_root()
        points.cover_run()
        for mount, fd in zip(mounts, sources, strict=True):
            _bind(fd, points.prepare(mount.target, is_directory=_is_directory(fd)), read_only=mount.read_only)
            os.close(fd)
    except OSError as exc:
        raise ContainerSetUpError(f"private mounts: {exc.filename or ''}: {exc.strerror}") from exc


def _open_source(mount: Mount) -> int:
    try:
        return os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
    except OSError as exc:
        raise ContainerSetUpError(f"mount of {mount.source} at {mount.target}: {exc.strerror}") from exc


def _is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _bind(fd: int, target: str, *, read_only: bool) -> None:
    linux.mount(f"/proc/self/fd/{fd}", target, flags=linux.MS_BIND | linux.MS_REC)
    if read_only:
        # A user namespace may not clear flags the mount already has, so they are named again.
        kept = os.statvfs(target).f_flag
        flags = sum(mount_flag for st_flag, mount_flag in _KEPT_FLAGS if kept & st_flag)
        linux.mount("none", target, flags=linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | flags)


def _needs_new_root(target: str) -> bool:
    """The first component of `target` does not exist: "/" itself must get a new entry."""
    top = "/" + os.path.realpath(target).split("/", 2)[1]
    return not os.path.lexists(top)


class _MountPoints:
    """Makes places to mount on. Remembers which directories are ours to write to."""

    def __init__(self) -> None:
        self._ours: set[str] = set()

    def replace_root(self) -> None:
        """Make "/" a tmpfs with every old entry (but /run, which is covered anyway)."""
        linux.mount("tmpfs", "/run", "tmpfs", data=_TMPFS_OPTIONS)
        old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _fill(old_root, "/run", skip="run")
        os.mkdir("/run/run")
        os.close(old_root)
        os.chdir("/run")
        linux.mount(".", "/", flags=_MS_MOVE)
        os.chroot(".")
        os.chdir("/")
        self._ours.add("/")

    def cover_run(self) -> None:
        """Give the process a /run of its own."""
        linux.mount("tmpfs", "/run", "tmpfs", data=_TMPFS_OPTIONS)
        self._ours.add("/run")

    def prepare(self, target: str, *, is_directory: bool) -> str:
        """An existing path to mount on for `target` (symbolic links followed); made when it is missing."""
        path = os.path.realpath(target)
        if os.path.lexists(path):
            if os.path.isdir(path) != is_directory:
                wanted = "a directory" if is_directory else "a file"
                raise ContainerSetUpError(f"cannot mount {wanted} at {target}: something else is there on this machine")
            return path
        parent = os.path.dirname(path)
        self._make_directory(parent)
        if is_directory:
            os.mkdir(path)
            self._ours.add(path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        return path

    def _make_directory(self, path: str) -> None:
        """Have `path` be a directory of ours, so that entries can be made in it."""
        if path in self._ours:
            return
        if os.path.isdir(path):
            self._cover(path)
        else:
            self._make_directory(os.path.dirname(path))
            os.mkdir(path)
        self._ours.add(path)

    def _cover(self, path: str) -> None:
        old = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        linux.mount("tmpfs", path, "tmpfs", data=_TMPFS_OPTIONS)
        _fill(old, path)
        os.close(old)


def _fill(old: int, new: str, *, skip: str = "") -> None:
    """Show every entry of the directory `old` (a descriptor) in `new`."""
    origin = f"/proc/self/fd/{old}"
    names = os.listdir(origin)
    if len(names) > _MAX_ENTRIES:
        raise ContainerSetUpError(f"{new} has more than {_MAX_ENTRIES} entries: mount somewhere else")
    for name in names:
        if name == skip:
            continue
        source, target = f"{origin}/{name}", f"{new}/{name}"
        mode = os.lstat(source).st_mode
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(source), target)
            continue
        if stat.S_ISDIR(mode):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        linux.mount(source, target, flags=linux.MS_BIND | linux.MS_REC)
