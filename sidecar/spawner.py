"""`python -m sidecar.spawner`: a warmed parent that forks sidecars and outlives the agent.

It imports what a sidecar needs once and freezes it, so a fork shares those pages: milliseconds and a few MiB per
sidecar instead of a new interpreter each. No thread may exist before a fork (locks held by another thread would stay
locked in the child), which is checked at start.
"""

import argparse
import gc
import importlib
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from mesh.errors import MeshError
from mesh.net.container_process import close_other_descriptors
from mesh.net.errors import NetError
from mesh.net.spawn import Spawn
from mesh.net.spawn_server import SpawnServer

_IMPORTED_LATER = (
    "encodings.idna",
    "mesh.telemetry.otlp_call",
    "mesh.xds.client",
    "shutil",
    "sidecar.control_plane",
    "sidecar.receiver",
)
"""What a running sidecar imports by itself when it needs it (host names, gRPC, the ends of processes): shared when it is here before."""

Main = Callable[[list[str]], int | None]


def _thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def load_main(module_name: str) -> Main:
    """Import `module_name` with all it needs and return its `main`. Raises NetError when that started a thread."""
    main: Main = importlib.import_module(module_name).main
    for later in _IMPORTED_LATER:
        importlib.import_module(later)
    if _thread_count() > 1:
        raise NetError(f"importing {module_name} started a thread, so forks of it would not be safe")
    gc.collect()
    gc.freeze()
    return main


def runner(main: Main) -> Callable[[Spawn, int], NoReturn]:
    """What a forked child does: take the request's environment and arguments, and run `main`."""

    def run(request: Spawn, report: int) -> NoReturn:
        os.environ.clear()
        os.environ.update(request.env)
        sys.argv = ["sidecar", *request.argv]
        logging.root.handlers.clear()
        close_other_descriptors()
        gc.enable()
        code = main(list(request.argv))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)

    return run


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.spawner", description=__doc__)
    parser.add_argument("--socket", required=True, help="path of the unix socket to serve")
    parser.add_argument("--module", default="sidecar.__main__", help="module whose main(argv) a child runs")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        SpawnServer(arguments.socket, runner(load_main(arguments.module)), keeps_code=True).serve()
    except MeshError as exc:
        print(f"sidecar.spawner: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
