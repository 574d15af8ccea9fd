"""Mixed load for SOAK_SECONDS (3600): every answer right, memory and file descriptors flat."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from mesh.net.tasks import spawn
from tests.component import plane_harness
from tests.component.idle_clients import rss_kib
from tests.component.workers_harness import Sidecar, from_file
from tests.soak.load import Load, origin
from tests.soak.loop import run_for
from tests.soak.slope import growth

SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
WARM_UP = 0.3
"""Share of the time in which caches, pools and the heap find their size; at most 5 min."""
MAX_RSS_GROWTH_KIB = 2048
"""From the end of the warm-up to the end. A leak of 1 byte per request would show within the hour."""
MAX_FD_GROWTH = 8
_EXTENSIONS = "type.googleapis.com/envoy.extensions."
_LOG = {"@type": f"{_EXTENSIONS}access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 120)]


def test_memory_and_descriptors_stay_flat_under_mixed_load(tmp_path: Path) -> None:
    async def work() -> None:
        manager = {"access_log": [{"name": "log", "typed_config": _LOG}]}
        async with (
            plane_harness.origin(script=origin) as upstream,
            from_file(tmp_path, upstream.port, manager=manager, workers=1) as sidecar,
        ):
            pid = sidecar.process.pid
            at_rest = _descriptors(pid)
            load, found = Load(sidecar.listen), list[str]()
            async with asyncio.TaskGroup() as tasks:
                complaints = spawn(tasks, _read_complaints(sidecar, found), name="complaints")
                load.start(tasks)
                await asyncio.sleep(min(WARM_UP * SECONDS, 300))
                samples = await _sample(pid, SECONDS - min(WARM_UP * SECONDS, 300))
                load.stop()
                complaints.cancel()
            memory = growth([(at, kib) for at, kib, _ in samples])
            descriptors = growth([(at, count) for at, _, count in samples])
            print(f"{sum(load.seen.values())} rounds {dict(load.seen)}")
            print(
                f"RSS {samples[0][1]} -> {samples[-1][1]} KiB, trend {memory:+.0f} KiB; descriptors {descriptors:+.1f}"
            )
            assert load.wrong == []
            assert found == []
            assert load.seen["given up: upload"] < 0.2 * load.seen["upload"]  # a POST that was sent is not sent again
            assert load.seen["given up"] < 0.005 * sum(load.seen.values())
            assert memory <= MAX_RSS_GROWTH_KIB
            assert descriptors <= MAX_FD_GROWTH
            await sidecar.until(lambda: _none_open(sidecar))
            pooled = await sidecar.metric("envoy_cluster_upstream_cx_active")
            assert _descriptors(pid) <= at_rest + pooled + 2  # 2: this metrics request, the thread pool's

    run_for(work(), SECONDS + 100)


async def _read_complaints(sidecar: Sidecar, found: list[str]) -> None:
    """What the sidecar logs about its own faults. Reading also keeps the pipe from filling up."""
    assert sidecar.process.stderr is not None
    while line := await sidecar.process.stderr.readline():
        if b"Traceback" in line or b'"ERROR"' in line:
            found.append(line.decode(errors="replace")[:500])


async def _sample(pid: int, seconds: float) -> list[tuple[float, int, int]]:
    """(time, RSS in KiB, descriptors), 100 times."""
    samples: list[tuple[float, int, int]] = []
    for _ in range(100):
        samples.append((time.monotonic(), rss_kib(pid), _descriptors(pid)))
        await asyncio.sleep(seconds / 100)
    return samples


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def _none_open(sidecar: Sidecar) -> bool:
    return await sidecar.metric("meshwork_sidecar_downstream_connections") == 0
