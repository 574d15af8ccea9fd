"""The agent's side of the spawner protocol, on asyncio."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping

import msgspec

from mesh.net.errors import SpawnerGoneError, SpawnError
from mesh.net.spawn import (
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
    reply_decoder,
)

_MAX_REPLY_BYTES = 1 << 20


class SpawnClient:
    """One connection to a spawner. Requests may be made at the same time from many tasks.

    Once the connection is lost every call raises SpawnerGoneError: make a new client and list again.
    """

    def __init__(self, connection: socket.socket, on_exit: Callable[[Record], None]) -> None:
        """Use `connect`. `on_exit` is called on the loop for each child that ends while connected."""
        self._connection = connection
        self._on_exit = on_exit
        self._serial = 0
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._gone = asyncio.Event()
        self._sending = asyncio.Lock()

    @classmethod
    async def connect(cls, path: str, on_exit: Callable[[Record], None]) -> "SpawnClient":
        """Connect to the spawner at `path`. Raises SpawnerGoneError when nobody serves it."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            connection.connect(path)
        except OSError as exc:
            connection.close()
            raise SpawnerGoneError(f"spawner {path}: {exc.strerror}; is it running?") from exc
        client = cls(connection, on_exit)
        asyncio.get_running_loop().add_reader(connection, client._receive)
        return client

    def close(self) -> None:
        """Close the connection; the spawner and its children go on. Waiting calls raise SpawnerGoneError."""
        if self._gone.is_set():
            return
        self._gone.set()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._connection)
        self._connection.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SpawnerGoneError("the spawner's connection was lost"))
        self._waiting.clear()

    @property
    def is_gone(self) -> bool:
        """The connection has ended."""
        return self._gone.is_set()

    async def wait_gone(self) -> None:
        """Return when the connection has ended."""
        await self._gone.wait()

    async def spawn(self, request: Spawn, descriptors: Mapping[Descriptor, int] | None = None) -> Record:
        """Start a child; returns when its program runs. `descriptors` stay the caller's. Raises SpawnError."""
        given = descriptors or {}
        named = msgspec.structs.replace(request, descriptors=tuple(given))
        reply = await self._call(named, list(given.values()))
        assert isinstance(reply, Spawned)
        return reply.record

    async def records(self) -> tuple[Record, ...]:
        """Every record the spawner keeps, by id."""
        records: list[Record] = []
        more = True
        while more:
            reply = await self._call(List(after=records[-1].id if records else ""))
            assert isinstance(reply, Listing)
            records.extend(reply.records)
            more = reply.more
        return tuple(records)

    async def signal(self, id_: str, number: int) -> None:
        """Send a signal to a child; one that has ended is left alone."""
        reply = await self._call(Signal(id=id_, signal=number))
        assert isinstance(reply, Done)

    async def forget(self, id_: str) -> None:
        """Drop the record of a child that has ended. Raises SpawnError when it still runs."""
        reply = await self._call(Forget(id=id_))
        assert isinstance(reply, Done)

    async def _call(self, request: Request, descriptors: list[int] | None = None) -> Reply:
        self._serial += 1
        serial = self._serial
        data = encode(msgspec.structs.replace(request, serial=serial))
        if len(data) > MAX_PACKET_BYTES:
            raise SpawnError(f"command and environment take {len(data)} bytes, at most {MAX_PACKET_BYTES} fit")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[serial] = future
        try:
            await self._send(data, descriptors or [])
            reply = await future
        finally:
            self._waiting.pop(serial, None)
        if isinstance(reply, Failed):
            raise SpawnError(reply.error)
        return reply

    async def _send(self, data: bytes, descriptors: list[int]) -> None:
        async with self._sending:
            while not self._gone.is_set():
                try:
                    socket.send_fds(self._connection, [data], descriptors)
                except BlockingIOError:
                    await self._writable()
                except OSError as exc:
                    self.close()
                    raise SpawnerGoneError(f"the spawner's connection was lost: {exc.strerror}") from exc
                else:
                    return
            raise SpawnerGoneError("the spawner's connection was lost")

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._connection, _resolve, ready)
        try:
            await ready
        finally:
            if not self._gone.is_set():
                loop.remove_writer(self._connection)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while not self._gone.is_set():
                try:
                    data = self._connection.recv(_MAX_REPLY_BYTES)
                except BlockingIOError:
                    raise
                except OSError:
                    data = b""
                if not data:
                    self.close()
                    return
                self._dispatch(reply_decoder.decode(data))

    def _dispatch(self, reply: Reply) -> None:
        if isinstance(reply, Exited):
            self._on_exit(reply.record)
        elif (future := self._waiting.get(reply.serial)) is not None and not future.done():
            future.set_result(reply)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def open_mount_namespace(record: Record) -> int:
    """A descriptor of the mount namespace of a running child, for a Spawn with `mntns`. Raises SpawnError."""
    try:
        fd = os.open(f"/proc/{record.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise SpawnError(f"{record.id} has ended") from exc
    if process_start_ticks(record.pid) != record.start_ticks:
        os.close(fd)
        raise SpawnError(f"{record.id} has ended")
    return fd
