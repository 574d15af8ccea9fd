"""`python -m node.spawner`: starts app containers as host processes and outlives the agent.

Kept apart from the agent and small (stdlib and msgspec), so an agent's crash or upgrade ends no container. See
`mesh.net.spawn` for the protocol and docs/contracts.md, "Processes of `mesh up`".
"""

import argparse
import logging
import os
import shutil
import sys
from typing import NoReturn

from mesh.errors import MeshError
from mesh.net.errors import ContainerSetUpError
from mesh.net.spawn import Spawn
from mesh.net.spawn_server import SpawnServer

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _execute(request: Spawn, _report: int) -> NoReturn:
    """Become the request's program; the report descriptor closes itself on execve."""
    name = request.argv[0]
    program = name if "/" in name else shutil.which(name, path=request.env.get("PATH", _DEFAULT_PATH))
    if program is None:
        raise ContainerSetUpError(f"exec {name!r}: not found in PATH {request.env.get('PATH', _DEFAULT_PATH)}")
    try:
        os.execve(program, request.argv, request.env)
    except OSError as exc:
        raise ContainerSetUpError(f"exec {program!r}: {exc.strerror}") from exc


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m node.spawner", description=__doc__)
    parser.add_argument("--socket", required=True, help="path of the unix socket to serve")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        SpawnServer(arguments.socket, _execute, keeps_code=False).serve()
    except MeshError as exc:
        print(f"node.spawner: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
