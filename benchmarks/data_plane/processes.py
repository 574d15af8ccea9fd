"""Processes of a benchmark: started on cores, measured from /proc, ended by us alone."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START_TIMEOUT_S = 180.0
"""10,000 routes take their time to be read."""


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    held = [socket.socket() for _ in range(count)]
    for sock in held:
        sock.bind(("127.0.0.1", 0))
    ports: list[int] = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


def on_cores(cores: Sequence[int]) -> list[str]:
    """The beginning of a command that runs on `cores` only."""
    return ["taskset", "-c", ",".join(map(str, cores))]


class Pinned:
    """A child process on some cores, with its output in a file."""

    def __init__(self, name: str, command: Sequence[str], cores: Sequence[int], folder: Path, cwd: Path) -> None:
        self.name = name
        self._log = (folder / f"{name}.out").open("wb")
        self._process = subprocess.Popen([*on_cores(cores), *command], stdout=self._log, stderr=self._log, cwd=cwd)

    def wait_for(self, port: int) -> float:
        """Until it listens; returns how long that took. Raises RuntimeError with the end of its output."""
        started = time.monotonic()
        while time.monotonic() < started + _START_TIMEOUT_S and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return time.monotonic() - started
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{self.name} does not listen on 127.0.0.1:{port}\n{self.output()}")

    def output(self) -> str:
        """The end of what it wrote."""
        return Path(self._log.name).read_text(errors="replace")[-2000:]

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def cpu_s(self) -> float:
        """User and system time of it and its children, such as nginx's worker. Seconds."""
        return sum(_cpu_ticks(Path(f"/proc/{pid}/stat")) for pid in _family(self._process.pid)) / _TICKS_PER_S

    def cpu_s_by_thread(self) -> dict[int, float]:
        """The same for each thread of each process: shows how evenly workers are loaded."""
        threads = (task for pid in _family(self._process.pid) for task in _tasks(pid))
        return {int(task.name): _cpu_ticks(task / "stat") / _TICKS_PER_S for task in threads}

    def rss_kib(self) -> int:
        """Resident memory of it and its children."""
        return sum(_rss_kib(pid) for pid in _family(self._process.pid))

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                for pid in _family(self._process.pid):
                    os.kill(pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(int(child)))]


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _cpu_ticks(stat: Path) -> int:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _rss_kib(pid: int) -> int:
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def idle_s(cores: Collection[int]) -> float:
    """Idle time of the cores since the machine was started, from /proc/stat. Seconds."""
    idle = 0
    for line in Path("/proc/stat").read_text().splitlines():
        fields = line.split()
        if fields[0] in {f"cpu{core}" for core in cores}:
            idle += int(fields[4]) + int(fields[5])
    return idle / _TICKS_PER_S
