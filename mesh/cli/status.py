"""`mesh status`: the control plane, the nodes and the pods at a glance."""

import asyncio
import time
from pathlib import Path
from typing import Any

import click

from mesh.api.core import Node
from mesh.api.pod import Pod
from mesh.api.resources import NODES, PODS
from mesh.cli.connection import home_option
from mesh.cli.errors import CommandError
from mesh.cli.home import Running, read_running
from mesh.cli.output import output_option, print_json, print_table
from mesh.client.rest import ApiClient, ClientConfig
from mesh.errors import MeshError
from mesh.net.loop import run

_POLL_S = 0.1


@click.command("status")
@home_option
@click.option("--wait", "wait_s", type=click.FloatRange(0), default=0.0, help="Seconds to wait until all is ready.")
@output_option()
def status_command(home: Path, wait_s: float, output: str) -> None:
    """Show whether the control plane, the nodes and the pods are ready.

    Exit codes: 0 all ready, 1 something is not, 3 no cluster runs here.
    """
    running = read_running(home.absolute())
    state = run(wait_status(home.absolute(), running, time.monotonic() + wait_s))
    if output == "json":
        print_json(state)
    else:
        _print(state)
    raise SystemExit(3 if not state["running"] else 0 if state["ready"] else 1)


async def wait_status(home: Path, running: Running | None, deadline: float) -> dict[str, Any]:
    """The state as JSON data: the first that is ready, or the one at `deadline` (monotonic seconds)."""
    while True:
        running = running if running and running.is_alive else read_running(home)
        state = await _read_state(home, running)
        if state["ready"] or time.monotonic() >= deadline:
            return state
        await asyncio.sleep(_POLL_S)


async def _read_state(home: Path, running: Running | None) -> dict[str, Any]:
    state: dict[str, Any] = {
        "home": str(home),
        "running": running is not None,
        "pid": running.pid if running else None,
        "server": f"https://127.0.0.1:{running.api_port}" if running else None,
        "ready": False,
        "control_plane": {"ready": False, "reason": "no cluster runs here" if running is None else ""},
        "nodes": [],
        "pods": {"total": 0, "ready": 0, "done": 0, "not_ready": []},
    }
    if running is None:
        return state
    try:
        await _fill(state, home)
    except (MeshError, CommandError) as error:
        state["control_plane"]["reason"] = str(error)
        return state
    nodes_ready = len(state["nodes"]) >= running.nodes and all(node["ready"] for node in state["nodes"])
    state["ready"] = nodes_ready and not state["pods"]["not_ready"]
    return state


async def _fill(state: dict[str, Any], home: Path) -> None:
    config = ClientConfig.from_kubeconfig(home / "kubeconfig")
    async with ApiClient(config) as client:
        await client.raw("GET", "/readyz")
        state["control_plane"]["ready"] = True
        nodes = await client.list(NODES)
        pods = await client.list(PODS)
    state["nodes"] = [_node_state(Node.of(item)) for item in nodes["items"]]
    state["pods"] = pod_counts([Pod.of(item) for item in pods["items"]])


def _node_state(node: Node) -> dict[str, Any]:
    ready = next((c for c in node.status.conditions if c.type == "Ready"), None)
    return {
        "name": node.metadata.name,
        "ready": ready is not None and ready.status == "True",
        "reason": "" if ready is None else ready.message,
    }


def pod_counts(pods: list[Pod]) -> dict[str, Any]:
    """How many pods are ready; a finished one (Succeeded) counts as done, one on the way out as neither."""
    staying = [pod for pod in pods if not pod.metadata.deletion_timestamp]
    done = [pod for pod in staying if pod.status.phase == "Succeeded"]
    ready = [pod for pod in staying if pod not in done and _is_ready(pod)]
    waiting = [pod for pod in staying if pod not in done and pod not in ready]
    return {
        "total": len(staying),
        "ready": len(ready),
        "done": len(done),
        "not_ready": [f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in waiting],
    }


def _is_ready(pod: Pod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def _print(state: dict[str, Any]) -> None:
    if not state["running"]:
        click.echo(f"no cluster runs in {state['home']}: start one with `mesh up --home {state['home']}`")
        return
    control_plane = state["control_plane"]
    rows = [["control plane", _word(control_plane["ready"]), control_plane["reason"] or state["server"]]]
    rows += [[node["name"], _word(node["ready"]), node["reason"]] for node in state["nodes"]]
    pods = state["pods"]
    not_ready = ", ".join(pods["not_ready"][:5]) + (" ..." if len(pods["not_ready"]) > 5 else "")
    rows.append(
        ["pods", f"{pods['ready']}/{pods['total'] - pods['done']}", f"not ready: {not_ready}" if not_ready else ""]
    )
    print_table(["PART", "READY", "DETAIL"], rows)


def _word(is_ready: bool) -> str:
    return "yes" if is_ready else "no"
