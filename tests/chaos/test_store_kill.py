"""A store killed without warning loses no acknowledged write."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvloop

from controlplane.store.errors import StoreClosedError
from controlplane.store.protocol import Put
from controlplane.store.sqlite import open_sqlite_store

pytestmark = pytest.mark.chaos

LOAD = """
import asyncio, os, sys
from pathlib import Path
from controlplane.store.protocol import Compare, Put
from controlplane.store.sqlite import open_sqlite_store

async def write(store, writer):
    revision, count = 0, 0
    while True:
        result = await store.txn([Compare(b"k%d" % writer, revision)], [Put(b"k%d" % writer, b"%d" % count)])
        assert result.succeeded
        revision = result.revision
        os.write(1, b"%d %d %d\\n" % (writer, count, revision))
        count += 1

async def main():
    store = await open_sqlite_store(Path(sys.argv[1]))
    os.write(1, b"writer %d\\n" % store.writer_pid)
    async with asyncio.TaskGroup() as group:
        for writer in range(8):
            group.create_task(write(store, writer))

asyncio.run(main())
"""


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while _is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} outlives its store"
        time.sleep(0.01)


def _load_until(path: Path, acknowledged: int) -> tuple[int, dict[int, tuple[int, int]]]:
    """Run a write load in a process of its own, kill it after so many acknowledgements; what it had been told."""
    process = subprocess.Popen([sys.executable, "-c", LOAD, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        writer_pid = int(output.readline().split()[1])
        told: dict[int, tuple[int, int]] = {}
        for n, line in enumerate(output):
            if n == acknowledged:
                os.kill(process.pid, signal.SIGKILL)
            if line.endswith(b"\n"):
                writer, count, revision = map(int, line.split())
                told[writer] = (count, revision)
    process.wait()
    return writer_pid, told


@pytest.mark.parametrize("acknowledged", [1, 50, 3000])
def test_kill_during_a_write_load_loses_no_acknowledged_write(tmp_path: Path, acknowledged: int) -> None:
    path = tmp_path / "store.db"
    writer_pid, told = _load_until(path, acknowledged)
    _wait_gone(writer_pid)

    async def check() -> None:
        store = await open_sqlite_store(path)
        for writer, (count, revision) in told.items():
            found = await store.get(b"k%d" % writer)
            assert found is not None
            # One more write may have reached the disk without its acknowledgement reaching anybody.
            assert (int(found.value), found.mod_revision) == (count, revision) or (
                int(found.value) == count + 1 and found.mod_revision > revision
            )
            assert found.version == int(found.value) + 1
        assert (await store.txn([], [Put(b"after", b"1")])).succeeded
        await store.close()

    uvloop.run(check())


def test_dead_writer_fails_pending_calls_and_the_file_opens_again(tmp_path: Path) -> None:
    async def check() -> None:
        store = await open_sqlite_store(tmp_path / "store.db")
        lost: list[Exception] = []
        store.watch(b"a", b"z", from_revision=2, on_events=lambda *_: None, on_lost=lost.append)
        assert (await store.txn([], [Put(b"a", b"1")])).succeeded
        os.kill(store.writer_pid, signal.SIGSTOP)  # the next write is sure to be pending when the writer dies
        pending = asyncio.gather(store.txn([], [Put(b"b", b"1")]), return_exceptions=True)
        await asyncio.sleep(0)
        os.kill(store.writer_pid, signal.SIGKILL)
        results = await pending
        assert [type(result) for result in results] == [StoreClosedError]
        assert "writer process has died" in str(results[0])
        with pytest.raises(StoreClosedError):
            await store.txn([], [Put(b"c", b"1")])
        assert [type(error) for error in lost] == [StoreClosedError]
        await store.close()
        again = await open_sqlite_store(tmp_path / "store.db")
        found = await again.get(b"a")
        assert found is not None
        assert found.value == b"1"
        await again.close()

    uvloop.run(check())


def test_writes_stay_quick_beside_a_busy_loop(tmp_path: Path) -> None:
    """The reason for a writer process: a thread would wait for the interpreter lock, for seconds."""

    async def check() -> None:
        store = await open_sqlite_store(tmp_path / "store.db")
        busy = True

        def burn() -> None:
            end = time.perf_counter() + 0.001
            while time.perf_counter() < end:
                pass
            if busy:
                asyncio.get_running_loop().call_soon(burn)

        burn()
        waits = []
        for i in range(100):
            start = time.perf_counter()
            await store.txn([], [Put(b"a", b"%d" % i)])
            waits.append(time.perf_counter() - start)
        busy = False
        assert sorted(waits)[50] < 0.1
        await store.close()

    with contextlib.closing(uvloop.new_event_loop()) as loop:
        loop.run_until_complete(check())
