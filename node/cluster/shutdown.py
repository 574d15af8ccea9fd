"""Ending everything in a pid namespace, in order, within a bounded time. Run as its PID 1."""

import os
import signal
import time
from collections.abc import Callable, Iterable

_POLL_S = 0.01


def processes() -> dict[int, int]:
    """pid -> parent's pid of every process in the namespace but PID 1 and what has ended already."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/stat") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found[int(name)] = int(parent)
    return found


def descendants(roots: Iterable[int], parents: dict[int, int]) -> set[int]:
    """`roots` and all below them."""
    found = {root for root in roots if root in parents}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def end_processes(choose: Callable[[], set[int]], reap: Callable[[], None], *, grace_s: float) -> bool:
    """SIGTERM to what `choose` names, again as it changes; SIGKILL after `grace_s`. True when all ended within the grace."""
    deadline = time.monotonic() + grace_s
    told: set[int] = set()
    while left := choose():
        if time.monotonic() >= deadline:
            _signal(left, signal.SIGKILL)
            _wait_gone(choose, reap)
            return False
        _signal(left - told, signal.SIGTERM)
        told |= left
        time.sleep(_POLL_S)
        reap()
    return True


def _wait_gone(choose: Callable[[], set[int]], reap: Callable[[], None]) -> None:
    deadline = time.monotonic() + 1.0
    while (left := choose()) and time.monotonic() < deadline:
        _signal(left, signal.SIGKILL)
        time.sleep(_POLL_S)
        reap()


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
