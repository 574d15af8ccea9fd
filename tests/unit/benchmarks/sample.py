"""Results of a run that never took place."""

from typing import Any

from benchmarks.data_plane.cases import CLOSED_LOOP, PEERS
from benchmarks.data_plane.measure import Window
from benchmarks.data_plane.memory import Memory
from benchmarks.data_plane.paced import DIRECT, PacedWindow
from benchmarks.data_plane.summary import summarise, summarise_memory, summarise_paced
from benchmarks.data_plane.workers import WorkerWindow, machine_limit, summarise_workers

CPU_US = {"meshwork": 15.0, "envoy": 30.0, "haproxy": 10.0, "nginx": 12.0}


def window(cpu_us: float, requests_per_s: float = 1000.0, **others: Any) -> Window:
    """A window of two seconds."""
    known = {
        "requests": int(requests_per_s * 2),
        "p50_ms": cpu_us / 30,
        "p99_ms": cpu_us / 10,
        "proxy_busy": 1.0,
        "upstream_busy": 0.3,
        "load_busy": 0.2,
        "foreign_busy": 0.01,
        "rss_mib": 40.0,
        "spans": int(requests_per_s * 2) // 100,
    }
    return Window(cpu_us=cpu_us, requests_per_s=requests_per_s, **{**known, **others})


def paced(p99_us: float) -> PacedWindow:
    return PacedWindow(
        p50_us=p99_us / 2, p99_us=p99_us, p999_us=p99_us * 2, max_us=p99_us * 3, rate_per_s=1000.0, cpu_us=20.0
    )


def worker_window(requests_per_s: float, busy: float, idle: float = 0.0) -> WorkerWindow:
    return WorkerWindow(
        requests_per_s=requests_per_s,
        cpu_us=300.0,
        by_worker=(busy / 2, busy / 2),
        proxy_busy=busy,
        upstream_busy=0.1,
        load_busy=0.1,
        idle=idle,
        foreign_busy=0.0,
    )


def cases() -> dict[str, Any]:
    """A record of every kind of case."""
    records: dict[str, Any] = {}
    for case in CLOSED_LOOP:
        peers = summarise(
            {peer: [window(us)] for peer, us in CPU_US.items()}, case.request.body_bytes, shares_core=True
        )
        about = {"title": case.title, "rounds": 1, "window_s": 2, "connections": case.connections}
        records[case.name] = {"kind": "closed_loop", **about, "body_bytes": case.request.body_bytes, "peers": peers}
    times = {DIRECT: 100.0, **{peer: 200.0 + us for peer, us in CPU_US.items()}}
    for name in ("latency/1000", "latency/10000"):
        rows = summarise_paced({peer: [paced(us)] for peer, us in times.items()})
        records[name] = {"kind": "paced", "title": name, "rounds": 1, "window_s": 3, "peers": rows}
    for name in ("memory/100", "memory/1000"):
        memory = {
            peer: Memory(idle_mib=30, rss_mib=mib, start_s=1, requests=9)
            for peer, mib in (("meshwork", 40), ("envoy", 80))
        }
        records[name] = {"kind": "memory", "title": name, "clusters": 100, "peers": summarise_memory(memory)}
    workers = summarise_workers({"meshwork": {1: [worker_window(1000, 1.0)], 2: [worker_window(1800, 1.9)]}})
    limit = machine_limit(workers["meshwork"]["workers"]["2"])
    about = {"title": "workers", "rounds": 1, "window_s": 2, "regex_routes": 9, "cores": 2}
    records["workers/scaling"] = {"kind": "workers", **about, "peers": workers, "machine_limit": limit}
    routes = {count: {"match_us": 1.0, "decode_and_compile_ms": 2.0} for count in ("1", "100", "10000")}
    records["matching/table"] = {"kind": "matching", "title": "matching", "routes": routes}
    assert set(CPU_US) == set(PEERS)
    return {name: {"command": "python -m benchmarks data_plane", **record} for name, record in records.items()}


FACTS: dict[str, Any] = {
    "command": "python -m benchmarks data_plane",
    "machine": {"cores": 2, "cpu": "CPU", "memory_gib": 8, "kernel": "6.1"},
    "versions": {"python": "3.11.7", "envoy": "1.40.0", "haproxy": "2.6.12-1", "nginx": "1.22.1"},
}
