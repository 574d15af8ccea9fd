"""The spawner's side of the protocol: forks children, reaps them, copies their output, remembers how they ended.

Single-threaded, without asyncio and small on purpose: it is the one process whose death ends containers. It lives longer
than agents, so it keeps no state that an agent could not read again. Bounds: `MAX_RECORDS` children, `MAX_CLIENTS`
connections, `_MAX_UNSENT` packets waiting for a slow client (then it is cut off and may connect again and list).
"""

import array
import contextlib
import errno
import logging
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import msgspec

from mesh.net import linux
from mesh.net.container_process import enter_container, kill_mount_namespace, mount_namespace_of
from mesh.net.errors import ContainerSetUpError, NetError
from mesh.net.log_pump import LogPump, LogWriter
from mesh.net.spawn import (
    LIST_PAGE,
    MAX_DESCRIPTORS,
    MAX_PACKET_BYTES,
    Descriptor,
    Done,
    Exited,
    Failed,
    Forget,
    List,
    Listing,
    Record,
    Reply,
    Request,
    Signal,
    Spawn,
    Spawned,
    encode,
    process_start_ticks,
    request_decoder,
)

logger = logging.getLogger(__name__)

MAX_RECORDS = 4096
MAX_CLIENTS = 16
_MAX_UNSENT = 4096
_PR_SET_CHILD_SUBREAPER = 36
_ERROR_BYTES = 4096

RunChild = Callable[[Spawn, int], NoReturn]
"""Runs in the child when it is set up: becomes the container. The descriptor reports trouble: what is written there fails
the spawn; it must be closed (execve does that) to report success."""


@dataclass(slots=True)
class _Child:
    record: Record
    is_ephemeral: bool = False
    is_started: bool = False
    pumps: list[LogPump] = field(default_factory=list)
    writer: LogWriter | None = None


@dataclass(slots=True, eq=False)
class _Client:
    connection: socket.socket
    unsent: deque[bytes] = field(default_factory=deque)


