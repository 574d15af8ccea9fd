"""Two workers against one: throughput, and what saturates.

A request must be dear for the proxy and cheap for load generator and upstream, or on a small machine those are the limit: so each
request is tried against regular expressions before its route is found.
"""

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.data_plane.cases import WORKERS, Request, Setup
from benchmarks.data_plane.machine import ROOT
from benchmarks.data_plane.measure import ERRORS_ALLOWED, WARM_UP_S, Meter, Pace, WindowError
from benchmarks.data_plane.peers import Peer, Site, running
from benchmarks.data_plane.progress import RunProgress
from benchmarks.data_plane.wrk import path, run_wrk, script

WORKER_PEERS = ("meshwork", "envoy")
COUNTS = (1, 2)
SETUP = Setup(regex_routes=300)
CONNECTIONS = 64
_WORKER_SHARE = 0.05
"""A thread with less than this share of the CPU time is no worker."""
_IDLE_ENOUGH = 0.1
"""Cores' worth of idle time from which the machine was not full."""
_WORKERS_FULL = 1.85
"""Cores' worth of CPU time from which two workers were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerWindow:
    """One peer with a number of workers in one round."""

    requests_per_s: float
    cpu_us: float
    by_worker: tuple[float, ...]
    """Cores' worth of CPU time of each worker, the busiest first."""
    proxy_busy: float
    upstream_busy: float
    load_busy: float
    idle: float
    """Cores' worth of idle time, of all cores."""
    foreign_busy: float
    """Other programs."""


def has_concurrency() -> bool:
    """Whether this sidecar knows --concurrency."""
    command = [sys.executable, "-m", "sidecar", "--help"]
    return "--concurrency" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def measure_workers(site: Site, pace: Pace, progress: RunProgress) -> dict[str, dict[int, list[WorkerWindow]]]:
    """Every peer with one and two workers, alternating. Without --concurrency, ours is missing. Raises WindowError."""
    names = [name for name in WORKER_PEERS if name != "meshwork" or has_concurrency()]
    (site.folder / "workers.lua").write_text(script(SETUP, Request()))
    windows: dict[str, dict[int, list[WorkerWindow]]] = {name: {count: [] for count in COUNTS} for name in names}
    for name in names:
        with running(site, SETUP, [name], 1) as one, running(site, SETUP, [name], 2) as two:
            peers = {1: one[name], 2: two[name]}
            for number in range(pace.rounds + 1):
                for count, peer in peers.items():
                    progress.doing(f"{WORKERS} {name} x{count} round {number}/{pace.rounds}")
                    window = _window(site, peer, pace.seconds if number else WARM_UP_S)
                    if number:
                        windows[name][count].append(window)
    return windows


def _window(site: Site, peer: Peer, seconds: int) -> WorkerWindow:
    meter, threads = Meter(site, peer), peer.cpu_s_by_thread()
    lua = site.folder / "workers.lua"
    load = run_wrk(peer.port, path(Request()), lua, seconds, CONNECTIONS, site.placement.load)
    used = meter.read()
    by_thread = {thread: now - threads.get(thread, 0.0) for thread, now in peer.cpu_s_by_thread().items()}
    peer.check_running()
    if not load.requests or load.errors > load.requests * ERRORS_ALLOWED:
        raise WindowError(f"{WORKERS}, {peer.name}: {load.errors} of {load.requests} requests failed")
    workers = sorted((s / load.seconds for s in by_thread.values() if s > used.proxy_s * _WORKER_SHARE), reverse=True)
    return WorkerWindow(
        requests_per_s=load.requests_per_s,
        cpu_us=used.proxy_s / load.requests * 1e6,
        by_worker=tuple(workers),
        proxy_busy=used.proxy_s / load.seconds,
        upstream_busy=used.upstream_s / load.seconds,
        load_busy=(load.cpu_s + used.own_s) / load.seconds,
        idle=used.idle_s / used.wall_s,
        foreign_busy=used.foreign_s / used.wall_s,
    )


def summarise_workers(windows: Mapping[str, Mapping[int, Sequence[WorkerWindow]]]) -> dict[str, Any]:
    """Medians for each number of workers; the ratio of throughputs of the same round; CPU per request of one over that of two."""
    rows: dict[str, Any] = {}
    for name, by_count in windows.items():
        pairs = list(zip(by_count[1], by_count[2], strict=True))
        rows[name] = {
            "speed_up": round(statistics.median(two.requests_per_s / one.requests_per_s for one, two in pairs), 3),
            "cpu_efficiency": round(statistics.median(one.cpu_us / two.cpu_us for one, two in pairs), 3),
            "workers": {str(count): _medians(own) for count, own in by_count.items()},
        }
    return rows


def _medians(windows: Sequence[WorkerWindow]) -> dict[str, Any]:
    fields = ("requests_per_s", "cpu_us", "proxy_busy", "upstream_busy", "load_busy", "idle", "foreign_busy")
    row: dict[str, Any] = {name: round(statistics.median(getattr(w, name) for w in windows), 3) for name in fields}
    row["by_worker"] = [round(share, 2) for share in windows[len(windows) // 2].by_worker]
    return row


def machine_limit(two_workers: Mapping[str, Any]) -> str:
    """Says so when the cores were full before the workers were; empty otherwise."""
    if two_workers["idle"] > _IDLE_ENOUGH or two_workers["proxy_busy"] >= _WORKERS_FULL:
        return ""
    return (
        f"the machine was full: workers {two_workers['proxy_busy']:.2f} cores, upstream {two_workers['upstream_busy']:.2f}, "
        f"load generator {two_workers['load_busy']:.2f}"
    )
