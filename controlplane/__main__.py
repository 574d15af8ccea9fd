"""`python -m controlplane --config HOME/run/controlplane.json`: one control plane process.

Ends with 0 after SIGTERM or SIGINT, 1 when a part failed, 2 when the configuration is at fault.
"""

import argparse
import asyncio
import logging
import signal
import sys
import time
from pathlib import Path

_STARTED_AT = time.monotonic()

from controlplane import composition  # noqa: E402 - what is imported counts as start-up time
from controlplane.config import COMPONENTS, ControlPlaneConfig, load_config, with_components  # noqa: E402
from mesh.errors import MeshError, UserError  # noqa: E402
from mesh.net import loop  # noqa: E402
from mesh.telemetry.log_format import configure_logging  # noqa: E402

logger = logging.getLogger("controlplane")


def main(argv: list[str] | None = None) -> int:
    """Run until told to end; returns the exit code."""
    arguments = _parser().parse_args(argv)
    configure_logging(as_json=arguments.log_format == "json", level=arguments.log_level)
    try:
        config = _config(arguments)
        loop.run(_until_signal(config))
    except UserError as exc:
        logger.error("can't start: %s", exc)
        return 2
    except (MeshError, OSError) as exc:
        logger.error("control plane failed: %s", exc)
        return 1
    except BaseExceptionGroup as group:
        for error in _leaves(group):
            is_ours = isinstance(error, MeshError | OSError)
            logger.error("control plane failed: %s", error, exc_info=None if is_ours else error)
        return 1
    return 0


async def _until_signal(config: ControlPlaneConfig) -> None:
    """Run, and take SIGTERM and SIGINT for the wish to end cleanly."""
    current = asyncio.current_task()
    if current is None:
        raise RuntimeError("must run as a task")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, current.cancel)
    try:
        await composition.run(config, started_at=_STARTED_AT)
    except asyncio.CancelledError:
        logger.info("told to end: everything is closed")


def _config(arguments: argparse.Namespace) -> ControlPlaneConfig:
    config = load_config(arguments.config)
    if arguments.components:
        config = with_components(config, arguments.components)
    return config


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    result: list[BaseException] = []
    for error in group.exceptions:
        result += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controlplane", description="Meshwork's control plane.")
    parser.add_argument("--config", type=Path, required=True, help="controlplane.json (docs/contracts.md)")
    parser.add_argument("--components", default="", help=f"run only these, of {','.join(COMPONENTS)}")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser


if __name__ == "__main__":
    sys.exit(main())
