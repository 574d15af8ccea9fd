"""A pod's volumes as directories of the node, and where they are mounted.

Files are replaced one by one (write beside, rename), so a reader never sees half a file. DEVIATION: Kubernetes swaps all
files of a ConfigMap or Secret at once by a symbolic link. Secrets lie in the node's state directory with mode 0600 and
directories 0700, not in memory.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from mesh.api.pod import Container, KeyToPath, Volume
from mesh.net.private_mounts import Mount
from node.errors import ContainerConfigError, VolumeError

SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"
MAX_VOLUME_BYTES = 1 << 20
"""Kubernetes' limit of a ConfigMap or Secret."""


def checked_relative(path: str, what: str) -> PurePosixPath:
    """A path that stays inside its volume. Raises ContainerConfigError."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise ContainerConfigError(f'{what} "{path}" must be a relative path without ".."')
    return pure


def selected_files(
    content: Mapping[str, bytes], items: Sequence[KeyToPath], default_mode: int, what: str, *, optional: bool
) -> dict[PurePosixPath, tuple[bytes, int]]:
    """The files of a ConfigMap or Secret volume: all keys, or those of `items` at their paths. Pure."""
    if not items:
        return {checked_relative(key, "key"): (data, default_mode) for key, data in content.items()}
    files = {}
    for item in items:
        if item.key in content:
            mode = default_mode if item.mode is None else item.mode
            files[checked_relative(item.path, "items.path")] = (content[item.key], mode)
        elif not optional:
            raise VolumeError(f'{what} references non-existent key "{item.key}"')
    return files


def write_files(directory: Path, files: Mapping[PurePosixPath, tuple[bytes, int]]) -> None:
    """Make `directory` hold exactly `files`. Unchanged files are left alone. Raises VolumeError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, (data, mode) in files.items():
            _write_if_changed(directory / name, data, mode)
        wanted = {directory / name for name in files}
        for path in sorted(directory.rglob("*"), reverse=True):
            if path.is_file() and path not in wanted:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    except OSError as exc:
        raise VolumeError(f"{directory.name}: {exc.filename or directory}: {exc.strerror}") from exc


def _write_if_changed(path: Path, data: bytes, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == data and path.stat().st_mode & 0o7777 == mode:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"..{path.name}.new")
    temporary.write_bytes(data)
    temporary.chmod(mode)
    os.replace(temporary, path)


def make_empty_dir(directory: Path) -> None:
    """An emptyDir: kept over container restarts and agent restarts, writable for everyone in the pod."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777)


def host_path(volume: Volume) -> Path:
    """The directory or file of a hostPath volume, checked or made as its type says. Raises VolumeError."""
    assert volume.host_path is not None
    path, kind = Path(volume.host_path.path), volume.host_path.type
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    if not path.exists() or (kind == "Directory" and not path.is_dir()) or (kind == "File" and not path.is_file()):
        raise VolumeError(f'hostPath "{path}" is not there or not a {kind or "file or directory"}')
    return path


def container_mounts(container: Container, sources: Mapping[str, Path]) -> tuple[Mount, ...]:
    """The mounts of a container's volumeMounts, outer paths first. `sources` maps volumes to their directories.

    Raises ContainerConfigError for an unknown volume or a subPath that leaves it.
    """
    mounts = []
    for wanted in sorted(container.volume_mounts, key=lambda one: one.mount_path):
        if wanted.name not in sources:
            raise ContainerConfigError(f'container "{container.name}": volumeMount "{wanted.name}" names no volume')
        source = sources[wanted.name]
        if wanted.sub_path:
            source = _sub_path(source, wanted.sub_path)
        mounts.append(Mount(source=str(source), target=wanted.mount_path, read_only=wanted.read_only))
    return tuple(mounts)


def _sub_path(volume: Path, sub_path: str) -> Path:
    path = volume / checked_relative(sub_path, "subPath")
    if not path.exists():
        path.mkdir(parents=True)
    # A container may have put a symbolic link there that leads out of its volume.
    if not path.resolve().is_relative_to(volume.resolve()):
        raise ContainerConfigError(f'subPath "{sub_path}" leads out of its volume')
    return path


def remove_tree(directory: Path) -> None:
    """Delete a directory with all it holds; one that is not there is fine. Raises VolumeError."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise VolumeError(f"removing {directory}: {exc.strerror}") from exc
