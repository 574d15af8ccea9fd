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
from sidecar.serving import collector_of

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


def import_early(source: Bootstrap | Environment, worker_count: int) -> None:
    """Import what this source will need, before there is a loop that would stand still meanwhile, or a fork that would not share it."""
    if isinstance(source, Environment):
        import sidecar.control_plane
        import sidecar.receiver
    if isinstance(source, Environment) or collector_of(source.snapshot) is not None:
        import mesh.telemetry.otlp_call  # noqa: F401
    if isinstance(source, Environment) and worker_count > 1:
        import sidecar.workers.receiver  # noqa: F401


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run the process's main coroutine."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 100)
    loop.run(work)
