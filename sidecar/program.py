"""What a `python -m sidecar` is to run, from its command line and environment, and how a process of it begins and ends."""

import gc
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import MeshError
from mesh.net import loop
from mesh.telemetry.istio import Peer
from mesh.xds.errors import DecodeError
from sidecar.config import Bootstrap
from sidecar.environment import Environment
from sidecar.own_ports import Ports

_EXIT_BAD_INPUT: Final = 2
_GC_THRESHOLD: Final = 50_000
"""Collections walk the whole snapshot; the hot path makes hardly any cycles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is to run."""

    source: Bootstrap | Environment
    ports: Ports
    own: Peer
    service: str
    identity: dict[str, Any]
    worker_count: int
    max_connections: int


def run_reporting(work: Callable[[], int]) -> int:
    """Run `work` for its exit code; what a person can act on becomes one line."""
    try:
        return work()
    except (MeshError, BaseExceptionGroup) as exc:
        cause = _cause(exc)
        if not isinstance(cause, MeshError):
            raise
        print(f"sidecar: {cause}", file=sys.stderr)
        return _EXIT_BAD_INPUT if isinstance(cause, DecodeError) else 1


def _cause(exc: BaseException) -> BaseException:
    """The first error inside groups of them."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run the process's main coroutine."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 100)
    loop.run(work)
