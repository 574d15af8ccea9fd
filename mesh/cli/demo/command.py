"""`mesh demo`: starts a cluster of its own, runs the seven steps, prints what was measured, takes everything down."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

import mesh
from mesh.api.resources import Json
from mesh.cli.connection import with_client
from mesh.cli.demo.steps import STEP_TIMEOUT_S, DemoRun, Figure
from mesh.cli.errors import CommandError
from mesh.cli.output import output_option, print_json, print_table
from mesh.client.rest import ApiClient

READY_TIMEOUT_S = 60


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave the cluster running.")
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help="The cluster's folder. Default: a temporary one."
)
@click.option("--nodes", default=2, show_default=True, help="Worker nodes.")
@output_option()
def demo_command(keep: bool, home: Path | None, nodes: int, output: str) -> None:
    """Canary, retries, ejection, promotion, blue/green and one trace on a cluster of its own, in under a minute.

    Exit code 1 when any measured figure is not what was promised.
    """
    examples = Path(mesh.__file__).parent.parent / "examples"
    if not (examples / "canary").is_dir():
        raise click.ClickException(f"{examples} is missing: run the demo from a checkout (make demo)")
    started = time.monotonic()
    say = _Speaker(started, is_quiet=output == "json")
    folder = home or Path(tempfile.mkdtemp(prefix="mesh-demo-"))
    up_seconds = _start_cluster(folder, nodes, is_quiet=output == "json")
    say(f"cluster is ready: {nodes} nodes, {up_seconds:.1f} s")
    try:
        run = with_client(folder, lambda client: _run(client, examples, say))
        total_s = time.monotonic() - started
        run.figures.insert(0, _figure("0 start", "mesh up until ready", up_seconds, 10.0))
        run.figures.append(_figure("all", "the whole demo", total_s, 60.0))
        _report(run, output)
    finally:
        if keep:
            click.echo(
                f"left running: export KUBECONFIG={folder}/kubeconfig; stop it with: mesh down --home {folder}",
                err=True,
            )
        else:
            subprocess.run(
                [sys.executable, "-m", "mesh.cli", "down", "--home", str(folder)],
                check=False,
                capture_output=True,
                timeout=60,
            )
    if not all(figure.is_ok for figure in run.figures):
        raise SystemExit(1)


async def _run(client: ApiClient, examples: Path, say: "_Speaker") -> DemoRun:
    run = DemoRun(client=client, examples=examples, say=say)
    try:
        await run.run()
    except TimeoutError as exc:
        raise CommandError(
            f"a step took longer than {STEP_TIMEOUT_S:.0f} s; see the lines above for how far it came"
        ) from exc
    return run


class _Speaker:
    """Prints a line of progress with the time since the start; quiet for JSON."""

    def __init__(self, started: float, *, is_quiet: bool) -> None:
        self._started = started
        self._is_quiet = is_quiet

    def __call__(self, line: str) -> None:
        if not self._is_quiet:
            click.echo(f"{click.style(f'{time.monotonic() - self._started:6.1f} s', dim=True)}  {line}")


def _start_cluster(home: Path, nodes: int, *, is_quiet: bool) -> float:
    started = time.monotonic()
    command = [sys.executable, "-m", "mesh.cli", "up", "--home", str(home), "--nodes", str(nodes), "--detach"]
    try:
        done = subprocess.run(command, check=False, capture_output=is_quiet, timeout=READY_TIMEOUT_S)
    except subprocess.TimeoutExpired as exc:
        raise click.ClickException(f"mesh up was not ready within {READY_TIMEOUT_S} s: see {home}/logs") from exc
    if done.returncode != 0:
        raise click.ClickException(f"mesh up failed (exit code {done.returncode}): see {home}/logs")
    return time.monotonic() - started


def _figure(step: str, name: str, measured_s: float, limit_s: float) -> Figure:
    return Figure(
        step=step, name=name, measured=f"{measured_s:.1f} s", wanted=f"< {limit_s:.0f} s", is_ok=measured_s < limit_s
    )


def _report(run: DemoRun, output: str) -> None:
    if output == "json":
        figures = [
            {"step": f.step, "name": f.name, "measured": f.measured, "wanted": f.wanted, "ok": f.is_ok}
            for f in run.figures
        ]
        print_json({"figures": figures, "trace": run.trace, "metrics": run.metrics})
        return
    print_trace(run.trace)
    print_table(
        ["WORKLOAD", "CODE", "REQUESTS"], sorted(run.metrics), title="\nistio_requests_total of the client's sidecar"
    )
    rows = [[f.step, f.name, f.measured, f.wanted, "ok" if f.is_ok else "OFF"] for f in run.figures]
    print_table(["STEP", "WHAT", "MEASURED", "WANTED", ""], rows, title="\nWhat was measured")


def print_trace(trace: Json) -> None:
    """The spans of a trace as a tree: parent above child, with service, name and duration."""
    from rich.console import Console
    from rich.tree import Tree

    spans = trace.get("spans") or []
    ids = {span["span_id"] for span in spans}
    tree = Tree(f"trace {trace.get('trace_id', '(none)')}")

    def add(parent: Tree, parent_id: str | None) -> None:
        for span in sorted(spans, key=lambda s: s["start_ns"]):
            is_child = (
                span["parent_span_id"] == parent_id if parent_id is not None else span["parent_span_id"] not in ids
            )
            if is_child:
                milliseconds = (span["end_ns"] - span["start_ns"]) / 1e6
                add(parent.add(f"{span['service']}: {span['name']}  {milliseconds:.2f} ms"), span["span_id"])

    add(tree, None)
    Console().print(tree)
