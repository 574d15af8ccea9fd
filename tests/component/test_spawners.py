"""The two spawners as real processes: start, logs, exits, signals, mounts, privileges, a client that goes and comes back."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mesh.net.capabilities import APP_CONTAINER, SIDECAR
from mesh.net.errors import SpawnerGoneError, SpawnError
from mesh.net.private_mounts import Mount
from mesh.net.spawn import LogFile, Record, Spawn, process_start_ticks
from mesh.net.spawn_client import SpawnClient, open_mount_namespace

pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root (or uid 0 of a user namespace)"),
]

ENV = {"PATH": "/usr/bin:/bin"}


class Exits:
    """Collects exits and lets a test wait for one."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._event = asyncio.Event()

    def __call__(self, record: Record) -> None:
        self.records[record.id] = record
        self._event.set()

    async def wait(self, id_: str) -> Record:
        async with asyncio.timeout(10):
            while id_ not in self.records:
                self._event.clear()
                await self._event.wait()
        return self.records[id_]


@contextlib.contextmanager
def spawner(module: str, path: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a spawner until the end of the block."""
    process = subprocess.Popen([sys.executable, "-m", module, "--socket", str(path), *arguments])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextlib.asynccontextmanager
async def client(path: Path, exits: Exits) -> AsyncIterator[SpawnClient]:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(SpawnerGoneError):
                connected = await SpawnClient.connect(str(path), exits)
                break
            await asyncio.sleep(0.01)
    try:
        yield connected
    finally:
        connected.close()


def run_with_spawner(tmp_path: Path, test: Callable[[SpawnClient, Exits], Awaitable[None]]) -> None:
    async def go() -> None:
        exits = Exits()
        async with client(tmp_path / "s", exits) as connected:
            await test(connected, exits)

    with spawner("node.spawner", tmp_path / "s"):
        asyncio.run(go())


def shell(id_: str, script: str, tmp_path: Path, **more: object) -> Spawn:
    values: dict[str, object] = {
        "id": id_,
        "argv": ("sh", "-c", script),
        "env": ENV,
        "log": LogFile(path=str(tmp_path / f"{id_}.log")),
        "capabilities": APP_CONTAINER,
    }
    return Spawn(**(values | more))  # type: ignore[arg-type]  # a test's keyword arguments


def texts(path: Path) -> list[str]:
    """The log's lines as `stream tag text`, without their times."""
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


def test_output_is_logged_and_exit_code_reported(tmp_path: Path) -> None:
    async def scenario(spawn: SpawnClient, exits: Exits) -> None:
        record = await spawn.spawn(shell("a", "echo one; echo two >&2; printf rest; exit 7", tmp_path))
        assert process_start_ticks(record.pid) in (record.start_ticks, 0)
        assert (await exits.wait("a")).exit_status == 7
        assert sorted(texts(tmp_path / "a.log")) == ["stderr F two", "stdout F one", "stdout F rest"]

    run_with_spawner(tmp_path, scenario)


def test_log_rotates_at_its_bound(tmp_path: Path) -> None:
    async def scenario(spawn: SpawnClient, exits: Exits) -> None:
        log = LogFile(path=str(tmp_path / "r.log"), max_bytes=200_000, max_files=2)
        await spawn.spawn(shell("r", "seq 1 30000", tmp_path, log=log))
        await exits.wait("r")
        sizes = [path.stat().st_size for path in tmp_path.glob("r.log*")]
        assert len(sizes) == 2
        # One read of the pipe, with its prefixes, may be larger than a small bound.
        assert all(size < 700_000 for size in sizes)
        assert texts(tmp_path / "r.log")[-1] == "stdout F 30000"

    run_with_spawner(tmp_path, scenario)


def test_mounts_are_private_and_may_be_anywhere(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "key").write_text("value")
    (tmp_path / "resolv").write_text("nameserver 10.96.0.10\n")
    targets = ("/etc/mesh-test/config", "/mesh-test-data", "/var/run/secrets/kubernetes.io/serviceaccount")
    mounts = (
        *(Mount(source=str(tmp_path / "volume"), target=target, read_only=True) for target in targets),
        Mount(source=str(tmp_path / "resolv"), target="/etc/resolv.conf"),
    )

    async def scenario(spawn: SpawnClient, exits: Exits) -> None:
        script = "".join(f"cat {t}/key; echo; touch {t}/x 2>/dev/null && echo written;" for t in targets)
        await spawn.spawn(shell("m", script + "cat /etc/resolv.conf; test -e /etc/passwd", tmp_path, mounts=mounts))
        assert (await exits.wait("m")).exit_status == 0
        assert texts(tmp_path / "m.log") == ["stdout F value"] * 3 + ["stdout F nameserver 10.96.0.10"]
        assert not Path("/mesh-test-data").exists()
        assert not Path("/etc/mesh-test").exists()

    run_with_spawner(tmp_path, scenario)


def test_privileges_are_dropped(tmp_path: Path) -> None:
    async def scenario(spawn: SpawnClient, exits: Exits) -> None:
        await spawn.spawn(shell("p", "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status", tmp_path))
        await exits.wait("p")
        lines = dict(line.split(" F ")[1].split(":\t") for line in texts(tmp_path / "p.log"))
        assert lines["NoNewPrivs"] == "1"
        net_admin, sys_admin, net_raw = 1 << 12, 1 << 21, 1 << 13
        for name in ("CapEff", "CapBnd"):
            assert int(lines[name], 16) & (net_admin | sys_admin | net_raw) == 0

    run_with_spawner(tmp_path, scenario)


def test_kill_reaches_what_a_container_left_behind(tmp_path: Path) -> None:
    async def scenario(spawn: SpawnClient, exits: Exits) -> None:
        await spawn.spawn(shell("k", "setsid sleep 1000 & echo $!; wait", tmp_path))
        async with asyncio.timeout(5):
            while not texts(tmp_path / "k.log"):
                await asyncio.sleep(0.01)
        stray = int(texts(tmp_path / "k.log")[0].split()[-1])
        await spawn.signal("k", signal.SIGKILL)
        assert (await exits.wait("k")).exit_status == -signal.SIGKILL
        async with asyncio.timeout(5):
            while process_start_ticks(stray):
                await asyncio.sleep(0.01)

    run_with_spawner(tmp_path, scenario)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Spawn(id="x", argv=("no-such-program",), env=ENV), "not found in PATH"),
        (Spawn(id="x", argv=("/etc/passwd",), env=ENV), "Permission denied"),
        (Spawn(id="x", argv=("true",), env=ENV, cwd="/no/such"), "working directory /no/such"),
        (Spawn(id="x", argv=("true",), env=ENV, mounts=(Mount(source="/no/such", target="/a"),)), "/no/such"),
        (Spawn(id="x", argv=("true",), env=ENV, capabilities=("FLY",)), "FLY"),
        (Spawn(id="x", argv=()), "argv"),
        (Spawn(id="x", argv=("y" * 300_000,)), "at most"),
    ],
)
def test_what_cannot_start_says_why_and_leaves_no_record(tmp_path: Path, request_: Spawn, error: str) -> None:
    async def scenario(spawn: SpawnClient, exits: Exits) -> None:
        with pytest.raises(SpawnError, match=error):
            await spawn.spawn(request_)
        assert await spawn.records() == ()

    run_with_spawner(tmp_path, scenario)


