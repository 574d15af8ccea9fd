"""`mesh apply`: manifests in, progress and what became of each out."""

import sys
import time
from pathlib import Path

import click

from mesh.cli.applying import Applied, apply_files, wait_applied
from mesh.cli.connection import home_option, with_client
from mesh.cli.errors import CommandError
from mesh.cli.options import files_option
from mesh.cli.output import output_option, print_json
from mesh.client.rest import ApiClient


@click.command("apply")
@files_option
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of objects that name none.")
@click.option("--wait", is_flag=True, help="Return when workloads are ready and all proxies have acknowledged.")
@click.option("--timeout", "timeout_s", default=120.0, show_default=True, help="Longest wait, seconds.")
@output_option()
@home_option
def apply_command(
    files: tuple[str, ...], namespace: str, wait: bool, timeout_s: float, output: str, home: Path
) -> None:
    """Create or change the objects of manifests. Nothing is applied when one of them is wrong.

    Exit codes: 0 done, 1 refused, 3 not done within --timeout.
    """
    stdin = sys.stdin.buffer.read() if "-" in files else None
    paths = [Path(file) for file in files if file != "-"]

    async def work(client: ApiClient) -> None:
        started = time.monotonic()
        applied = await apply_files(client, paths, namespace=namespace, stdin=stdin)
        if output == "table":
            for item in applied:
                click.echo(f"{item.title} {item.outcome}")
        if wait:
            say = (lambda line: click.echo(f"  {line}", err=True)) if output == "table" else _be_quiet
            await wait_applied(client, applied, timeout_s=timeout_s, on_progress=say)
        elapsed_ms = (time.monotonic() - started) * 1000
        if output == "json":
            print_json(
                {
                    "applied": [_as_json(item) for item in applied],
                    "waited": wait,
                    "elapsedMilliseconds": round(elapsed_ms, 1),
                }
            )
        elif wait:
            click.echo(f"done in {elapsed_ms:.0f} ms: every workload is ready, every proxy has acknowledged")

    try:
        with_client(home, work)
    except CommandError as exc:
        raise click.ClickException(str(exc)) from exc


def _be_quiet(_line: str) -> None:
    """Progress is not part of the JSON output."""


def _as_json(item: Applied) -> dict[str, object]:
    return {
        "kind": item.resource.kind,
        "name": item.name,
        "namespace": item.namespace,
        "outcome": item.outcome,
        "generation": item.generation,
        "where": item.where,
    }