class SpawnServer:
    """Serves one socket until SIGTERM, then kills every child and returns."""

    def __init__(self, path: str, run_child: RunChild, *, keeps_code: bool) -> None:
        """Listen on `path` (mode 0600). Raises NetError when another spawner serves it, or it cannot be made.

        `keeps_code`: `run_child` does not execve, see `enter_container`.
        """
        self._path = path
        self._run_child = run_child
        self._keeps_code = keeps_code
        self._selector = selectors.DefaultSelector()
        self._children: dict[str, _Child] = {}
        self._by_pid: dict[int, _Child] = {}
        self._clients: set[_Client] = set()
        self._is_stopping = False
        self._listener = _listen(path)
        self._wake_receiver, self._wake_sender = socket.socketpair()
        for end in (self._wake_receiver, self._wake_sender):
            end.setblocking(False)

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT. Children are killed before this returns."""
        linux._check(linux._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        signal.set_wakeup_fd(self._wake_sender.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, self._woken)
        while not self._is_stopping:
            for key, events in self._selector.select():
                # An earlier callback of this round may have closed this one.
                if key.fd in self._selector.get_map():
                    key.data() if events & selectors.EVENT_READ else self._flush(key.fd)
        self._kill_all()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_receiver.recv(4096):
                pass
        self._reap()

    # Clients

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS or _peer_uid(connection) != os.geteuid():
            connection.close()
            return
        client = _Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(client))

    def _receive(self, client: _Client) -> None:
        try:
            data, descriptors, flags, _ = socket.recv_fds(client.connection, MAX_PACKET_BYTES + 1, MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors, flags = b"", [], 0
        if not data:
            self._drop(client)
            return
        try:
            self._send(client, self._answer(data, descriptors, is_cut=bool(flags & socket.MSG_TRUNC)))
        finally:
            for fd in descriptors:
                os.close(fd)

    def _answer(self, data: bytes, descriptors: list[int], *, is_cut: bool) -> Reply:
        if is_cut or len(data) > MAX_PACKET_BYTES:
            return Failed(error=f"the request is larger than {MAX_PACKET_BYTES} bytes: put large values into files")
        try:
            request = request_decoder.decode(data)
        except msgspec.DecodeError as exc:
            return Failed(error=f"the request is malformed: {exc}")
        try:
            return self._carry_out(request, descriptors)
        except (NetError, OSError) as exc:
            return Failed(serial=request.serial, error=str(exc))

    def _carry_out(self, request: Request, descriptors: list[int]) -> Reply:
        match request:
            case Spawn():
                return Spawned(serial=request.serial, record=self._spawn(request, descriptors))
            case List():
                ids = sorted(key for key, child in self._children.items() if key > request.after and child.is_started)
                records = tuple(self._children[key].record for key in ids[:LIST_PAGE])
                return Listing(serial=request.serial, records=records, more=len(ids) > LIST_PAGE)
            case Signal():
                self._signal(request)
            case Forget():
                child = self._children.get(request.id)
                if child is not None and child.record.exit_status is None:
                    return Failed(serial=request.serial, error=f"{request.id} still runs")
                self._children.pop(request.id, None)
        return Done(serial=request.serial)

    def _send(self, client: _Client, reply: Reply) -> None:
        if client not in self._clients:
            return
        client.unsent.append(encode(reply))
        self._flush(client.connection.fileno(), client)

    def _flush(self, fd: int, client: _Client | None = None) -> None:
        client = client or next(c for c in self._clients if c.connection.fileno() == fd)
        try:
            while client.unsent:
                client.connection.send(client.unsent[0])
                client.unsent.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if len(client.unsent) > _MAX_UNSENT:
            self._drop(client)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        key = self._selector.get_key(client.connection)
        if key.events != wanted:
            self._selector.modify(client.connection, wanted, key.data)

    def _drop(self, client: _Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.connection)
        client.connection.close()

    # Children

    def _spawn(self, request: Spawn, descriptors: list[int]) -> Record:
        if request.id in self._children:
            raise ContainerSetUpError(f"{request.id} exists already: forget it first")
        if len(self._children) >= MAX_RECORDS:
            raise ContainerSetUpError(f"{MAX_RECORDS} children are on record: forget some")
        if len(descriptors) != len(request.descriptors) or not (request.argv or self._keeps_code):
            raise ContainerSetUpError("a spawn needs an argv, and one descriptor for each name in descriptors")
        given = dict(zip(request.descriptors, descriptors, strict=True))
        child = _Child(Record(id=request.id, pid=0, start_ticks=0, started_at=time.time()))
        child.is_ephemeral = request.is_ephemeral
        ends = self._open_log(child, request, given)
        try:
            self._fork(child, request, given)
        except BaseException:
            self._close_log(child)
            raise
        finally:
            for fd in ends:
                os.close(fd)
        for pump in child.pumps:
            self._selector.register(pump.pipe, selectors.EVENT_READ, lambda pump=pump: self._pump(pump))
        return child.record

    @staticmethod
    def _open_log(child: _Child, request: Spawn, given: dict[Descriptor, int]) -> list[int]:
        """Make the pipes of a child with a log file; returns the writing ends, which the caller closes."""
        if request.log is None:
            return []
        child.writer = LogWriter(request.log)
        ends = []
        streams: tuple[Descriptor, ...] = ("stdout", "stderr")
        for name in streams:
            reading, given[name] = os.pipe2(os.O_CLOEXEC)
            ends.append(given[name])
            child.pumps.append(LogPump(reading, name, child.writer))
        return ends

    def _fork(self, child: _Child, request: Spawn, given: Mapping[Descriptor, int]) -> None:
        trouble, report = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_container(request, given, parent, report)
        os.close(report)
        try:
            # Blocks for the child's own set-up, 1-8 ms: containers of one node start one after the other.
            message = _read_all(trouble)
        finally:
            os.close(trouble)
        if message:
            os.waitpid(pid, 0)
            raise ContainerSetUpError(message.decode(errors="replace"))
        child.record = msgspec.structs.replace(
            child.record,
            pid=pid,
            start_ticks=process_start_ticks(pid),
            mount_namespace=0 if "mntns" in given else mount_namespace_of(pid),
        )
        child.is_started = True
        self._children[request.id] = child
        self._by_pid[pid] = child

    def _become_container(self, request: Spawn, given: Mapping[Descriptor, int], parent: int, report: int) -> NoReturn:
        code = 127
        try:
            enter_container(request, given, parent=parent, keeps_code=self._keeps_code)
            self._run_child(request, report)
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 1
        except BaseException as exc:
            code = 1
            _report(report, exc)
        finally:
            os._exit(code)

    def _pump(self, pump: LogPump) -> None:
        if not pump.pump():
            self._selector.unregister(pump.pipe)

    def _close_log(self, child: _Child) -> None:
        for pump in child.pumps:
            if pump.pipe in self._selector.get_map():
                self._selector.unregister(pump.pipe)
            pump.finish()
        child.pumps.clear()
        if child.writer is not None:
            child.writer.close()
            child.writer = None

    def _signal(self, request: Signal) -> None:
        child = self._children.get(request.id)
        if child is None or child.record.exit_status is not None:
            return
        if request.signal != signal.SIGKILL:
            os.kill(child.record.pid, request.signal)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.record.pid, signal.SIGKILL)
        if child.record.mount_namespace:
            kill_mount_namespace(child.record.mount_namespace)

    def _reap(self) -> None:
        """Record every child that has ended. Orphans of containers come here too and are only waited for."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (child := self._by_pid.pop(pid, None)) is not None:
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, exit_status: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.record.pid, signal.SIGKILL)
        if child.record.mount_namespace:
            kill_mount_namespace(child.record.mount_namespace)
        self._close_log(child)
        child.record = msgspec.structs.replace(child.record, exit_status=exit_status, finished_at=time.time())
        if child.is_ephemeral:
            self._children.pop(child.record.id, None)
        for client in tuple(self._clients):
            self._send(client, Exited(record=child.record))

    def _kill_all(self) -> None:
        for child in self._by_pid.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.record.pid, signal.SIGKILL)
            if child.record.mount_namespace:
                kill_mount_namespace(child.record.mount_namespace)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _remove_stale(path)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(MAX_CLIENTS)
        listener.setblocking(False)
    except OSError as exc:
        listener.close()
        raise NetError(f"spawner socket {path}: {exc.strerror}") from exc
    return listener


def _remove_stale(path: str) -> None:
    """Take away the socket of a spawner that has died. Raises NetError when it is alive."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(path)
        except OSError as exc:
            if exc.errno == errno.ECONNREFUSED:
                os.unlink(path)
            elif exc.errno != errno.ENOENT:
                raise
            return
    raise NetError(f"spawner socket {path}: another spawner serves it; stop that one first")


def _peer_uid(connection: socket.socket) -> int:
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(array.array("i", packed)[1])


def _read_all(fd: int) -> bytes:
    parts = bytearray()
    while len(parts) < _ERROR_BYTES and (data := os.read(fd, _ERROR_BYTES)):
        parts += data
    return bytes(parts)


def _report(fd: int, exc: BaseException) -> None:
    """Tell the parent why the container did not start; once it has started, tell the container's log."""
    message = str(exc) or type(exc).__name__
    try:
        os.write(fd, message.encode()[:_ERROR_BYTES])
    except OSError:
        sys.excepthook(type(exc), exc, exc.__traceback__)
