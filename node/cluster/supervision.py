"""Starting, watching and ending the cluster's processes.

`Supervisor` is synchronous: the caller tells it when a process has ended and when time has passed; it starts what is due.
Restarts back off from 0.2 s to 5 s and forget after ten quiet seconds.
"""

import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mesh.backoff import Backoff
from mesh.net import linux

_BACKOFF = Backoff(base_s=0.2, cap_s=5.0, jitter=0.2)
_QUIET_S = 10.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """One process to keep running."""

    name: str
    argv: tuple[str, ...]
    log: Path
    netns: Path | None = None
    """The network namespace to start it in; None = the caller's."""
    descriptors: Mapping[int, int] = field(default_factory=dict)
    """Number in the child -> our descriptor."""
    needs: Path | None = None
    """Not started before this file exists."""


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    pid: int = 0
    """0 = not running."""
    starts: int = 0
    failures: int = 0
    """Ends in a row without a quiet time."""
    started_at: float = 0.0
    due_at: float = 0.0


Report = Callable[..., None]
"""Called as report(event, name=..., ...); must not block."""


class Supervisor:
    """Keeps children running. Not thread-safe; `start_due` enters other network namespaces, so the process must be single-threaded."""

    def __init__(self, specs: Sequence[ChildSpec], report: Report, rng: random.Random) -> None:
        self._children = [_Child(spec) for spec in specs]
        self._report = report
        self._rng = rng
        self._is_stopping = False

    def start_due(self, now: float) -> float | None:
        """Start what is due. Returns the seconds until the next call is worth it, or None when nothing waits."""
        if self._is_stopping:
            return None
        waits: list[float] = []
        for child in self._children:
            if child.pid:
                continue
            wait = self._wait_s(child, now)
            if wait > 0:
                waits.append(wait)
            else:
                self._start(child, now)
        return min(waits, default=None)

    def _wait_s(self, child: _Child, now: float) -> float:
        if child.due_at > now:
            return child.due_at - now
        if child.spec.needs is not None and not child.spec.needs.exists():
            return _POLL_S
        return 0.0

    def _start(self, child: _Child, now: float) -> None:
        child.pid = spawn_process(child.spec)
        child.starts += 1
        child.started_at = now
        self._report("started", name=child.spec.name, pid=child.pid, starts=child.starts)

    def ended(self, pid: int, exit_code: int, now: float) -> bool:
        """Take note of an ended process; False when it is none of ours (an orphan)."""
        for child in self._children:
            if child.pid == pid:
                self._take_note(child, exit_code, now)
                return True
        return False

    def _take_note(self, child: _Child, exit_code: int, now: float) -> None:
        child.pid = 0
        child.failures = 1 if now - child.started_at >= _QUIET_S else child.failures + 1
        child.due_at = now + _BACKOFF.delay_s(child.failures, self._rng)
        if not self._is_stopping:
            retry_in_s = round(child.due_at - now, 3)
            self._report("ended", name=child.spec.name, exit_code=exit_code, retry_in_s=retry_in_s)

    def stop(self) -> None:
        """Start nothing any more."""
        self._is_stopping = True

    def pids(self) -> dict[str, int]:
        """Name -> pid of what runs."""
        return {child.spec.name: child.pid for child in self._children if child.pid}


def spawn_process(spec: ChildSpec) -> int:
    """Start one process in a session of its own, output appended to its log. Returns the pid. Raises OSError."""
    log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in spec.descriptors.items()]
        with network_namespace(spec.netns):
            return os.posix_spawn(
                spec.argv[0],
                list(spec.argv),
                os.environ,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP],
            )
    finally:
        os.close(log)


@contextlib.contextmanager
def network_namespace(path: Path | None) -> Iterator[None]:
    """Be in the network namespace bound to `path` for the block; None = stay. For a single-threaded process."""
    if path is None:
        yield
        return
    with open("/proc/self/ns/net", "rb") as home, path.open("rb") as there:
        linux.setns(there.fileno(), linux.CLONE_NEWNET)
        try:
            yield
        finally:
            linux.setns(home.fileno(), linux.CLONE_NEWNET)
