"""One HTTP hop through our sidecar, Envoy, HAProxy and nginx, configured alike, in one run.

CPU per request is that of the proxy process (user + system, from /proc) over windows of at least 2 s, alternating between the proxies;
the figures are medians. The proxy has one core, load generator and upstream share another. Prints a table, writes
docs/benchmarks/one_hop.json and one_hop.png. Usage: python -m benchmarks one_hop [--rounds 3 --seconds 3]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import one_hop_config as config
from benchmarks.one_hop_plot import draw
from benchmarks.one_hop_process import Load, Pinned, free_ports, run_wrk

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "benchmarks" / "one_hop.json"
CONNECTIONS = 32
GOAL_RATIO = 0.9
"""Our CPU per request over Envoy's, at most."""


@dataclass(frozen=True, slots=True)
class Window:
    """One measurement of one proxy."""

    load: Load
    cpu_us: float


def envoy_binary() -> Path:
    """Real Envoy from its own virtual environment (see tools/setup.sh). Raises FileNotFoundError."""
    found = sorted((ROOT / ".envoy").glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise FileNotFoundError("no Envoy in .envoy: run `make setup-bench`")
    return found[0]


def start_all(ports: config.Ports, folder: Path, core: int | None, load_core: int | None) -> dict[str, Pinned]:
    """Every proxy and the upstream; all of them listen when this returns."""
    files = {
        "upstream.conf": config.upstream_nginx(ports, str(folder)),
        "envoy.yaml": config.envoy_bootstrap(ports, ports.envoy),
        "meshwork.yaml": config.envoy_bootstrap(ports, ports.meshwork),
        "haproxy.cfg": config.haproxy(ports),
        "nginx.conf": config.nginx(ports, str(folder)),
        "same.lua": config.WRK_SAME,
        "unique.lua": config.WRK_UNIQUE,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    own = [sys.executable, "-m", "sidecar", "--config", str(folder / "meshwork.yaml"), "--log-level", "warning"]
    envoy = [str(envoy_binary()), "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart"]
    commands: list[tuple[str, list[str], int | None, int]] = [
        ("upstream", ["nginx", "-p", str(folder), "-c", str(folder / "upstream.conf")], load_core, ports.canary),
        ("meshwork", own, core, ports.meshwork),
        ("envoy", [*envoy, "--log-level", "warning"], core, ports.envoy),
        ("haproxy", ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], core, ports.haproxy),
        ("nginx", ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], core, ports.nginx),
    ]
    started: dict[str, Pinned] = {}
    try:
        for name, command, where, port in commands:
            started[name] = Pinned(name, command, where, folder, ROOT)
            started[name].wait_for(port)
    except BaseException:
        stop_all(started)
        raise
    return started


def stop_all(processes: dict[str, Pinned]) -> None:
    for process in processes.values():
        process.stop()


PROXIES = ("meshwork", "envoy", "haproxy", "nginx")
LOADS = {"same headers": ("same.lua", "/orders"), "unique headers": ("unique.lua", "/unique")}


def measure(
    processes: dict[str, Pinned],
    ports: config.Ports,
    folder: Path,
    arguments: argparse.Namespace,
    load_core: int | None,
) -> dict[str, dict[str, list[Window]]]:
    """`rounds` windows of every proxy under every load, alternating."""
    windows: dict[str, dict[str, list[Window]]] = {load: {proxy: [] for proxy in PROXIES} for load in LOADS}
    for round_number in range(arguments.rounds + 1):
        for load, (script, path) in LOADS.items():
            for proxy in PROXIES:
                seconds = arguments.seconds if round_number else 1
                before = processes[proxy].cpu_s()
                seen = run_wrk(getattr(ports, proxy), path, folder / script, seconds, CONNECTIONS, load_core)
                used = processes[proxy].cpu_s() - before
                if seen.errors:
                    raise RuntimeError(f"{proxy}: {seen.errors} of {seen.requests} requests failed")
                if round_number:  # round 0 warms up
                    windows[load][proxy].append(Window(seen, used / seen.requests * 1e6))
                    print(f"  {load}, {proxy}: {windows[load][proxy][-1].cpu_us:.1f} us", flush=True)
    return windows


