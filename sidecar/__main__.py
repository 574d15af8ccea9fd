"""`python -m sidecar`: in a pod, configured by the control plane; with `--config FILE` alone, from an Envoy bootstrap file."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mesh.telemetry.istio import Peer
from mesh.telemetry.log_format import configure_logging
from sidecar.bootstrap_file import parse_file, read_bootstrap
from sidecar.config import Bootstrap
from sidecar.control import Control
from sidecar.descriptors import raise_descriptor_limit
from sidecar.environment import MAX_WORKERS, read_environment
from sidecar.memory import keep_freed_memory
from sidecar.own_ports import Ports
from sidecar.program import Program, import_early, run_loop, run_reporting


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sidecar", description=__doc__)
    parser.add_argument("--config", type=Path, help="Envoy bootstrap file, YAML or JSON, with static_resources")
    parser.add_argument("--check", action="store_true", help="only read --config and say whether it can be used")
    parser.add_argument(
        "--concurrency",
        type=_count(MAX_WORKERS),
        help="worker processes; 0: one per core (default 1; in a pod MESH_CONCURRENCY)",
    )
    parser.add_argument(
        "--max-connections",
        type=_count(1 << 30),
        default=0,
        help="client connections open at once, per worker; more are closed (default: half of the file descriptors)",
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-format", default="text", choices=["text", "json"])
    return parser


def _count(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) > most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {most}")
        return int(text)

    return parse


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM. Exit codes: 0 ended in good order, 1 failed, 2 bad input."""
    arguments = _parser().parse_args(argv)
    configure_logging(as_json=arguments.log_format == "json", level=arguments.log_level)
    return run_reporting(lambda: _main(arguments))


def _main(arguments: argparse.Namespace) -> int:
    if arguments.check and arguments.config is not None:
        parse_file(arguments.config)
        return 0
    raise_descriptor_limit()
    keep_freed_memory()
    program = _alone(arguments) if arguments.config is not None else _in_mesh(arguments)
    if program.worker_count == 1:
        import_early(program.source, 1)
        run_loop(_one_process(program))
        return 0
    from sidecar.workers.program import run_workers

    return run_workers(program)


def _workers(asked: int | None, default: int) -> int:
    count = default if asked is None else asked
    return count or len(os.sched_getaffinity(0))


def _alone(arguments: argparse.Namespace) -> Program:
    bootstrap = read_bootstrap(arguments.config)
    return Program(
        source=bootstrap,
        ports=Ports(admin=bootstrap.admin, metrics=None, ready=None),
        own=Peer(workload=bootstrap.cluster),
        service=bootstrap.cluster or "meshwork",
        identity={"id": bootstrap.node_id, "cluster": bootstrap.cluster},
        worker_count=_workers(arguments.concurrency, 1),
        max_connections=arguments.max_connections,
    )


def _in_mesh(arguments: argparse.Namespace) -> Program:
    environment = read_environment(os.environ)
    identity = environment.identity
    return Program(
        source=environment,
        ports=Ports(),
        own=identity.peer(),
        service=identity.cluster,
        identity={"id": identity.node_id, "cluster": identity.cluster, "metadata": identity.metadata()},
        worker_count=_workers(arguments.concurrency, environment.concurrency),
        max_connections=arguments.max_connections,
    )


async def _one_process(program: Program) -> None:
    control = Control(
        ports=program.ports,
        own=program.own,
        service=program.service,
        identity=program.identity,
        max_connections=program.max_connections,
    )
    if isinstance(program.source, Bootstrap):
        await control.run_from_bootstrap(program.source)
    else:
        await control.run_in_mesh(program.source)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except asyncio.CancelledError:
        sys.exit(1)
