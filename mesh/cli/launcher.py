"""The launcher behind `mesh up`: stays in the machine's own namespaces, opens the API's port, answers the port helper, and holds the
cluster's life in its hand: when the launcher ends, whatever way, the cluster ends.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.cli.errors import CommandError
from mesh.cli.home import HomeLock, last_api_port, prepare_home
from mesh.cli.readiness import Readiness, probe, remove_surplus_nodes
from mesh.net.port_helper import PortHelper
from mesh.net.tasks import cancel_and_wait, spawn

DEFAULT_API_PORT = 6443
_PORTS_TRIED = 100
_PROBE_PERIOD_S = 0.05
_STOP_GRACE_S = 10.0

Report = Callable[..., None]
"""report(event, **fields); must not block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """What `mesh up` was asked for."""

    home: Path
    """Absolute."""
    nodes: int = 1
    api_port: int | None = None
    """None: the one of last time, else the first free one from 6443 on."""
    ready_timeout_s: float = 120.0
    """Give up and stop everything when the cluster is not ready by then. Seconds, > 0."""
    upstream_dns: tuple[str, ...] = ()


def listen_for_api(options: LaunchOptions) -> socket.socket:
    """The API's socket on 127.0.0.1. Raises CommandError when no port is free."""
    if options.api_port is not None:
        ports = [options.api_port]
    else:
        ports = [*range(DEFAULT_API_PORT, DEFAULT_API_PORT + _PORTS_TRIED)]
        if (last := last_api_port(options.home)) is not None:
            ports.insert(0, last)
    reason = ""
    for port in ports:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(1024)
        except OSError as error:
            reason = error.strerror or str(error)
            listener.close()
            continue
        return listener
    raise CommandError(
        f"no API port on 127.0.0.1 ({ports[0]} to {ports[-1]}: {reason}): give a free one with --api-port"
    )


