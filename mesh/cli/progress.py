"""How `mesh up` shows what happens: coloured on a terminal, plain lines otherwise, JSON lines when asked."""

import json
import sys
from typing import Any, TextIO

import click


class ProgressPrinter:
    """Prints launcher reports as they come. Call it as report(event, **fields)."""

    def __init__(self, *, as_json: bool = False, stream: TextIO | None = None) -> None:
        self._as_json = as_json
        self._stream = stream if stream is not None else sys.stdout

    def __call__(self, event: str, **fields: Any) -> None:
        """Print one report; a reader that has gone is no reason to stop the cluster."""
        try:
            if self._as_json:
                print(json.dumps({"event": event, **fields}), file=self._stream, flush=True)
            elif (line := describe(event, fields)) is not None:
                click.echo(line if self._stream.isatty() else click.unstyle(line), file=self._stream)
        except OSError:
            return


def describe(event: str, fields: dict[str, Any]) -> str | None:
    """One line for a person, or None for what is not worth one. With terminal colours."""
    match event:
        case "starting":
            nodes = _counted(fields["nodes"], "node")
            return f"starting a cluster of {nodes} in {fields['home']} (API port {fields['api_port']})"
        case "network":
            return _step("network", f"{', '.join(fields['nodes'])}", fields)
        case "started" if fields["starts"] > 1:
            return _step(fields["name"], f"started again (start {fields['starts']}, pid {fields['pid']})", fields)
        case "started":
            return _step(fields["name"], f"started, pid {fields['pid']}", fields)
        case "ended":
            again = f"starting it again in {fields['retry_in_s']:.1f} s"
            return _step(
                fields["name"], click.style(f"ended with status {fields['exit_code']}; {again}", fg="yellow"), fields
            )
        case "nodes_removed":
            return _step("nodes", f"removed from an earlier run: {', '.join(fields['nodes'])}", fields)
        case "api":
            return _step("API", "ready", fields)
        case "ready":
            ready = f"ready in {fields['seconds']:.2f} s: {_counted(fields['nodes'], 'node')}"
            return (
                click.style(ready, fg="green", bold=True) + f"\nkubectl --kubeconfig {fields['kubeconfig']} get nodes"
            )
        case "stopping":
            return "stopping"
        case "stopped":
            return "stopped; no process, namespace or rule is left"
        case "failed":
            return click.style(f"failed: {fields['reason']}", fg="red")
        case _:
            return None


def _step(name: str, what: str, fields: dict[str, Any]) -> str:
    return f"{fields['seconds']:7.2f} s  {click.style(name.ljust(18), fg='cyan')} {what}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
