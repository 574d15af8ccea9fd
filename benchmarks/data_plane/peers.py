"""Proxies and upstream as running processes."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.data_plane.cases import Setup
from benchmarks.data_plane.envoy_file import bootstrap
from benchmarks.data_plane.haproxy_file import haproxy_files
from benchmarks.data_plane.machine import ROOT, Placement, envoy_binary
from benchmarks.data_plane.nginx_file import nginx_peer, nginx_upstream, write_bodies
from benchmarks.data_plane.processes import Pinned, free_ports
from benchmarks.data_plane.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a run takes place: its folder, cores, upstream and collector."""

    folder: Path
    placement: Placement
    upstream: Pinned
    stable: tuple[int, int]
    canary: int
    collector: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One kind of proxy, running: one process family for each hop."""

    name: str
    port: int
    """Where requests go in."""
    processes: tuple[Pinned, ...]
    services: tuple[str, ...] = field(default=())
    """Service names in its spans."""
    start_s: float = 0.0
    """From start to listening, the slowest hop."""

    def cpu_s(self) -> float:
        return sum(process.cpu_s() for process in self.processes)

    def cpu_s_by_thread(self) -> dict[int, float]:
        return {thread: used for process in self.processes for thread, used in process.cpu_s_by_thread().items()}

    def rss_mib(self) -> float:
        return sum(process.rss_kib() for process in self.processes) / 1024

    def check_running(self) -> None:
        """Raises RuntimeError when a process has ended."""
        for process in self.processes:
            if not process.is_running:
                raise RuntimeError(f"{process.name} has ended:\n{process.output()}")


@contextmanager
def open_site(folder: Path, placement: Placement, collector: int) -> Iterator[Site]:
    """Start the upstream: three ports of one nginx."""
    first, second, canary = free_ports(3)
    folder.chmod(0o755)  # started as root, nginx serves the bodies as another user
    write_bodies(folder)
    config = folder / "upstream.conf"
    config.write_text(nginx_upstream((first, second, canary), folder))
    upstream = Pinned("upstream", ["nginx", "-p", str(folder), "-c", str(config)], placement.upstream, folder, ROOT)
    try:
        upstream.wait_for(canary)
        yield Site(
            folder=folder,
            placement=placement,
            upstream=upstream,
            stable=(first, second),
            canary=canary,
            collector=collector,
        )
    finally:
        upstream.stop()


@contextmanager
def running(site: Site, setup: Setup, names: Sequence[str], workers: int | None = None) -> Iterator[dict[str, Peer]]:
    """Start these peers; all of them listen inside. `workers`: worker processes or threads of each, where it is not one."""
    with ExitStack() as stack:
        peers: dict[str, Peer] = {}
        for name in names:
            hops: list[Pinned] = []
            target, start_s = None, 0.0
            for hop in range(setup.hops, 0, -1):  # the last first: the one before it names its port
                target = _target(site, setup, name, hop, target)
                process = _start(site, target, name, hop, workers)
                stack.callback(process.stop)
                start_s = max(start_s, process.wait_for(target.listen))
                hops.insert(0, process)
            assert target is not None, "a set-up has one hop or more"
            services = tuple(f"{name}-{hop}" for hop in range(1, setup.hops + 1))
            peers[name] = Peer(name=name, port=target.listen, processes=tuple(hops), services=services, start_s=start_s)
        yield peers


def _target(site: Site, setup: Setup, name: str, hop: int, behind: Target | None) -> Target:
    (port,) = free_ports(1)
    service = f"{name}-{hop}"
    if behind is not None:
        next_hop = (behind.listen,)
        return Target(
            setup=setup, listen=port, stable=next_hop, canary=next_hop, collector=site.collector, service=service
        )
    return Target(
        setup=setup,
        listen=port,
        stable=site.stable,
        canary=(site.canary,),
        collector=site.collector,
        is_resilient=hop == 1,
        service=service,
    )


def _start(site: Site, target: Target, name: str, hop: int, workers: int | None) -> Pinned:
    folder = site.folder / f"{name}-{hop}-{target.listen}"
    folder.mkdir()
    command = _command(target, name, folder, workers)
    return Pinned(f"{name}-{hop}", command, site.placement.proxy, folder, ROOT)


def _command(target: Target, name: str, folder: Path, workers: int | None) -> list[str]:
    """Write the peer's files; what to start it with."""
    match name:
        case "meshwork":
            file = folder / "meshwork.json"
            file.write_text(bootstrap(target))
            several = [] if workers is None else ["--concurrency", str(workers)]
            return [sys.executable, "-m", "sidecar", "--config", str(file), "--log-level", "warning", *several]
        case "envoy":
            file = folder / "envoy.json"
            file.write_text(bootstrap(target))
            several = ["--concurrency", str(workers or 1)]
            return [str(envoy_binary()), "-c", str(file), *several, "--disable-hot-restart", "--log-level", "warning"]
        case "haproxy":
            for file_name, text in haproxy_files(target, folder).items():
                (folder / file_name).write_text(text)
            return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]
        case "nginx":
            (folder / "nginx.conf").write_text(nginx_peer(target, folder))
            return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        case _:
            raise ValueError(f'no peer called "{name}"')