def test_a_new_client_finds_running_and_ended_children(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = Exits(), Exits()
        async with client(tmp_path / "s", first) as spawn:
            await spawn.spawn(shell("runs", "sleep 1000", tmp_path))
            await spawn.spawn(shell("ends", "sleep 0.05; exit 3", tmp_path))
        async with client(tmp_path / "s", second) as spawn:
            async with asyncio.timeout(5):
                while (found := {r.id: r for r in await spawn.records()})["ends"].exit_status is None:
                    await asyncio.sleep(0.01)
            assert found["ends"].exit_status == 3
            assert found["runs"].exit_status is None
            await spawn.forget("ends")
            with pytest.raises(SpawnError, match="still runs"):
                await spawn.forget("runs")
            with pytest.raises(SpawnError, match="exists already"):
                await spawn.spawn(shell("runs", "true", tmp_path))
            assert [record.id for record in await spawn.records()] == ["runs"]

    with spawner("node.spawner", tmp_path / "s"):
        asyncio.run(scenario())


def test_a_command_can_join_a_containers_mounts(tmp_path: Path) -> None:
    (tmp_path / "only-inside").write_text("inside\n")

    async def scenario(spawn: SpawnClient, exits: Exits) -> None:
        mounts = (Mount(source=str(tmp_path / "only-inside"), target="/mesh-only-inside"),)
        record = await spawn.spawn(shell("c", "sleep 1000", tmp_path, mounts=mounts))
        mntns = open_mount_namespace(record)
        request = shell("e", "cat /mesh-only-inside", tmp_path, is_ephemeral=True)
        await spawn.spawn(request, {"mntns": mntns})
        os.close(mntns)
        assert (await exits.wait("e")).exit_status == 0
        assert texts(tmp_path / "e.log") == ["stdout F inside"]
        assert [(r.id, r.exit_status) for r in await spawn.records()] == [("c", None)]

    run_with_spawner(tmp_path, scenario)


def test_containers_end_with_their_spawner(tmp_path: Path) -> None:
    async def scenario(process: subprocess.Popen[bytes]) -> None:
        async with client(tmp_path / "s", Exits()) as spawn:
            record = await spawn.spawn(shell("a", "exec sleep 1000", tmp_path))
            process.kill()
            process.wait(5)
            await asyncio.wait_for(spawn.wait_gone(), 5)
            with pytest.raises(SpawnerGoneError):
                await spawn.records()
            async with asyncio.timeout(5):
                while process_start_ticks(record.pid) == record.start_ticks and not _is_zombie(record.pid):
                    await asyncio.sleep(0.01)

    with spawner("node.spawner", tmp_path / "s") as process:
        asyncio.run(scenario(process))


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_second_spawner_on_one_socket_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with client(tmp_path / "s", Exits()):
            second = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "node.spawner", "--socket", str(tmp_path / "s"), stderr=asyncio.subprocess.PIPE
            )
            _, err = await second.communicate()
            assert second.returncode == 1
            assert b"another spawner serves it" in err

    with spawner("node.spawner", tmp_path / "s"):
        asyncio.run(scenario())


