"""`mesh up` and what it leaves behind: nothing. As whoever runs the tests and, when that is root, as an ordinary user too."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.ordinary_user import OrdinaryUser, as_ordinary_user, own_folder

pytestmark = pytest.mark.e2e

_START_S = 60.0
_GONE_S = 5.0


@dataclass(slots=True)
class Launcher:
    """A running `mesh up -o json`."""

    process: subprocess.Popen[str]
    home: Path
    events: list[dict[str, Any]] = field(default_factory=list)

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Read events until one matches. Fails at the end of the output."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == event and fields.items() <= self.events[-1].items():
                return self.events[-1]
        raise AssertionError(f"no {event} {fields}; seen: {self.events}")


@dataclass(frozen=True, slots=True)
class Traces:
    """What a cluster could leave on the machine."""

    mounts: str
    links: str
    rules: str

    @classmethod
    def now(cls) -> "Traces":
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout
        return cls(Path("/proc/self/mounts").read_text(), re.sub(r"^\d+: ", "", links, flags=re.MULTILINE), rules)


def namespaces_of(home: Path) -> set[str]:
    """The namespaces of this cluster's processes that are not ours."""
    found: set[str] = set()
    for pid in processes_of(home):
        for kind in ("net", "mnt", "pid"):
            try:
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
            except OSError:
                continue
    return found - {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid")}


def processes_of(home: Path) -> list[int]:
    """Processes whose command line names the home."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(home).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def started_at(pid: int) -> int:
    """Clock ticks since boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def inhabitants(namespaces: set[str], before: int) -> dict[int, str]:
    """Processes in one of `namespaces` that started before that tick: the kernel gives a namespace's number to a later one."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            lives_in = {os.readlink(entry / "ns" / kind) for kind in ("net", "mnt", "pid")}
            if lives_in & namespaces and started_at(int(entry.name)) <= before:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def assert_nothing_left(home: Path, namespaces: set[str], before: Traces) -> None:
    """Within a few seconds no process is in the cluster's namespaces, and the machine looks as before."""
    assert namespaces, "the test saw no namespace of the cluster"
    now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    deadline = time.monotonic() + _GONE_S
    while (inhabitants(namespaces, now) or processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert inhabitants(namespaces, now) == {}
    assert processes_of(home) == []
    assert Traces.now() == before


@contextmanager
def launched(home: Path, user: OrdinaryUser | None, *more: str) -> Iterator[Launcher]:
    """`mesh up` as a child of ours; killed at the end, if it still runs."""
    python = user.python if user is not None else sys.executable
    words = [python, "-m", "mesh.cli", "up", "--home", str(home), "-o", "json", *more]
    environment = {**os.environ, "HOME": str(home.parent)}
    command = user.command(words) if user is not None else words
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        yield Launcher(process, home)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def users() -> list[str]:
    return ["self", "ordinary"] if os.geteuid() == 0 else ["self"]


@pytest.fixture(params=users())
def user(request: pytest.FixtureRequest) -> OrdinaryUser | None:
    return as_ordinary_user() if request.param == "ordinary" else None


@pytest.fixture
def home(tmp_path: Path, user: OrdinaryUser | None) -> Iterator[Path]:
    if user is None:
        yield tmp_path / "home"
    else:
        with own_folder() as folder:
            yield folder / "home"


def test_kill_9_of_the_launcher_leaves_nothing(home: Path, user: OrdinaryUser | None) -> None:
    before = Traces.now()
    with launched(home, user, "--nodes", "2") as launcher:
        launcher.wait_for("started", name="node-2-sidecars")
        namespaces = namespaces_of(home)
        launcher.process.send_signal(signal.SIGKILL)
        launcher.process.wait()
        assert_nothing_left(home, namespaces, before)


def test_ready_then_ctrl_c_leaves_nothing(home: Path, user: OrdinaryUser | None) -> None:
    before = Traces.now()
    with launched(home, user, "--nodes", "2") as launcher:
        ready = launcher.wait_for("ready")
        print(f"mesh up with 2 nodes: ready in {ready['seconds']:.2f} s")
        assert ready["kubeconfig"] == str(home / "kubeconfig")
        namespaces = namespaces_of(home)
        launcher.process.send_signal(signal.SIGINT)
        launcher.wait_for("stopped")
        assert launcher.process.wait(timeout=_GONE_S) == 0
        assert [e for e in launcher.events if e["event"] == "ended"] == []
        assert_nothing_left(home, namespaces, before)
        assert not (home / "run" / "ports.sock").exists()


def test_a_process_that_is_killed_is_started_again(home: Path) -> None:
    with launched(home, None) as launcher:
        launcher.wait_for("ready")
        agents = [pid for pid in processes_of(home) if b"node-1.json" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(agents[0], signal.SIGKILL)
        assert launcher.wait_for("ended", name="node-1")["exit_code"] == -signal.SIGKILL
        assert launcher.wait_for("started", name="node-1")["starts"] == 2


def test_a_smaller_second_start_forgets_the_nodes_of_the_first(home: Path, user: OrdinaryUser | None) -> None:
    for nodes in ("2", "1"):
        with launched(home, user, "--nodes", nodes) as launcher:
            launcher.wait_for("ready")
            launcher.process.send_signal(signal.SIGTERM)
            launcher.wait_for("stopped")
    removed = [event["nodes"] for event in launcher.events if event["event"] == "nodes_removed"]
    assert removed == [["node-2"]]
    starts = [event for event in launcher.events if event["event"] == "started" and event["name"] == "node-1"]
    assert len(starts) == 1, "ready before its agent had started"


def _mesh(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mesh.cli", *words, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=_START_S, check=False)


def test_detach_status_second_up_and_down(tmp_path: Path) -> None:
    home = tmp_path / "home"
    before = Traces.now()
    try:
        up = _mesh(home, "up", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        assert "ready in" in up.stdout
        namespaces = namespaces_of(home)
        second = _mesh(home, "up", "--detach")
        assert second.returncode == 2
        assert "already runs" in second.stderr
        status = _mesh(home, "status", "--wait", "10", "-o", "json")
        assert status.returncode == 0, status.stdout
        state = json.loads(status.stdout)
        assert (state["ready"], [node["name"] for node in state["nodes"]]) == (True, ["node-1"])
    finally:
        down = _mesh(home, "down", "-o", "json")
    assert json.loads(down.stdout)["was_graceful"] is True
    assert_nothing_left(home, namespaces, before)
    assert _mesh(home, "status").returncode == 3