def summarise(
    windows: dict[str, dict[str, list[Window]]], processes: dict[str, Pinned]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Medians, and ratios to Envoy in the same round."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for load, by_proxy in windows.items():
        result[load] = {}
        for proxy, own in by_proxy.items():
            ratios = [mine.cpu_us / other.cpu_us for mine, other in zip(own, by_proxy["envoy"], strict=True)]
            result[load][proxy] = {
                "cpu_us": round(statistics.median(w.cpu_us for w in own), 2),
                "cpu_ratio_to_envoy": round(statistics.median(ratios), 3),
                "requests_per_s": round(statistics.median(w.load.requests_per_s for w in own)),
                "p50_ms": round(statistics.median(w.load.p50_ms for w in own), 3),
                "p99_ms": round(statistics.median(w.load.p99_ms for w in own), 3),
                "cpu_us_windows": [round(w.cpu_us, 2) for w in own],
                "rss_mib": round(processes[proxy].rss_kib() / 1024, 1),
            }
    return result


def print_table(result: dict[str, dict[str, dict[str, Any]]]) -> None:
    print(
        f"\n{'load':<16}{'proxy':<10}{'CPU us/req':>11}{'x Envoy':>9}{'req/s':>9}{'p50 ms':>8}{'p99 ms':>8}{'RSS MiB':>9}"
    )
    for load, by_proxy in result.items():
        for proxy, row in by_proxy.items():
            print(
                f"{load:<16}{proxy:<10}{row['cpu_us']:>11.1f}{row['cpu_ratio_to_envoy']:>9.2f}{row['requests_per_s']:>9}"
                f"{row['p50_ms']:>8.2f}{row['p99_ms']:>8.2f}{row['rss_mib']:>9.1f}"
            )


def version(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    first = lines[0].strip() if lines else ""
    return first.removeprefix(command[0]).strip()  # Envoy begins with the path of its binary


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write. 1 when the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks one_hop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="windows per proxy and load (default 3)")
    parser.add_argument("--seconds", type=int, default=3, help="length of a window, at least 2 (default 3)")
    options = parser.parse_args(arguments)
    if options.seconds < 2 or options.rounds < 1:
        parser.error("--seconds must be >= 2 (shorter windows lie) and --rounds >= 1")
    cores = sorted(os.sched_getaffinity(0))
    core, load_core = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    numbers = free_ports(7)
    ports = config.Ports(
        stable=(numbers[0], numbers[1]), canary=numbers[2], meshwork=numbers[3], envoy=numbers[4], haproxy=numbers[5],
        nginx=numbers[6],
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mesh-one-hop-") as name:
        folder = Path(name)
        processes = start_all(ports, folder, core, load_core)
        try:
            result = summarise(measure(processes, ports, folder, options, load_core), processes)
        finally:
            stop_all(processes)
    print_table(result)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(_document(result, options, len(cores)), indent=2) + "\n")
    draw(result, PROXIES, RESULT.with_suffix(".png"))
    worst = max(by_proxy["meshwork"]["cpu_ratio_to_envoy"] for by_proxy in result.values())
    print(f"\nour CPU per request is at most {worst:.2f} x Envoy's (goal <= {GOAL_RATIO})")
    return 0 if worst <= GOAL_RATIO else 1


def _document(result: dict[str, dict[str, dict[str, Any]]], options: argparse.Namespace, cores: int) -> dict[str, Any]:
    return {
        "what": "one HTTP/1.1 hop, 90/10 split, 2 retries, outlier detection; wrk, 61-byte body",
        "connections": CONNECTIONS,
        "rounds": options.rounds,
        "window_s": options.seconds,
        "machine": {"cores": cores, "kernel": platform.release(), "python": platform.python_version()},
        "versions": {
            "envoy": version(str(envoy_binary()), "--version"),
            "haproxy": version("haproxy", "-v"),
            "nginx": version("nginx", "-v"),
        },
        "differences": config.DIFFERENCES,
        "goal_ratio": GOAL_RATIO,
        "loads": result,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
