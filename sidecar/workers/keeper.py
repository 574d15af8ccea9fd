"""The process that was started: forks the control process and the workers, starts workers again, passes SIGTERM on.

Single-threaded and without a loop, so that a fork is safe at any time. Ends with the control process's exit code.
"""

import gc
import logging
import os
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

import msgspec

from sidecar.workers.keeper_messages import ENCODER, FROM_CONTROL, MAX_PACKET_BYTES, Ended, Kill, Started, Stopping
from sidecar.workers.restarts import RestartPlan

logger: Final = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LAST_WAIT_S: Final = 2.0
"""For workers that have drained to end, once the control process has."""

RunControl = Callable[[socket.socket], int]
"""Run the control process with its end of the keeper's channel; returns the exit code."""
RunWorker = Callable[[int, socket.socket], int]
"""Run the worker with this index and its end of its channel; returns the exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperConfig:
    """What to keep running."""

    count: int
    """Workers, >= 2."""
    control: RunControl
    worker: RunWorker


def keep(config: KeeperConfig) -> int:
    """Run everything until the control process ends. Returns its exit code."""
    keeper = _Keeper(config)
    try:
        return keeper.run()
    finally:
        keeper.close()


class _Keeper:
    def __init__(self, config: KeeperConfig) -> None:
        self._config = config
        self._plan = RestartPlan(config.count, random.Random())
        self._is_stopping = False
        self._has_control = True
        self._poll = select.poll()
        self._exit_code: int | None = None
        self._wake, self._wake_sender = socket.socketpair()
        self._wake.setblocking(False)
        self._wake_sender.setblocking(False)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        gc.collect()
        gc.freeze()
        self._control_pid = self._fork(lambda: config.control(theirs), ())
        theirs.close()
        signal.set_wakeup_fd(self._wake_sender.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _SIGNALS:
            signal.signal(number, self._on_stop)

    def run(self) -> int:
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(self._channel, select.POLLIN)
        while self._exit_code is None:
            if not self._is_stopping:
                for index in self._plan.due(time.monotonic()):
                    self._start(index)
            self._poll.poll(self._timeout_ms())
            self._read_wake()
            self._read_channel()
            self._reap()
        self._end_workers()
        return self._exit_code

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        for sock in (self._wake, self._wake_sender, self._channel):
            sock.close()

    def _timeout_ms(self) -> float | None:
        due = self._plan.next_due()
        return None if due is None or self._is_stopping else max(0.0, due - time.monotonic()) * 1000 + 1

    def _fork(self, run: Callable[[], int], not_its: Iterable[socket.socket]) -> int:
        """`not_its`: sockets that the fork lets go of, beside the keeper's own; whoever reads their other end waits for it."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _be(run, (*not_its, self._channel, self._wake, self._wake_sender))
        return pid

    def _start(self, index: int) -> None:
        ours, theirs = socket.socketpair()

        try:
            pid = self._fork(lambda: self._config.worker(index, theirs), (ours,))
        except OSError as exc:
            ours.close()
            delay_s = self._plan.on_not_started(index, time.monotonic())
            logger.error(
                "a worker can't be started",
                extra={"worker": index, "error": exc.strerror, "retry_in_s": round(delay_s, 2)},
            )
            return
        finally:
            theirs.close()
        self._plan.on_started(index, pid, time.monotonic())
        with ours:
            self._tell(Started(index, pid), [ours.fileno()])

    def _tell(self, message: Started | Ended, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._channel, [ENCODER.encode(message)], descriptors)
        except OSError as exc:
            # Its end shows soon; a worker whose channel nobody holds ends by itself.
            logger.warning("the control process was not told", extra={"error": exc.strerror})

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._is_stopping = True
        _kill(self._control_pid, signal.SIGTERM)

    def _read_wake(self) -> None:
        try:
            while self._wake.recv(512):
                pass
        except BlockingIOError:
            pass

    def _read_channel(self) -> None:
        while self._has_control:
            try:
                packet = self._channel.recv(MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._has_control = False
                self._poll.unregister(self._channel)
                return
            self._obey(packet)

    def _obey(self, packet: bytes) -> None:
        try:
            asked = FROM_CONTROL.decode(packet)
        except msgspec.MsgspecError as exc:
            logger.error("what the control process says can't be read", extra={"error": str(exc)})
            return
        match asked:
            case Stopping():
                self._is_stopping = True
            case Kill(index, pid):
                if self._plan.pid_of(index) == pid:
                    _kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._read_channel()  # whether it was told to end
            code = os.waitstatus_to_exitcode(status)
            if pid == self._control_pid:
                is_early_end = self._is_stopping and code == -signal.SIGTERM  # before it had its own handler
                self._exit_code = 0 if is_early_end else code if code >= 0 else 1
                if code < 0 and not is_early_end:
                    logger.error("the control process was killed", extra={"signal": signal.Signals(-code).name})
            else:
                self._on_worker_ended(pid, code)

    def _on_worker_ended(self, pid: int, code: int) -> None:
        found = self._plan.on_ended(pid, time.monotonic())
        if found is None or self._is_stopping:
            return
        index, delay_s = found
        how = {"signal": signal.Signals(-code).name} if code < 0 else {"exit_code": code}
        logger.error(
            "a worker ended and is started again",
            extra={"worker": index, "pid": pid, **how, "restart_in_s": round(delay_s, 2)},
        )
        self._tell(Ended(index, pid), [])

    def _end_workers(self) -> None:
        """The control process has ended, and with it the workers' channels: they drain and end."""
        deadline = time.monotonic() + _LAST_WAIT_S
        self._is_stopping = True
        while self._plan.pids and (left_s := deadline - time.monotonic()) > 0:
            select.select([self._wake], [], [], left_s)
            self._read_wake()
            self._reap()
        for pid in self._plan.pids:
            _kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _be(run: Callable[[], int], not_its: Iterable[socket.socket]) -> NoReturn:
    """What a fork does, to its end: it never returns into the keeper's code."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for sock in not_its:
            sock.close()
        for number in (*_SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        code = run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
