"""Processes of a benchmark: started on a core, measured from /proc, ended by us alone."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    """Responses other than 2xx and 3xx, and socket errors."""


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    held = [socket.socket() for _ in range(count)]
    for sock in held:
        sock.bind(("127.0.0.1", 0))
    ports: list[int] = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


class Pinned:
    """A child process on one core, with its output in a file."""

    def __init__(self, name: str, command: Sequence[str], core: int | None, folder: Path, cwd: Path) -> None:
        self.name = name
        prefix = ["taskset", "-c", str(core)] if core is not None else []
        self._log = (folder / f"{name}.out").open("wb")
        self._process = subprocess.Popen([*prefix, *command], stdout=self._log, stderr=self._log, cwd=cwd)

    def wait_for(self, port: int) -> None:
        """Until it listens. Raises RuntimeError with the end of its output."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        output = Path(self._log.name).read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.name} does not listen on 127.0.0.1:{port}\n{output}")

    def cpu_s(self) -> float:
        """User and system time of it and its children, such as nginx's worker. Seconds."""
        return sum(_cpu_ticks(pid) for pid in _family(self._process.pid)) / _TICKS_PER_S

    def rss_kib(self) -> int:
        """Resident memory of it and its children."""
        return sum(_rss_kib(pid) for pid in _family(self._process.pid))

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(int(child)))]


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _rss_kib(pid: int) -> int:
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def run_wrk(port: int, path: str, script: Path, seconds: int, connections: int, core: int | None) -> Load:
    """Load 127.0.0.1:port for `seconds`. Raises RuntimeError when wrk fails."""
    prefix = ["taskset", "-c", str(core)] if core is not None else []
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "-s",
        str(script),
        f"http://127.0.0.1:{port}{path}",
    ]
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"wrk: {done.stderr or done.stdout}")
    return parse_wrk(done.stdout)


def parse_wrk(output: str) -> Load:
    """Read wrk's report."""
    total = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if total is None or rate is None:
        raise RuntimeError(f"wrk said something unexpected:\n{output}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    errors = (int(bad[1]) if bad else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
    return Load(int(total[1]), float(rate[1]), _percentile(output, "50%"), _percentile(output, "99%"), errors)


def _percentile(output: str, which: str) -> float:
    found = re.search(rf"{which}\s+([\d.]+)(us|ms|s)", output)
    if found is None:
        return 0.0
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]