def machine_resolvers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """The machine's IPv4 name servers, at most three, as its own resolver would use them."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found = [words[1] for line in lines if len(words := line.split()) >= 2 and words[0] == "nameserver"]
    return tuple(address for address in found if ":" not in address)[:3]


class _Pipes:
    """The descriptors between launcher and cluster."""

    def __init__(self) -> None:
        self.lifeline_there, self.lifeline_here = os.pipe()
        self.progress_here, self.progress_there = os.pipe()

    def close_theirs(self) -> None:
        os.close(self.lifeline_there)
        os.close(self.progress_there)

    def close_ours(self) -> None:
        os.close(self.lifeline_here)


async def launch(options: LaunchOptions, report: Report, stop: asyncio.Event) -> int:
    """Run a cluster until `stop` is set or it ends by itself. Returns the exit code. Raises CommandError when it can't start.

    Reports: `starting`, what the cluster reports (`network`, `started`, `ended`, `stopping`), `api`, `nodes_removed`, `ready`, `failed`,
    `stopped`.
    """
    prepare_home(options.home)
    with HomeLock(options.home) as lock, listen_for_api(options) as listener:
        api_port = int(listener.getsockname()[1])
        lock.announce(api_port, options.nodes)
        report("starting", home=str(options.home), nodes=options.nodes, api_port=api_port)
        helper = PortHelper(options.home / "run" / "ports.sock")
        helper.start()
        try:
            return await _Launch(options, report, stop, api_port).run(listener)
        finally:
            helper.close()


class _Launch:
    """One run of a cluster."""

    def __init__(self, options: LaunchOptions, report: Report, stop: asyncio.Event, api_port: int) -> None:
        self._options = options
        self._report = report
        self._stop = stop
        self._api_port = api_port
        self._started_at = time.monotonic()
        self._started_wall = time.time()
        self._ends: Counter[str] = Counter()
        """How often each process has ended by itself."""

    async def run(self, listener: socket.socket) -> int:
        pipes = _Pipes()
        process = self._start(listener, pipes)
        pipes.close_theirs()
        listener.close()
        try:
            return await self._follow(process, pipes)
        finally:
            # Also on cancellation: the closed lifeline alone ends the cluster.
            pipes.close_ours()
            if process.poll() is None:
                process.kill()
                process.wait()

    def _start(self, listener: socket.socket, pipes: _Pipes) -> subprocess.Popen[bytes]:
        config = {
            "home": str(self._options.home),
            "nodes": self._options.nodes,
            "external_server": f"https://127.0.0.1:{self._api_port}",
            "api_fd": listener.fileno(),
            "lifeline_fd": pipes.lifeline_there,
            "progress_fd": pipes.progress_there,
            "upstream_dns": list(self._options.upstream_dns),
        }
        path = self._options.home / "run" / "cluster.json"
        path.write_text(json.dumps(config, indent=1))
        path.chmod(0o600)
        with (self._options.home / "logs" / "cluster.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "node.cluster", "--config", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(), pipes.lifeline_there, pipes.progress_there),
                # Ctrl-C is for the launcher alone: it ends the cluster in order.
                start_new_session=True,
            )

    async def _follow(self, process: subprocess.Popen[bytes], pipes: _Pipes) -> int:
        async with asyncio.TaskGroup() as tasks:
            progress = spawn(tasks, self._relay_progress(pipes.progress_here), name="progress")
            ended = spawn(tasks, _wait_ended(process.pid), name="cluster ended")
            readiness = spawn(tasks, self._wait_ready(), name="readiness")
            asked = spawn(tasks, self._stop.wait(), name="stop asked")
            exit_code = await self._outcome(ended, readiness, asked)
            await cancel_and_wait(readiness)
            await cancel_and_wait(asked)
            await self._end(process, ended)
            await progress
        self._report("stopped", seconds=self._elapsed_s())
        return exit_code

    async def _outcome(self, ended: asyncio.Task[None], readiness: asyncio.Task[bool], asked: asyncio.Task[Any]) -> int:
        await asyncio.wait([ended, readiness, asked], return_when=asyncio.FIRST_COMPLETED)
        if readiness.done() and not readiness.result():
            reason = f"not ready after {self._options.ready_timeout_s:.0f} s; {self._where_to_look()}"
            self._report("failed", reason=reason)
            return 1
        await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and not asked.done():
            self._report(
                "failed", reason=f"the cluster's process ended: {self._last_words('cluster') or self._where_to_look()}"
            )
            return 1
        return 0

    async def _end(self, process: subprocess.Popen[bytes], ended: asyncio.Task[None]) -> None:
        if not ended.done():
            process.send_signal(signal.SIGTERM)
            await asyncio.wait([ended], timeout=_STOP_GRACE_S)
        if not ended.done():
            process.kill()
            await ended
        process.wait()

    async def _wait_ready(self) -> bool:
        """True when the API and every node are ready; False when they were not in time."""
        wanted = {f"node-{index}" for index in range(1, self._options.nodes + 1)}
        is_api_reported = False
        while self._elapsed_s() < self._options.ready_timeout_s:
            seen = await asyncio.to_thread(self._probe)
            if seen.is_api_ready and not is_api_reported:
                is_api_reported = True
                self._report("api", seconds=self._elapsed_s())
            if seen.is_api_ready and wanted <= set(seen.ready_nodes):
                await self._remove_surplus(seen)
                kubeconfig = str(self._options.home / "kubeconfig")
                self._report("ready", seconds=self._elapsed_s(), kubeconfig=kubeconfig, nodes=len(wanted))
                return True
            await asyncio.sleep(_PROBE_PERIOD_S)
        return False

    async def _remove_surplus(self, seen: Readiness) -> None:
        home, nodes = self._options.home, self._options.nodes
        removed = await asyncio.to_thread(remove_surplus_nodes, home, self._api_port, seen.all_nodes, nodes)
        if removed:
            self._report("nodes_removed", nodes=list(removed), seconds=self._elapsed_s())

    def _probe(self) -> Readiness:
        # Before the first start's certificates exist there is nobody to ask.
        if not (self._options.home / "kubeconfig").exists():
            return Readiness(is_api_ready=False)
        return probe(self._options.home, self._api_port, self._started_wall)

    async def _relay_progress(self, fd: int) -> None:
        reader = asyncio.StreamReader(limit=1 << 16)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(fd, "rb"))
        with contextlib.closing(transport):
            while line := await reader.readline():
                with contextlib.suppress(ValueError):
                    self._relay(json.loads(line))

    def _relay(self, fields: dict[str, Any]) -> None:
        event = fields.pop("event")
        if event == "ended":
            self._ends[fields["name"]] += 1
        self._report(event, **fields, seconds=self._elapsed_s())

    def _elapsed_s(self) -> float:
        return round(time.monotonic() - self._started_at, 3)

    def _last_words(self, name: str) -> str:
        try:
            lines = (self._options.home / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1].removeprefix("node.cluster: ") if lines else ""

    def _where_to_look(self) -> str:
        """The process that ended most often and its last line, else the folder of the logs."""
        logs = self._options.home / "logs"
        if not self._ends:
            return f"look into {logs}"
        name, times = self._ends.most_common(1)[0]
        return f"{name} ended {times} times, last with: {self._last_words(name) or 'no words'} (see {logs / name}.log)"


async def _wait_ended(pid: int) -> None:
    """Until the process has ended; it is not reaped."""
    fd = os.pidfd_open(pid)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
