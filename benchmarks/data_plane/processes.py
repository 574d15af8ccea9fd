"""Processes of a benchmark: started on cores, measured from /proc, ended by us alone."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreTimes:
    """What some cores did not do for us since the machine was started, seconds."""

    idle_s: float
    stolen_s: float
    """Taken by other virtual machines."""


def core_times(cores: Collection[int], stat: str | None = None) -> CoreTimes:
    """The sum over `cores`. `stat`: the text of /proc/stat, read when it is not given."""
    text = Path("/proc/stat").read_text() if stat is None else stat
    wanted = {f"cpu{core}" for core in cores}
    rows = [
        [int(field) / _TICKS_PER_S for field in line.split()[1:]]
        for line in text.splitlines()
        if line.split()[0] in wanted
    ]
    # user nice system idle iowait irq softirq steal ...: see proc_stat(5)
    return CoreTimes(idle_s=sum(row[3] + row[4] for row in rows), stolen_s=sum(row[7] for row in rows))


def others_s() -> float:
    """CPU time of all processes that are neither this one nor below it nor the kernel's, with children they have waited for. Seconds."""
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            parents[int(entry.name)] = int(fields[1])
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    return sum(used for pid, used in ticks.items() if not is_ours(pid, parents)) / _TICKS_PER_S


_KERNEL_PID = 2


def is_ours(pid: int, parents: Mapping[int, int]) -> bool:
    """Whether it is this process or the kernel's, or a descendant of them."""
    while pid not in (0, os.getpid(), _KERNEL_PID):
        pid = parents.get(pid, 0)
    return pid != 0
