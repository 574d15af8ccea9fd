"""A cluster's folder as the launcher sees it: its files, its lock, and who runs it."""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mesh.cli.errors import CommandError

FOLDERS = ("run", "logs", "nodes", "pki", "store")


@dataclass(frozen=True, slots=True)
class Running:
    """The launcher that holds a home."""

    pid: int
    start_ticks: int
    """From /proc/PID/stat: with the pid, this names one process for good."""
    api_port: int
    nodes: int

    @property
    def is_alive(self) -> bool:
        return start_ticks(self.pid) == self.start_ticks


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def prepare_home(home: Path) -> None:
    """Make the folders, readable by the owner only. Raises CommandError."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FOLDERS:
            (home / name).mkdir(mode=0o700, exist_ok=True)
        if home.stat().st_uid != os.geteuid():
            raise CommandError(f"{home} belongs to another user (uid {home.stat().st_uid}): give another --home")
    except OSError as error:
        raise CommandError(f"home {home}: {error.strerror}: give another --home") from error


def read_running(home: Path) -> Running | None:
    """Who runs the cluster in `home`; None when nobody does."""
    try:
        running = Running(**json.loads((home / "run" / "launcher.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return running if running.is_alive else None


class HomeLock:
    """Held by the launcher as long as it lives; the kernel releases it whatever happens."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._fd = -1

    def __enter__(self) -> "HomeLock":
        self._fd = os.open(self._home / "run" / "launcher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            running = read_running(self._home)
            by = f" (pid {running.pid}, API port {running.api_port})" if running else ""
            raise CommandError(
                f"a cluster already runs in {self._home}{by}: use it, stop it with `mesh down --home {self._home}`, "
                "or give another --home",
                exit_code=2,
            ) from error
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        (self._home / "run" / "launcher.json").unlink(missing_ok=True)
        os.close(self._fd)

    def announce(self, api_port: int, nodes: int) -> None:
        """Write who we are, for `mesh down` and `mesh status`."""
        pid = os.getpid()
        value = {"pid": pid, "start_ticks": start_ticks(pid), "api_port": api_port, "nodes": nodes}
        path = self._home / "run" / "launcher.json"
        path.write_text(json.dumps(value))
        path.chmod(0o600)
        (self._home / "run" / "api_port").write_text(str(api_port))


def last_api_port(home: Path) -> int | None:
    """The port the cluster had when it last ran, so that kubeconfigs people copied stay right."""
    try:
        return int((home / "run" / "api_port").read_text())
    except (OSError, ValueError):
        return None
