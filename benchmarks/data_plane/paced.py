"""Latency at a fixed rate: h2load sends on time whatever the answers do, and what a proxy adds is the difference to no proxy.

Each connection sends at its own even pace and they start a millisecond apart, so requests are spread out. A connection whose
answer takes longer than its turn sends the next request late and hides the wait; a window where that can have mattered is marked.
"""

import dataclasses
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data_plane.cases import PacedCase
from benchmarks.data_plane.measure import Meter, Pace, WindowError
from benchmarks.data_plane.peers import Peer, Site
from benchmarks.data_plane.processes import on_cores
from benchmarks.data_plane.progress import RunProgress

DIRECT = "direct"
QUANTILES = {"p50_us": 0.50, "p99_us": 0.99, "p999_us": 0.999}
_SETTLE_S = 0.5
"""The beginning of a window, in which connections are made, is left out."""
_TAIL_S = 0.05
"""So is the end, when the connections that began first are through."""
_RATE_TOLERANCE = 0.02
_HEADERS = ("accept: application/json", "user-agent: shop-frontend/1.4.2", "x-tenant: default", "x-client: bench")
_LATE_ALLOWED = 0.0005
"""Share of answers that may take longer than their connection's turn: few enough to leave p99.9 alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedWindow:
    """Response times of one window, in microseconds."""

    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    rate_per_s: float
    cpu_us: float = 0.0
    """Of the proxy, for one request; 0 without one."""
    is_paced: bool = True
    """Requests left at the rate asked for, and hardly any waited for the one before it on its connection."""


def parse_log(lines: Sequence[str], case: PacedCase, seconds: int) -> PacedWindow:
    """Read h2load's log: start (us since the epoch), status, response time (us). Raises WindowError when requests failed."""
    rows = sorted(
        (int(start), int(status), int(took)) for start, status, took in (line.split("\t")[:3] for line in lines)
    )
    if not rows:
        raise WindowError(f"{case.name}: h2load logged no request")
    failed = sum(1 for _, status, _ in rows if not 200 <= status < 400)
    if failed:
        raise WindowError(f"{case.name}: {failed} of {len(rows)} requests failed")
    begin = rows[0][0]
    kept = [row for row in rows if begin + _SETTLE_S * 1e6 <= row[0] < begin + (seconds - _TAIL_S) * 1e6]
    if len(kept) < 2:
        raise WindowError(f"{case.name}: nothing left between the first {_SETTLE_S} s and the last {_TAIL_S} s")
    rate = (len(kept) - 1) / (kept[-1][0] - kept[0][0]) * 1e6
    times = sorted(took for _, _, took in kept)
    turn_us = case.connections / case.rate_per_s * 1e6
    late = sum(1 for took in times if took >= turn_us)
    return PacedWindow(
        **{name: float(times[min(int(len(times) * share), len(times) - 1)]) for name, share in QUANTILES.items()},
        max_us=float(times[-1]),
        rate_per_s=rate,
        is_paced=abs(rate / case.rate_per_s - 1) <= _RATE_TOLERANCE and late <= _LATE_ALLOWED * len(times),
    )


def run_h2load(port: int, case: PacedCase, seconds: int, log: Path, cores: Sequence[int]) -> PacedWindow:
    """One window against 127.0.0.1:port. Raises RuntimeError when h2load fails, WindowError when requests do."""
    each, rest = divmod(case.rate_per_s, case.connections)
    if rest:
        raise ValueError(
            f"{case.name}: {case.rate_per_s} req/s can't be shared evenly by {case.connections} connections"
        )
    log.unlink(missing_ok=True)
    command = [*on_cores(cores), "h2load", "--h1", "-t1", f"-c{case.connections}", f"-n{case.rate_per_s * seconds}"]
    command += ["-r1", "--rate-period=1ms", f"--rps={each}", f"--log-file={log}"]
    command += [word for header in _HEADERS for word in ("-H", header)]
    command.append(f"http://127.0.0.1:{port}/orders")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds * 4 + 30)
    if done.returncode:
        raise RuntimeError(f"h2load: {done.stderr or done.stdout}")
    return parse_log(log.read_text().splitlines(), case, seconds)


def measure_paced(
    site: Site, peers: Mapping[str, Peer], case: PacedCase, pace: Pace, progress: RunProgress
) -> dict[str, list[PacedWindow]]:
    """`pace.rounds` windows without a proxy and through each peer, alternating. Raises WindowError."""
    log = site.folder / "h2load.log"
    windows: dict[str, list[PacedWindow]] = {name: [] for name in (DIRECT, *peers)}
    for number in range(pace.rounds + 1):
        for name in windows:
            progress.doing(f"{case.name} {name} round {number}/{pace.rounds}")
            window = _window(site, peers.get(name), case, pace.seconds if number else 1, log)
            if number:  # round 0 warms up
                windows[name].append(window)
    return windows


def _window(site: Site, peer: Peer | None, case: PacedCase, seconds: int, log: Path) -> PacedWindow:
    if peer is None:
        return run_h2load(site.stable[0], case, seconds, log, site.placement.load)
    meter = Meter(site, peer)
    window = run_h2load(peer.port, case, seconds, log, site.placement.load)
    peer.check_running()
    return dataclasses.replace(window, cpu_us=meter.read().proxy_s / (case.rate_per_s * seconds) * 1e6)
