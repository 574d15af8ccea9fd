"""PID 1 of a cluster: sets the network up, supervises, reaps orphans, and ends everything in order.

One thread and one selector loop: it starts processes in other network namespaces, which only a single-threaded process may do.
"""

import contextlib
import fcntl
import json
import os
import random
import selectors
import signal
import time

from node.cluster.children import CONTROL_PLANE, children_of, write_configs
from node.cluster.config import ClusterConfig
from node.cluster.errors import ClusterError
from node.cluster.layout import node_layouts
from node.cluster.links import set_up_links
from node.cluster.logs import cut_long_logs
from node.cluster.shutdown import descendants, end_processes, processes
from node.cluster.supervision import Supervisor

PODS_GRACE_S = 2.0
CONTROL_PLANE_GRACE_S = 4.0
_LOG_CHECK_S = 60.0


class ClusterInit:
    """The life of PID 1. Build it inside the new namespaces."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = _with_private_descriptors(config)
        self._is_stopping = False
        self._selector = selectors.DefaultSelector()
        self._supervisor = Supervisor(children_of(self._config), self._report, random.Random())

    def run(self) -> int:
        """Until a signal or the end of the launcher. Returns the exit status. Raises ClusterError when it can't start."""
        self._watch_signals()
        nodes = node_layouts(self._config)
        set_up_links(nodes)
        self._report("network", nodes=[node.name for node in nodes])
        try:
            write_configs(self._config)
        except OSError as error:
            raise ClusterError(f"{error.filename}: {error.strerror}") from error
        self._supervise()
        self._shut_down()
        return 0

    def _watch_signals(self) -> None:
        wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._selector.register(wake_reader, selectors.EVENT_READ)
        if self._config.lifeline_fd is not None:
            self._selector.register(self._config.lifeline_fd, selectors.EVENT_READ)

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._is_stopping = True

    def _supervise(self) -> None:
        next_log_check = time.monotonic() + _LOG_CHECK_S
        while not self._is_stopping:
            wait_s = self._supervisor.start_due(time.monotonic())
            until_log_check = max(0.0, next_log_check - time.monotonic())
            for key, _events in self._selector.select(
                until_log_check if wait_s is None else min(wait_s, until_log_check)
            ):
                self._on_readable(key.fd)
            self._reap()
            if time.monotonic() >= next_log_check:
                next_log_check = time.monotonic() + _LOG_CHECK_S
                cut_long_logs(self._config.home / "logs")

    def _on_readable(self, fd: int) -> None:
        if fd == self._config.lifeline_fd:
            # Nothing is ever written to it: this is its end, and the launcher is gone.
            self._is_stopping = True
            self._selector.unregister(fd)
        else:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 4096)

    def _reap(self) -> None:
        """Collect every ended process: our children and the orphans PID 1 inherits."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._supervisor.ended(pid, os.waitstatus_to_exitcode(status), time.monotonic())

    def _shut_down(self) -> None:
        """Everything but the control plane first, so that its store is the last to close."""
        self._report("stopping")
        self._supervisor.stop()
        end_processes(self._all_but_control_plane, self._reap, grace_s=PODS_GRACE_S)
        end_processes(lambda: set(processes()), self._reap, grace_s=CONTROL_PLANE_GRACE_S)

    def _all_but_control_plane(self) -> set[int]:
        parents = processes()
        root = self._supervisor.pids().get(CONTROL_PLANE)
        return set(parents) - (descendants([root], parents) if root else set())

    def _report(self, event: str, **fields: object) -> None:
        if self._config.progress_fd is not None:
            line = json.dumps({"event": event, **fields}) + "\n"
            # Full or closed: the launcher is slow or gone, and progress is not worth waiting for.
            with contextlib.suppress(OSError):
                os.write(self._config.progress_fd, line.encode())


def _with_private_descriptors(config: ClusterConfig) -> ClusterConfig:
    """The same with each descriptor moved above 10 and closed on exec, so that none reaches a child by accident."""
    moved: dict[str, object] = {}
    for field in ("api_fd", "lifeline_fd", "progress_fd"):
        fd = getattr(config, field)
        if fd is not None:
            moved[field] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
            os.close(fd)
    progress_fd = moved.get("progress_fd")
    if isinstance(progress_fd, int):
        os.set_blocking(progress_fd, False)
    return _replaced(config, moved)


def _replaced(config: ClusterConfig, changes: dict[str, object]) -> ClusterConfig:
    values = {name: getattr(config, name) for name in ClusterConfig.__struct_fields__}
    return ClusterConfig(**{**values, **changes})
