"""What a data plane knows of the workers it is one of: how many share the traffic, and how their lines stay whole."""

import fcntl
import os
import threading
from dataclasses import dataclass
from types import TracebackType


class LineLock:
    """One writer at a time among all forks of the process that made it, and among their threads.

    A write to a pipe of more than PIPE_BUF bytes is not atomic, so without it lines of several workers would mix. The kernel lets
    go of it when a process dies.
    """

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("meshwork-line-lock")
        self._threads = threading.Lock()

    def __enter__(self) -> None:
        self._threads.acquire()
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        self._threads.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare:
    """One worker's place among the others."""

    count: int = 1
    """Processes that share the listeners, >= 1."""
    line_lock: LineLock | None = None
    """Held while access log lines are written. None: no other process writes."""


ALONE = WorkerShare()
