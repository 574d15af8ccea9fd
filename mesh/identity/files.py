"""Key material on disk: whole or not at all, and private keys for their owner only."""

import os
from pathlib import Path

from mesh.identity.errors import PkiError

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """Replace `path` with `data` under `mode`: a reader sees the old file or the new one. Raises PkiError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise PkiError(f"{path}: can't be written: {exc.strerror}; check the directory's owner and free space") from exc


def read(path: Path) -> bytes:
    """The file's bytes. Raises PkiError with what to do."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise PkiError(f"{path}: can't be read: {exc.strerror}; remove it to have it made again") from exc
