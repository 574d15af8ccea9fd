"""Restarts with back-off, without processes that matter."""

import fcntl
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from node.cluster.logs import cut_long_logs
from node.cluster.shutdown import descendants
from node.cluster.supervision import ChildSpec, Supervisor

pytestmark = pytest.mark.unit


class Events(list[tuple[str, dict[str, Any]]]):
    def __call__(self, event: str, **fields: Any) -> None:
        self.append((event, fields))


def supervisor(tmp_path: Path, events: Events, script: str, needs: Path | None = None) -> Supervisor:
    spec = ChildSpec(name="child", argv=("/bin/sh", "-c", script), log=tmp_path / "child.log", needs=needs)
    return Supervisor([spec], events, random.Random(1))


def wait_exit(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_that_ends_is_started_again_later_and_later(tmp_path: Path) -> None:
    events = Events()
    supervised = supervisor(tmp_path, events, "echo hello; exit 3")
    now, waits = 100.0, []
    for _ in range(7):
        assert supervised.start_due(now) is None
        pid = supervised.pids()["child"]
        assert supervised.ended(pid, wait_exit(pid), now)
        wait = supervised.start_due(now)
        assert wait is not None
        assert supervised.pids() == {}, "started before it was due"
        waits.append(wait)
        now += wait
    ceilings = [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert all(0.8 * top <= wait <= top for wait, top in zip(waits, ceilings, strict=True)), waits
    assert [e for e, _ in events] == ["started", "ended"] * 7
    assert events[1][1]["exit_code"] == 3
    assert (tmp_path / "child.log").read_text() == "hello\n" * 7


def test_a_quiet_time_forgets_earlier_failures(tmp_path: Path) -> None:
    supervised = supervisor(tmp_path, Events(), "exit 0")
    for start, end in ((0.0, 0.0), (1.0, 1.0), (3.0, 20.0)):
        supervised.start_due(start)
        pid = supervised.pids()["child"]
        supervised.ended(pid, wait_exit(pid), end)
    wait = supervised.start_due(20.0)
    assert wait is not None
    assert wait <= 0.2


def test_a_child_waits_for_the_file_it_needs(tmp_path: Path) -> None:
    needed = tmp_path / "kubeconfig"
    supervised = supervisor(tmp_path, Events(), "exit 0", needs=needed)
    assert supervised.start_due(0.0) is not None
    assert supervised.pids() == {}
    needed.touch()
    assert supervised.start_due(0.0) is None
    wait_exit(supervised.pids()["child"])


def test_nothing_is_started_once_stopping(tmp_path: Path) -> None:
    supervised = supervisor(tmp_path, Events(), "exit 0")
    supervised.stop()
    assert supervised.start_due(0.0) is None
    assert supervised.pids() == {}


def test_orphans_are_none_of_ours(tmp_path: Path) -> None:
    assert not supervisor(tmp_path, Events(), "exit 0").ended(999_999, 0, 0.0)


def test_children_get_only_the_descriptors_they_are_meant_to_have(tmp_path: Path) -> None:
    reader, low = os.pipe()
    writer = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 200)
    os.close(low)
    spec = ChildSpec(
        name="child",
        argv=("/bin/sh", "-c", "echo from child >&3; ls /proc/self/fd"),
        log=tmp_path / "child.log",
        descriptors={3: writer},
    )
    supervised = Supervisor([spec], Events(), random.Random(1))
    supervised.start_due(0.0)
    assert wait_exit(supervised.pids()["child"]) == 0
    os.close(writer)
    assert os.read(reader, 100) == b"from child\n"
    os.close(reader)
    seen = (tmp_path / "child.log").read_text().split()
    assert {"0", "1", "2", "3"} <= set(seen)
    assert str(writer) not in seen


def test_a_killed_childs_status_is_its_signal(tmp_path: Path) -> None:
    events = Events()
    supervised = supervisor(tmp_path, events, "kill -9 $$")
    supervised.start_due(0.0)
    pid = supervised.pids()["child"]
    supervised.ended(pid, wait_exit(pid), 0.0)
    assert events[-1][1]["exit_code"] == -signal.SIGKILL


def test_descendants_follow_the_tree() -> None:
    parents = {2: 1, 3: 2, 4: 3, 5: 1, 6: 5}
    assert descendants([2], parents) == {2, 3, 4}
    assert descendants([9], parents) == set()


def test_long_logs_are_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "long.log").write_text("x" * 100)
    (tmp_path / "short.log").write_text("y" * 10)
    cut_long_logs(tmp_path, max_bytes=50)
    assert (tmp_path / "long.log").read_text() == ""
    assert (tmp_path / "long.log.1").read_text() == "x" * 100
    assert (tmp_path / "short.log").read_text() == "y" * 10
