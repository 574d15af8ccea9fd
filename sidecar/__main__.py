"""`python -m sidecar`: in a pod, configured by the control plane; with `--config FILE` alone, from an Envoy bootstrap file."""

import argparse
import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mesh.errors import MeshError
from mesh.net import loop
from mesh.telemetry.istio import Peer
from mesh.telemetry.log_format import configure_logging
from mesh.xds.errors import DecodeError
from sidecar.control import Control, Ports
from sidecar.environment import Environment, read_environment

if TYPE_CHECKING:
    from sidecar.decode.bootstrap import Bootstrap

_EXIT_BAD_INPUT: Final = 2
_GC_THRESHOLD: Final = 50_000
"""Collections walk the whole snapshot; the hot path makes hardly any cycles."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sidecar", description=__doc__)
    parser.add_argument("--config", type=Path, help="Envoy bootstrap file, YAML or JSON, with static_resources")
    parser.add_argument("--check", action="store_true", help="only read --config and say whether it can be used")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-format", default="text", choices=["text", "json"])
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM. Exit codes: 0 ended in good order, 1 failed, 2 bad input."""
    arguments = _parser().parse_args(argv)
    configure_logging(as_json=arguments.log_format == "json", level=arguments.log_level)
    try:
        if arguments.config is not None:
            bootstrap = read_bootstrap(arguments.config)
            if not arguments.check:
                _run(_alone(bootstrap))
        else:
            _run(_in_mesh(read_environment(os.environ)))
    except (MeshError, BaseExceptionGroup) as exc:
        cause = _cause(exc)
        if not isinstance(cause, MeshError):
            raise
        print(f"sidecar: {cause}", file=sys.stderr)
        return _EXIT_BAD_INPUT if isinstance(cause, DecodeError) else 1
    return 0


def _cause(exc: BaseException) -> BaseException:
    """The first error inside groups of them."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _run(work: Any) -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 100)
    loop.run(work)


def read_bootstrap(path: Path) -> "Bootstrap":
    """Read and decode a bootstrap file. Raises DecodeError."""
    # Imported only here: a sidecar in a pod needs neither YAML nor the bootstrap messages.
    from sidecar.decode.bootstrap import MAX_FILE_BYTES, parse_bootstrap

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise DecodeError(str(path), f"can't be read: {exc.strerror}") from exc
    if len(data) > MAX_FILE_BYTES:
        raise DecodeError(str(path), f"is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise DecodeError(str(path), "is not UTF-8 text") from exc
    return parse_bootstrap(text, str(path))


async def _alone(bootstrap: "Bootstrap") -> None:
    control = Control(
        ports=Ports(admin=bootstrap.admin, metrics=None, ready=None),
        own=Peer(workload=bootstrap.cluster),
        service=bootstrap.cluster or "meshwork",
        identity={"id": bootstrap.node_id, "cluster": bootstrap.cluster},
    )
    await control.run_from_bootstrap(bootstrap)


async def _in_mesh(environment: Environment) -> None:
    identity = environment.identity
    control = Control(
        ports=Ports(),
        own=identity.peer(),
        service=identity.cluster,
        identity={"id": identity.node_id, "cluster": identity.cluster, "metadata": identity.metadata()},
    )
    await control.run_in_mesh(environment)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except asyncio.CancelledError:
        sys.exit(1)
