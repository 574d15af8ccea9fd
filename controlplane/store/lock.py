"""One process at a time may have a store open."""

import fcntl
import os
from pathlib import Path

from controlplane.store.errors import StoreLockedError, StoreOpenError


def lock_store(path: Path) -> int:
    """The descriptor of a lock file beside `path`. The lock lasts until every process that holds it has closed it.

    Raises StoreLockedError, StoreOpenError.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreOpenError(f"the store's lock file can't be opened: {exc}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise StoreLockedError(str(path), holder) from exc
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd
