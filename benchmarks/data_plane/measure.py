"""Windows: one peer under load for a few seconds; the peers take turns, so that each round sees one state of the machine."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data_plane.cases import Case
from benchmarks.data_plane.peers import Peer, Site
from benchmarks.data_plane.processes import core_times, others_s
from benchmarks.data_plane.progress import RunProgress
from benchmarks.data_plane.wrk import path, run_wrk, script

WARM_UP_S = 1
ERRORS_ALLOWED = 0.001
"""Share of requests that may fail in a window, such as those cut off when it ends."""


class WindowError(Exception):
    """A window that cannot be used. Says which, and what was wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one peer did in one round."""

    requests: int
    requests_per_s: float
    cpu_us: float
    """CPU time of all processes of the peer for one request, user and system."""
    p50_ms: float
    p99_ms: float
    proxy_busy: float
    """Cores' worth of CPU time: 1.0 is one core all the time."""
    upstream_busy: float
    load_busy: float
    """Load generator, span sink and this program."""
    foreign_busy: float
    """Programs that are no part of this. Above a few hundredths, figures are worth little."""
    rss_mib: float
    spans: int = 0
    """That reached the collector in the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long and how often."""

    rounds: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """CPU time between two moments, seconds."""

    wall_s: float
    proxy_s: float
    upstream_s: float
    own_s: float
    """Of this program, span sink included."""
    idle_s: float
    """Of all cores in use."""
    foreign_s: float
    """Of other programs, and of other virtual machines on these cores."""


class Meter:
    """CPU time of the parties from now on."""

    def __init__(self, site: Site, peer: Peer) -> None:
        self._site, self._peer = site, peer
        self._wall_s = time.monotonic()
        self._cores, self._others_s = core_times(site.placement.all), others_s()
        self._own_s = time.process_time()
        self._upstream_s = site.upstream.cpu_s()
        self._proxy_s = peer.cpu_s()

    def read(self) -> Used:
        """What was used since it was made."""
        cores = core_times(self._site.placement.all)
        return Used(
            proxy_s=self._peer.cpu_s() - self._proxy_s,
            upstream_s=self._site.upstream.cpu_s() - self._upstream_s,
            own_s=time.process_time() - self._own_s,
            idle_s=cores.idle_s - self._cores.idle_s,
            foreign_s=max(0.0, others_s() - self._others_s) + cores.stolen_s - self._cores.stolen_s,
            wall_s=time.monotonic() - self._wall_s,
        )


def measure_case(
    site: Site, peers: Mapping[str, Peer], case: Case, pace: Pace, spans: Mapping[str, int], progress: RunProgress
) -> dict[str, list[Window]]:
    """`pace.rounds` windows of every peer, alternating. Raises WindowError."""
    lua = site.folder / "case.lua"
    lua.write_text(script(case.setup, case.request))
    for name, peer in peers.items():
        progress.doing(f"{case.name} {name} warms up")
        run_wrk(peer.port, path(case.request), lua, WARM_UP_S, case.connections, site.placement.load)
    windows: dict[str, list[Window]] = {name: [] for name in peers}
    for number in range(1, pace.rounds + 1):
        for name, peer in peers.items():
            progress.doing(f"{case.name} {name} round {number}/{pace.rounds}")
            windows[name].append(_window(site, peer, case, lua, pace.seconds, spans))
    return windows


def _window(site: Site, peer: Peer, case: Case, lua: Path, seconds: int, spans: Mapping[str, int]) -> Window:
    meter = Meter(site, peer)
    spans_before = sum(spans.get(service, 0) for service in peer.services)
    load = run_wrk(peer.port, path(case.request), lua, seconds, case.connections, site.placement.load)
    used = meter.read()
    peer.check_running()
    if not load.requests:
        raise WindowError(f"{case.name}, {peer.name}: no request was answered in {load.seconds:.1f} s")
    if load.errors > load.requests * ERRORS_ALLOWED:
        raise WindowError(f"{case.name}, {peer.name}: {load.errors} of {load.requests} requests failed")
    return Window(
        requests=load.requests,
        requests_per_s=load.requests_per_s,
        cpu_us=used.proxy_s / load.requests * 1e6,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        proxy_busy=used.proxy_s / load.seconds,
        upstream_busy=used.upstream_s / load.seconds,
        load_busy=(load.cpu_s + used.own_s) / load.seconds,
        foreign_busy=used.foreign_s / used.wall_s,
        rss_mib=peer.rss_mib(),
        spans=sum(spans.get(service, 0) for service in peer.services) - spans_before,
    )
