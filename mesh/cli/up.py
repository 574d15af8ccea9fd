"""`mesh up`: start a cluster and stay with it, or leave it running with --detach."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mesh.cli.connection import home_option
from mesh.cli.errors import CommandError
from mesh.cli.home import prepare_home
from mesh.cli.launcher import LaunchOptions, launch, machine_resolvers
from mesh.cli.progress import ProgressPrinter


@click.command("up")
@home_option
@click.option("--nodes", type=click.IntRange(1, 100), default=1, show_default=True, help="How many nodes.")
@click.option("--detach", is_flag=True, help="Return when the cluster is ready and leave it running.")
@click.option(
    "--api-port",
    type=click.IntRange(1, 65535),
    help="Port of the API on 127.0.0.1. Default: 6443 or the next free one.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1),
    default=120.0,
    show_default=True,
    help="Seconds to wait until ready.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="json: one object per line.")
def up_command(home: Path, nodes: int, detach: bool, api_port: int | None, timeout_s: float, output: str) -> None:
    """Start a cluster: control plane, nodes, and a kubeconfig in its folder. Ctrl-C stops everything.

    Exit codes: 0 stopped or detached, 1 it did not come up, 2 one already runs in this home.
    """
    options = LaunchOptions(
        home=home.absolute(),
        nodes=nodes,
        api_port=api_port,
        ready_timeout_s=timeout_s,
        upstream_dns=machine_resolvers(),
    )
    report = ProgressPrinter(as_json=output == "json")
    try:
        raise SystemExit(detached(options, report) if detach else attached(options, report))
    except CommandError as error:
        click.echo(f"mesh: {error}", err=True)
        raise SystemExit(error.exit_code) from error


def attached(options: LaunchOptions, report: Callable[..., None]) -> int:
    """Be the launcher until SIGINT, SIGTERM or SIGHUP. Returns the exit code. Raises CommandError."""

    async def main() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        return await launch(options, report, stop)

    return asyncio.run(main())


def detached(options: LaunchOptions, report: Callable[..., None]) -> int:
    """Start a launcher in a session of its own and follow it until it is ready. Returns the exit code. Raises CommandError."""
    read_fd, write_fd = os.pipe()
    prepare_home(options.home)
    arguments = json.dumps({**asdict(options), "home": str(options.home), "upstream_dns": list(options.upstream_dns)})
    with (options.home / "logs" / "launcher.log").open("ab") as log:
        launcher = subprocess.Popen(
            [sys.executable, "-P", "-m", "mesh.cli.detached_launcher", str(write_fd), arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(write_fd,),
            start_new_session=True,
            cwd="/",
        )
    os.close(write_fd)
    try:
        with os.fdopen(read_fd) as reports:
            return _follow((json.loads(line) for line in reports), report)
    except KeyboardInterrupt:
        launcher.send_signal(signal.SIGTERM)
        launcher.wait()
        return 130


def _follow(reports: Any, report: Callable[..., None]) -> int:
    for fields in reports:
        event = fields.pop("event")
        if event == "refused":
            raise CommandError(fields["reason"], exit_code=fields["exit_code"])
        report(event, **fields)
        if event == "ready":
            return 0
    return 1
