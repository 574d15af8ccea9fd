"""What a user waits for on a real cluster: start, first request through two sidecars, a weight change, and what sidecars weigh.

Prints a table and writes docs/benchmarks/cluster.json. Usage: python -m benchmarks cluster [--sidecars 20]
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "benchmarks" / "cluster.json"
WEIGHT_CHANGES = 15
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure with its goal. `unit` is s, ms or MB."""

    name: str
    value: float
    unit: str
    goal: float


class BenchCluster:
    """A cluster of one node in a temporary folder."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="mesh-bench-"))

    def mesh(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a `mesh` command. Raises CalledProcessError."""
        command = [sys.executable, "-m", "mesh.cli", *arguments, "--home", str(self.home)]
        done = subprocess.run(
            command, cwd=ROOT, input=stdin, text=True, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise RuntimeError(f"mesh {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl. Raises CalledProcessError."""
        command = ["kubectl", "--kubeconfig", str(self.home / "kubeconfig"), *arguments]
        return subprocess.run(command, text=True, capture_output=True, timeout=_TIMEOUT_S, check=True).stdout

    def first_pod(self, selector: str) -> str:
        """The name of a pod in `shop`."""
        pods: Any = json.loads(self.kubectl("get", "pods", "-n", "shop", "-l", selector, "-o", "json"))
        name: str = pods["items"][0]["metadata"]["name"]
        return name

    def run_load(self, pod: str, count: int) -> Any:
        """Send `count` requests from the client pod."""
        path = f"/api/v1/namespaces/shop/pods/{pod}:8081/proxy/run?url=http://webserver/&count={count}"
        return json.loads(self.kubectl("create", "--raw", path, "-f", "/dev/null"))


def measure(sidecars: int) -> list[Measured]:
    """All figures from one cluster, which is taken down again."""
    cluster = BenchCluster()
    examples = ROOT / "examples" / "canary"
    started = time.monotonic()
    try:
        cluster.mesh("up", "--detach", "--nodes", "1")
        up_s = time.monotonic() - started
        files = [
            word
            for name in ("00-images", "10-webserver", "20-client")
            for word in ("-f", str(examples / f"{name}.yaml"))
        ]
        cluster.mesh("apply", *files)
        cluster.kubectl("rollout", "status", "deployment/client", "-n", "shop", "--timeout=60s")
        pod = cluster.first_pod("app=client")
        _until(lambda: cluster.run_load(pod, 1)["by_status"].get("200") == 1)
        first_s = time.monotonic() - started
        cluster.mesh("apply", *files, "--wait")
        changes = [_weight_change_ms(cluster, n) for n in range(WEIGHT_CHANGES)]
        cluster.kubectl("scale", "deployment/production", "-n", "shop", f"--replicas={max(sidecars - 2, 1)}")
        cluster.kubectl("rollout", "status", "deployment/production", "-n", "shop", "--timeout=100s")
        weights = sidecar_pss_mb(cluster.home)
    finally:
        cluster.mesh("down")
    return [
        Measured("mesh up until ready", up_s, "s", 5),
        Measured("mesh up until the first request through two sidecars", first_s, "s", 5),
        Measured("weight change until every proxy acknowledged, p50", statistics.median(changes), "ms", 200),
        Measured("weight change until every proxy acknowledged, max", max(changes), "ms", 1000),
        Measured(f"PSS of a sidecar, mean of {len(weights)}", statistics.mean(weights), "MB", 12),
    ]


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("no answer through two sidecars within 30 s")
        time.sleep(0.05)


def _weight_change_ms(cluster: BenchCluster, number: int) -> float:
    """Apply another split and wait for every proxy; the time the command itself prints, without its own start-up."""
    text = (ROOT / "examples" / "canary" / "30-split-90-10.yaml").read_text()
    canary = 10 + number
    text = text.replace("weight: 90", f"weight: {100 - canary}").replace("weight: 10", f"weight: {canary}")
    answer = json.loads(cluster.mesh("apply", "-f", "-", "--wait", "-o", "json", stdin=text))
    return float(answer["elapsedMilliseconds"])


def sidecar_pss_mb(home: Path) -> list[float]:
    """Proportional set size of every forked sidecar of the cluster, MB; the warmed parent is not counted."""
    commands: dict[int, str] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        try:
            commands[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
    cluster = next(
        os.readlink(f"/proc/{pid}/ns/pid") for pid, c in commands.items() if "-m controlplane " in c and str(home) in c
    )
    spawned = {pid for pid, c in commands.items() if "sidecar.spawner" in c and _pid_namespace(pid) == cluster}
    return [_pss_mb(pid) for pid in spawned if parents[pid] in spawned]


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _pss_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert match is not None, text
    return int(match[1]) / 1024


def main(arguments: list[str]) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cluster", description=__doc__)
    parser.add_argument("--sidecars", type=int, default=20)
    figures = measure(parser.parse_args(arguments).sidecars)
    for figure in figures:
        mark = "ok" if figure.value <= figure.goal else "over"
        print(f"{figure.name:<58} {figure.value:9.2f} {figure.unit:<3} goal {figure.goal:g} {figure.unit} {mark}")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    document = [{"name": f.name, "value": round(f.value, 2), "unit": f.unit, "goal": f.goal} for f in figures]
    RESULT.write_text(json.dumps({"figures": document}, indent=2) + "\n")
    print(f"written to {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