SIDECAR_MODULE = "tests.component.forked_sidecar"


def test_sidecars_are_forked_and_fast(tmp_path: Path) -> None:
    async def scenario() -> None:
        exits = Exits()
        async with client(tmp_path / "s", exits) as spawn:
            log = LogFile(path=str(tmp_path / "f.log"))
            request = Spawn(
                id="f", argv=("--exit", "5"), env={"POD_NAME": "p1", "PATH": "/bin"}, log=log, capabilities=SIDECAR
            )
            await spawn.spawn(request)
            assert (await exits.wait("f")).exit_status == 5
            assert texts(tmp_path / "f.log") == [
                "stdout F pod p1 arguments ['--exit', '5'] environment ['PATH', 'POD_NAME'] descriptors [0, 1, 2]",
                "stdout F capabilities 0000000000001400",
            ]

    with spawner("sidecar.spawner", tmp_path / "s", "--module", SIDECAR_MODULE):
        asyncio.run(scenario())


def test_a_module_that_starts_threads_cannot_be_forked(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sidecar.spawner", "--socket", str(tmp_path / "s"), "--module", SIDECAR_MODULE],
        env={**os.environ, "FORKED_SIDECAR_THREAD": "1"},
        capture_output=True,
        timeout=30,
    )
    assert result.returncode == 1
    assert b"started a thread" in result.stderr
