"""Durable compare-and-swap writes of 1 KB: our store against a real etcd on the same disk, alternating in one run.

Prints a table with the ratios and writes docs/benchmarks/store.json. Usage: python -m benchmarks store [--seconds 2] [--rounds 3]
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.etcd_server import EtcdServer, etcd_version
from controlplane.store.protocol import Compare, Put
from controlplane.store.sqlite import SqliteStore, open_sqlite_store

RESULT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "store.json"
WRITERS = (1, 16, 256)
VALUE = os.urandom(512).hex().encode()
GOAL_AT_16 = 4.0

CasPut = Callable[[bytes, int], Awaitable[int]]
"""(key, expected mod_revision) -> new mod_revision"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One load: what the writers of one system got done. Times in milliseconds."""

    system: str
    writers: int
    per_second: float
    p50_ms: float
    p99_ms: float


async def load(system: str, cas_put: CasPut, writers: int, seconds: float) -> Round:
    """Every writer swaps its own key as often as it can."""
    waits: list[float] = []
    end = time.perf_counter() + seconds

    async def write(key: bytes) -> None:
        revision = 0
        while (start := time.perf_counter()) < end:
            revision = await cas_put(key, revision)
            waits.append(time.perf_counter() - start)

    start = time.perf_counter()
    mark = time.monotonic_ns()
    await asyncio.gather(*(write(b"/bench/%d/%d" % (mark, i)) for i in range(writers)))
    elapsed = time.perf_counter() - start
    waits.sort()
    return Round(
        system=system,
        writers=writers,
        per_second=len(waits) / elapsed,
        p50_ms=waits[len(waits) // 2] * 1e3,
        p99_ms=waits[int(len(waits) * 0.99)] * 1e3,
    )


def store_put(store: SqliteStore) -> CasPut:
    """CAS through our store."""

    async def cas_put(key: bytes, revision: int) -> int:
        result = await store.txn([Compare(key, revision)], [Put(key, VALUE)])
        if not result.succeeded:
            raise RuntimeError(f"the store lost revision {revision} of {key!r}")
        return result.revision

    return cas_put


@asynccontextmanager
async def _systems(folder: Path) -> Any:
    async with EtcdServer(folder / "etcd") as etcd:
        store = await open_sqlite_store(folder / "store.db")
        try:
            yield {"meshwork": store_put(store), "etcd": lambda key, revision: etcd.cas_put(key, revision, VALUE)}
        finally:
            await store.close()


async def measure(folder: Path, seconds: float, rounds: int) -> list[Round]:
    """All rounds, the systems taking turns."""
    done: list[Round] = []
    async with _systems(folder) as systems:
        for name, cas_put in systems.items():
            await load(name, cas_put, 4, 0.3)  # warm up
        for writers in WRITERS:
            for _ in range(rounds):
                for name, cas_put in systems.items():
                    done.append(await load(name, cas_put, writers, seconds))
    return done


def summarise(rounds: list[Round]) -> list[dict[str, Any]]:
    """The medians of both systems, and their ratio, for each number of writers."""
    rows: list[dict[str, Any]] = []
    for writers in sorted({one.writers for one in rounds}):
        row: dict[str, Any] = {"writers": writers}
        for system in ("meshwork", "etcd"):
            own = [one for one in rounds if (one.system, one.writers) == (system, writers)]
            row[system] = {
                name: round(statistics.median(getattr(one, name) for one in own), 3)
                for name in ("per_second", "p50_ms", "p99_ms")
            }
        row["ratio"] = round(row["meshwork"]["per_second"] / row["etcd"]["per_second"], 2)
        rows.append(row)
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    """The table for people."""
    print(f"{'writers':>7}  {'meshwork /s (p50/p99 ms)':>28}  {'etcd Txn /s (p50/p99 ms)':>28}  {'ratio':>6}")
    for row in rows:
        cells = [
            f"{row[name]['per_second']:>10,.0f} ({row[name]['p50_ms']:.2f}/{row[name]['p99_ms']:.2f})"
            for name in ("meshwork", "etcd")
        ]
        print(f"{row['writers']:>7}  {cells[0]:>28}  {cells[1]:>28}  {row['ratio']:>5.1f}x")


def main(arguments: list[str]) -> int:
    """Measure, print, write. Exit code 0 also when the goal is missed: the table says so."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks store", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each system per number of writers")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on the disk to measure; not a tmpfs")
    options = parser.parse_args(arguments)
    if shutil.which("etcd") is None:
        print("etcd is missing: install Debian's etcd-server (make setup as root does)", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="mesh-store-bench-", dir=options.folder))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rounds = runner.run(measure(folder, options.seconds, options.rounds))
    except (RuntimeError, subprocess.SubprocessError) as exc:
        print(f"store benchmark failed: {exc}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    rows = summarise(rounds)
    print_table(rows)
    at_16 = next(row["ratio"] for row in rows if row["writers"] == 16)
    print(
        f"goal at 16 writers: >= {GOAL_AT_16:g}x etcd, measured {at_16:.1f}x: {'met' if at_16 >= GOAL_AT_16 else 'MISSED'}"
    )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "value_bytes": len(VALUE),
        "seconds": options.seconds,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "etcd": etcd_version(),
        "goal_ratio_at_16_writers": GOAL_AT_16,
    }
    RESULT.write_text(json.dumps({**facts, "table": rows, "rounds": [asdict(one) for one in rounds]}, indent=1) + "\n")
    return 0
