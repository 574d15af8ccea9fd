"""The node's two spawners as one runtime: which runs what, joined again when a connection is lost."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mesh.backoff import Backoff
from mesh.net.errors import SpawnerGoneError
from mesh.net.spawn import Descriptor, LogFile, Record, Spawn
from mesh.net.spawn_client import SpawnClient, open_mount_namespace
from mesh.net.tasks import spawn

logger = logging.getLogger(__name__)

_RECONNECT = Backoff(base_s=0.05, cap_s=2.0, jitter=0.0)
_NAMES = {False: "exec spawner", True: "sidecar spawner"}
_MAX_OUTPUT_BYTES = 10 * 1024
"""What is kept of a probe's or hook's output. Source: kubelet maxProbeOutput."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command inside a container ended."""

    exit_code: int
    """-1 when it ran out of time; otherwise as a shell shows it."""
    output: bytes
    """stdout and stderr, cut at 10 KiB."""


class SpawnerLink:
    """The connection to one spawner, made again whenever it is lost."""

    def __init__(
        self, path: Path, on_exit: Callable[[Record], None], on_synced: Callable[[tuple[Record, ...]], None]
    ) -> None:
        """`on_synced` gets all records after each (re)connection, before later exits."""
        self._path = path
        self._on_exit = on_exit
        self._on_synced = on_synced
        self._client: SpawnClient | None = None
        self._connected = asyncio.Event()

    @property
    def client(self) -> SpawnClient:
        """The live connection. Raises SpawnerGoneError when there is none now."""
        if self._client is None or self._client.is_gone:
            raise SpawnerGoneError(f"the spawner at {self._path} is not connected; it is tried again")
        return self._client

    @property
    def is_connected(self) -> bool:
        """There is a live connection now."""
        return self._client is not None and not self._client.is_gone

    async def wait_connected(self) -> None:
        """Wait for the first connection."""
        await self._connected.wait()

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        tries = 0
        while True:
            try:
                await self._follow()
                tries = 0
            except SpawnerGoneError as exc:
                if tries == 0:
                    logger.info("waiting for a spawner", extra={"error": str(exc)})
            tries += 1
            await asyncio.sleep(_RECONNECT.ceiling_s(tries))

    async def _follow(self) -> None:
        client = await SpawnClient.connect(str(self._path), self._on_exit)
        try:
            records = await client.records()
            self._client = client
            self._on_synced(records)
            self._connected.set()
            await client.wait_gone()
            logger.warning("lost a spawner", extra={"socket": str(self._path)})
        finally:
            self._client = None
            client.close()


class ContainerRuntime:
    """Starts and ends containers through the spawners. `is_forked` says which one: sidecars are forked, apps executed."""

    def __init__(
        self,
        exec_socket: Path,
        sidecar_socket: Path,
        *,
        on_exit: Callable[[Record], None],
        on_synced: Callable[[bool, tuple[Record, ...]], None],
    ) -> None:
        """`on_synced(is_forked, records)` is called after each connection to a spawner."""
        self._links = {
            False: SpawnerLink(exec_socket, on_exit, lambda records: on_synced(False, records)),
            True: SpawnerLink(sidecar_socket, on_exit, lambda records: on_synced(True, records)),
        }
        self._commands: dict[str, asyncio.Future[Record]] = {}
        self._command_number = 0

    async def run(self) -> None:
        """Keep both connections until cancelled."""
        async with asyncio.TaskGroup() as group:
            for is_forked, link in self._links.items():
                spawn(group, link.run(), name=f"{_NAMES[is_forked]} link")

    def problem(self) -> str:
        """Why containers can't be started now; "" when they can."""
        missing = [name for is_forked, name in _NAMES.items() if not self._links[is_forked].is_connected]
        return f"not connected to the {' and the '.join(missing)}" if missing else ""

    async def wait_connected(self) -> None:
        """Wait for the exec spawner. The sidecar spawner imports more and may come later."""
        await self._links[False].wait_connected()

    async def start(self, request: Spawn, netns_path: str, *, is_forked: bool) -> Record:
        """Start a container in the network namespace bound to `netns_path`. Raises SpawnError, OSError for the namespace."""
        netns = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return await self._links[is_forked].client.spawn(request, {"netns": netns})
        finally:
            os.close(netns)

    async def signal(self, id_: str, number: int, *, is_forked: bool) -> None:
        """Send a signal; SIGKILL reaches all of the container's processes. Raises SpawnerGoneError."""
        await self._links[is_forked].client.signal(id_, number)

    async def forget(self, id_: str, *, is_forked: bool) -> None:
        """Drop the record of an ended container. Raises SpawnerGoneError."""
        await self._links[is_forked].client.forget(id_)

    def command_exited(self, record: Record) -> bool:
        """Take the exit of a command that `execute` waits for; False when it is not one."""
        future = self._commands.get(record.id)
        if future is None:
            return False
        if not future.done():
            future.set_result(record)
        return True

    async def execute(
        self,
        record: Record,
        netns_path: str,
        command: tuple[str, ...],
        *,
        env: dict[str, str],
        capabilities: tuple[str, ...],
        timeout_s: float,
    ) -> CommandResult:
        """Run a command inside a running container. Raises SpawnError when it cannot be started.

        It is killed after `timeout_s`, and when the caller is cancelled.
        """
        client = self._links[False].client
        self._command_number += 1
        id_ = f"exec:{record.id}:{os.getpid()}:{self._command_number}"
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._commands[id_] = future
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)
        output = _Output(reading)
        request = Spawn(id=id_, argv=command, env=env, capabilities=capabilities, is_ephemeral=True)
        try:
            try:
                await self._start_command(client, request, record, netns_path, writing)
            finally:
                os.close(writing)
            output.open()
            try:
                async with asyncio.timeout(timeout_s):
                    ended = await future
            except TimeoutError:
                return CommandResult(-1, output.read())
            status = ended.exit_status or 0
            return CommandResult(status if status >= 0 else 128 - status, output.read())
        finally:
            self._commands.pop(id_, None)
            output.close()
            if not future.done() or future.cancelled():
                with contextlib.suppress(SpawnerGoneError):
                    await asyncio.shield(client.signal(id_, signal.SIGKILL))

    @staticmethod
    async def _start_command(
        client: SpawnClient, request: Spawn, record: Record, netns_path: str, writing: int
    ) -> None:
        mntns = open_mount_namespace(record)
        try:
            netns = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                given: dict[Descriptor, int] = {"netns": netns, "mntns": mntns, "stdout": writing, "stderr": writing}
                await client.spawn(request, given)
            finally:
                os.close(netns)
        finally:
            os.close(mntns)


class _Output:
    """The first bytes of a command's output; the rest is read and dropped, so the command never blocks on it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_open = False
        self._data = bytearray()

    def open(self) -> None:
        self._is_open = True
        asyncio.get_running_loop().add_reader(self._fd, self._drain)

    def _drain(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self._stop()
        self._data += data[: _MAX_OUTPUT_BYTES - len(self._data)]

    def read(self) -> bytes:
        if self._is_open:
            self._drain()
        return bytes(self._data)

    def _stop(self) -> None:
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._fd)

    def close(self) -> None:
        self._stop()
        os.close(self._fd)


def log_file(path: Path, *, max_bytes: int, max_files: int) -> LogFile:
    """The log of one run of a container; its directory is made. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return LogFile(path=str(path), max_bytes=max_bytes, max_files=max_files)
