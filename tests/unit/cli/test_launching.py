"""The parts of `mesh up`, `down` and `status` that need no cluster."""

import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mesh.api.pod import Pod
from mesh.cli.__main__ import main
from mesh.cli.commands import COMMANDS
from mesh.cli.errors import CommandError
from mesh.cli.home import HomeLock, last_api_port, prepare_home, read_running, start_ticks
from mesh.cli.launcher import LaunchOptions, listen_for_api, machine_resolvers
from mesh.cli.progress import ProgressPrinter
from mesh.cli.status import pod_counts

pytestmark = pytest.mark.unit


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert all(f"  {name} " in result.output for name in COMMANDS)


@pytest.mark.parametrize("name", ["up", "down", "status"])
def test_each_command_explains_its_exit_codes(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Exit code" in result.output


def test_a_second_launcher_is_refused_with_what_to_do(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    with HomeLock(tmp_path) as lock:
        lock.announce(6443, 1)
        running = read_running(tmp_path)
        assert running is not None
        assert (running.pid, running.api_port) == (os.getpid(), 6443)
        with pytest.raises(
            CommandError, match=rf"already runs in {tmp_path} \(pid {os.getpid()}, API port 6443\): .*mesh down"
        ) as refused:
            HomeLock(tmp_path).__enter__()
        assert refused.value.exit_code == 2
    assert read_running(tmp_path) is None
    assert last_api_port(tmp_path) == 6443
    with HomeLock(tmp_path):
        pass


def test_a_launcher_that_died_does_not_count_as_running(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    entry = {"pid": os.getpid(), "start_ticks": (start_ticks(os.getpid()) or 0) - 1, "api_port": 1, "nodes": 1}
    (tmp_path / "run" / "launcher.json").write_text(json.dumps(entry))
    assert read_running(tmp_path) is None
    (tmp_path / "run" / "launcher.json").write_text("{")
    assert read_running(tmp_path) is None


def test_home_is_for_its_owner_only(tmp_path: Path) -> None:
    prepare_home(tmp_path / "home")
    assert {path.stat().st_mode & 0o777 for path in [tmp_path / "home", *(tmp_path / "home").iterdir()]} == {0o700}
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="give another --home"):
        prepare_home(tmp_path / "file" / "home")


def test_a_taken_api_port_is_passed_over_unless_it_was_asked_for(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "run" / "api_port").write_text(str(port))
        with listen_for_api(LaunchOptions(home=tmp_path)) as found:
            assert found.getsockname()[1] != port
        with pytest.raises(CommandError, match="give a free one with --api-port"):
            listen_for_api(LaunchOptions(home=tmp_path, api_port=port))


def test_the_port_of_last_time_comes_first(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "run" / "api_port").write_text(str(port))
    with listen_for_api(LaunchOptions(home=tmp_path)) as found:
        assert found.getsockname()[1] == port


def test_resolvers_come_from_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# x\nnameserver 127.0.0.53\nsearch a b\nnameserver ::1\nnameserver\nnameserver 1.1.1.1 # y\n")
    assert machine_resolvers(path) == ("127.0.0.53", "1.1.1.1")
    assert machine_resolvers(tmp_path / "missing") == ()


def test_progress_is_plain_lines_in_a_pipe_and_objects_as_json() -> None:
    events: list[tuple[str, dict[str, Any]]] = [
        ("starting", {"home": "/h", "nodes": 1, "api_port": 6443}),
        ("network", {"nodes": ["node-1"], "seconds": 0.05}),
        ("started", {"name": "node-1", "pid": 7, "starts": 1, "seconds": 0.1}),
        ("ended", {"name": "node-1", "exit_code": -9, "retry_in_s": 0.2, "seconds": 5.0}),
        ("started", {"name": "node-1", "pid": 8, "starts": 2, "seconds": 5.2}),
        ("api", {"seconds": 1.0}),
        ("nodes_removed", {"nodes": ["node-4"], "seconds": 2.0}),
        ("ready", {"seconds": 2.345, "kubeconfig": "/h/kubeconfig", "nodes": 3}),
        ("failed", {"reason": "why"}),
        ("something newer", {}),
        ("stopped", {"seconds": 3.0}),
    ]
    plain, objects = io.StringIO(), io.StringIO()
    for event, fields in events:
        ProgressPrinter(stream=plain)(event, **fields)
        ProgressPrinter(as_json=True, stream=objects)(event, **fields)
    text = plain.getvalue()
    assert "\x1b" not in text
    assert "ready in 2.35 s: 3 nodes\nkubectl --kubeconfig /h/kubeconfig get nodes\n" in text
    assert "   0.05 s  network            node-1\n" in text
    assert "ended with status -9; starting it again in 0.2 s" in text
    assert "started again (start 2, pid 8)" in text
    assert [json.loads(line)["event"] for line in objects.getvalue().splitlines()] == [event for event, _ in events]


def test_progress_to_a_reader_that_has_gone_is_no_error() -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    ProgressPrinter(stream=Gone())("stopping")
    ProgressPrinter(as_json=True, stream=Gone())("stopping")


def _pod(name: str, phase: str, *, ready: bool = False, deleted: bool = False) -> Pod:
    metadata = {"name": name, "namespace": "ns", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return Pod.of({"metadata": metadata, "status": {"phase": phase, "conditions": conditions}})


def test_finished_pods_are_done_and_leaving_ones_do_not_count() -> None:
    pods = [
        _pod("a", "Running", ready=True),
        _pod("b", "Pending"),
        _pod("job", "Succeeded"),
        _pod("broken", "Failed"),
        _pod("old", "Running", ready=True, deleted=True),
    ]
    assert pod_counts(pods) == {"total": 4, "ready": 1, "done": 1, "not_ready": ["ns/b", "ns/broken"]}


def test_status_and_down_without_a_cluster(tmp_path: Path) -> None:
    status = CliRunner().invoke(main, ["status", "--home", str(tmp_path), "-o", "json"])
    assert status.exit_code == 3
    assert json.loads(status.output)["running"] is False
    down = CliRunner().invoke(main, ["down", "--home", str(tmp_path), "-o", "json"])
    assert down.exit_code == 0
    assert json.loads(down.output) == {"home": str(tmp_path), "was_running": False}
