"""Puts the processes of one proxy together: what the keeper forks, and with what."""

import socket

from sidecar.config import Bootstrap
from sidecar.program import Program, import_early, run_loop, run_reporting
from sidecar.serving import ServingConfig
from sidecar.worker_share import LineLock, WorkerShare
from sidecar.workers.control import GroupConfig, GroupControl
from sidecar.workers.keeper import KeeperConfig, keep
from sidecar.workers.worker import Worker, WorkerConfig


def run_workers(program: Program) -> int:
    """Run until SIGTERM. Returns the exit code."""
    import_early(program.source, program.worker_count)
    serving = ServingConfig(
        service=program.service,
        instance=str(program.identity.get("id", "")),
        max_connections=program.max_connections,
        workers=WorkerShare(count=program.worker_count, line_lock=LineLock()),
    )

    def control(keeper: socket.socket) -> int:
        return run_reporting(lambda: _run_control(program, keeper))

    def worker(index: int, channel: socket.socket) -> int:
        config = WorkerConfig(
            index=index,
            serving=serving,
            own=program.own,
            identity=program.identity,
            static=program.source.snapshot if isinstance(program.source, Bootstrap) else None,
            drain_timeout_s=program.ports.drain_timeout_s,
        )
        return run_reporting(lambda: _run_worker(config, channel))

    return keep(KeeperConfig(count=program.worker_count, control=control, worker=worker))


def _run_control(program: Program, keeper: socket.socket) -> int:
    config = GroupConfig(count=program.worker_count, ports=program.ports, identity=program.identity)
    run_loop(_control(config, program, keeper))
    return 0


async def _control(config: GroupConfig, program: Program, keeper: socket.socket) -> None:
    control = GroupControl(config, keeper)
    if isinstance(program.source, Bootstrap):
        await control.run_from_bootstrap(program.source)
    else:
        await control.run_in_mesh(program.source)


def _run_worker(config: WorkerConfig, channel: socket.socket) -> int:
    run_loop(_worker(config, channel))
    return 0


async def _worker(config: WorkerConfig, channel: socket.socket) -> None:
    await Worker(config, channel).run()
