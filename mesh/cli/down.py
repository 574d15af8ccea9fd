"""`mesh down`: stop the cluster of a home."""

import os
import select
import signal
import time
from pathlib import Path

import click

from mesh.cli.connection import home_option
from mesh.cli.home import Running, read_running
from mesh.cli.output import print_json

_GRACE_S = 15.0


@click.command("down")
@home_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def down_command(home: Path, output: str) -> None:
    """Stop the cluster: pods first, the control plane last. Its store and logs stay.

    Exit code 0 also when none runs.
    """
    running = read_running(home.absolute())
    if running is None:
        _say(output, f"no cluster runs in {home}", {"home": str(home), "was_running": False})
        return
    started = time.monotonic()
    was_graceful = stop_launcher(running, _GRACE_S)
    seconds = round(time.monotonic() - started, 2)
    how = "stopped" if was_graceful else "killed; it did not stop in time"
    _say(
        output,
        f"{how} after {seconds:.2f} s",
        {"home": str(home), "was_running": True, "was_graceful": was_graceful, "seconds": seconds},
    )


def stop_launcher(running: Running, grace_s: float) -> bool:
    """End the launcher, and the cluster with it; by SIGKILL after `grace_s`. True when it ended by itself."""
    try:
        fd = os.pidfd_open(running.pid)
    except ProcessLookupError:
        return True
    try:
        if not running.is_alive:
            return True
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        if _has_ended(fd, grace_s):
            return True
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        _has_ended(fd, grace_s)
        return False
    except ProcessLookupError:
        return True
    finally:
        os.close(fd)


def _has_ended(fd: int, timeout_s: float) -> bool:
    return bool(select.select([fd], [], [], timeout_s)[0])


def _say(output: str, line: str, fields: dict[str, object]) -> None:
    if output == "json":
        print_json(fields)
    else:
        click.echo(line)
