"""A real cluster for end-to-end tests: `mesh up` in a folder of its own, with kubectl and the `mesh` command against it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
COMMAND_TIMEOUT_S = 90


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster."""

    home: Path
    ready_s: float
    """How long `mesh up` took until it said ready. Seconds."""

    def mesh(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `mesh ARGUMENTS --home HOME`."""
        return _run([sys.executable, "-m", "mesh.cli", *arguments, "--home", str(self.home)], check=check, stdin=stdin)

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl with the cluster's kubeconfig."""
        program = kubectl_path()
        return _run([program, "--kubeconfig", str(self.home / "kubeconfig"), *arguments], check=check, stdin=stdin)

    def get_json(self, *arguments: str) -> Any:
        """`kubectl get ARGUMENTS -o json`."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def pods(self, selector: str, namespace: str = "shop") -> list[Any]:
        """Pods that are not being deleted."""
        items = self.get_json("pods", "-n", namespace, "-l", selector)["items"]
        return [pod for pod in items if not pod["metadata"].get("deletionTimestamp")]

    def post(self, pod: str, path: str, namespace: str = "shop") -> Any:
        """POST to a port inside a pod through the API server; `pod` is NAME:PORT. Returns the JSON answer."""
        target = f"/api/v1/namespaces/{namespace}/pods/{pod}/proxy/{path}"
        return json.loads(self.kubectl("create", "--raw", target, "-f", "/dev/null").stdout)

    def process_ids(self, *words: str) -> list[int]:
        """Processes of this cluster whose command line holds every word."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if str(self.home) in command and all(word in command for word in words):
                found.append(int(entry.name))
        return found

    def kill(self, *words: str) -> int:
        """kill -9 the one process of this cluster whose command line holds every word; returns its pid."""
        candidates = self.process_ids(*words)
        assert candidates, f"no process of this cluster has {words} in its command line"
        pid = min(candidates)
        os.kill(pid, signal.SIGKILL)
        return pid


def kubectl_path() -> str:
    """The kubectl on PATH, or the one the set-up installed. A missing one is a failure, not a skip."""
    found = shutil.which("kubectl") or shutil.which("kubectl", path=str(ROOT / ".venv" / "bin"))
    assert found, "kubectl is missing: run `make setup-test`"
    return found


def wait_until(what: str, holds: Callable[[], bool], timeout_s: float = 30.0) -> float:
    """Ask until `holds`; returns the seconds it took. Fails with `what` when it never does."""
    started = time.monotonic()
    while time.monotonic() - started < timeout_s:
        if holds():
            return time.monotonic() - started
        time.sleep(0.1)
    raise AssertionError(f"not so after {timeout_s:.0f} s: {what}")


@contextmanager
def running_cluster(home: Path, nodes: int) -> Iterator[Cluster]:
    """A cluster for the time of the block. Its logs are printed when the block fails."""
    started = time.monotonic()
    up = [sys.executable, "-m", "mesh.cli", "up", "--home", str(home), "--nodes", str(nodes), "--detach"]
    try:
        _run(up, check=True)
        cluster = Cluster(home, time.monotonic() - started)
        yield cluster
    except BaseException:
        for log in sorted((home / "logs").glob("*.log")):
            print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))
        raise
    finally:
        _run([sys.executable, "-m", "mesh.cli", "down", "--home", str(home)], check=False)


def _run(command: list[str], *, check: bool, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, input=stdin, cwd=ROOT, check=False
    )
    if check and done.returncode != 0:
        shown = " ".join(command)
        raise AssertionError(f"{shown}\nexit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done
