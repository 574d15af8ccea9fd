"""Resident memory of a proxy that knows many clusters and has used all of them."""

from dataclasses import dataclass

from benchmarks.data_plane.cases import MemoryCase, Request, Setup
from benchmarks.data_plane.measure import ERRORS_ALLOWED, WindowError
from benchmarks.data_plane.peers import Peer, Site, running
from benchmarks.data_plane.progress import RunProgress
from benchmarks.data_plane.wrk import run_wrk, script

MEMORY_PEERS = ("meshwork", "envoy")
_CONNECTIONS = 32
_MAX_LOADS = 5
_ROUNDS_OF_CLUSTERS = 3
"""Every cluster serves at least this many requests, so each of its endpoints can have a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One peer."""

    idle_mib: float
    """Before the first request."""
    rss_mib: float
    """After the load, with its connections still open upstream."""
    start_s: float
    """From start to listening, with the configuration read."""
    requests: int


def measure_memory(site: Site, case: MemoryCase, seconds: int, progress: RunProgress) -> dict[str, Memory]:
    """Each peer on its own, one after the other. Raises WindowError."""
    setup = Setup(clusters=case.clusters)
    lua = site.folder / "memory.lua"
    lua.write_text(script(setup, Request()))
    found: dict[str, Memory] = {}
    for name in MEMORY_PEERS:
        progress.doing(f"{case.name} {name}")
        with running(site, setup, [name]) as peers:
            idle_mib = peers[name].rss_mib()
            requests = _use_all(site, peers[name], case, seconds)
            found[name] = Memory(
                idle_mib=idle_mib, rss_mib=peers[name].rss_mib(), start_s=peers[name].start_s, requests=requests
            )
    return found


def _use_all(site: Site, peer: Peer, case: MemoryCase, seconds: int) -> int:
    """Load until every cluster has served; a busy machine takes several goes."""
    requests = 0
    for _ in range(_MAX_LOADS):
        load = run_wrk(peer.port, "/", site.folder / "memory.lua", seconds, _CONNECTIONS, site.placement.load)
        peer.check_running()
        if load.errors > load.requests * ERRORS_ALLOWED:
            raise WindowError(f"{case.name}, {peer.name}: {load.errors} of {load.requests} requests failed")
        requests += load.requests
        if requests >= case.clusters * _ROUNDS_OF_CLUSTERS:
            return requests
    raise WindowError(f"{case.name}, {peer.name}: {requests} requests are too few for {case.clusters} clusters")
