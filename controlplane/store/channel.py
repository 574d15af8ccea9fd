"""The writer process as seen from the store: start it, send batches, hear its answers."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, cast

import msgspec

from controlplane.store.errors import StoreClosedError, StoreOpenError
from controlplane.store.wire import Answer, AnswerKind, Batch, FrameBuffer, frame

_EXIT_TIMEOUT_S: Final = 10.0


class ChannelOwner(Protocol):
    """What the writer's answers lead to. Called on the loop."""

    def on_acknowledged(self, seq: int) -> None:
        """Every batch up to `seq` is on disk."""
        ...

    def on_refused(self, epoch: int, reason: str) -> None:
        """The disk is full; nothing of `epoch` that is not acknowledged was stored, nor will be."""
        ...

    def on_writer_ended(self, reason: str) -> None:
        """The writer is gone. Called once."""
        ...


class WriterChannel(asyncio.Protocol):
    """One writer process. Batches go out in the order of `send`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._transport: asyncio.Transport | None = None
        self._frames = FrameBuffer()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Answer)
        self._owner: ChannelOwner | None = None
        self._reason = "the store's writer process has died"
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()

    @property
    def pid(self) -> int:
        """The writer's process id."""
        return self._process.pid

    async def wait_ready(self) -> None:
        """Until the writer has opened the file. Raises StoreOpenError."""
        await asyncio.shield(self._ready)

    def attach(self, owner: ChannelOwner) -> None:
        """From now on answers go to `owner`."""
        self._owner = owner

    def send(self, batch: Batch) -> None:
        """Hand a batch to the writer."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(frame(self._encoder.encode(batch)))

    async def close(self) -> None:
        """Let the writer finish what it has, and wait for its end."""
        self._owner = None
        if self._transport is not None:
            self._transport.close()
            await self._closed
        await asyncio.get_running_loop().run_in_executor(None, self._reap)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for payload in self._frames.feed(data):
            self._on_answer(self._decoder.decode(payload))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ready.done():
            self._ready.set_exception(StoreOpenError(self._reason))
        if self._owner is not None:
            self._owner.on_writer_ended(self._reason)
        self._closed.set_result(None)

    def _on_answer(self, answer: Answer) -> None:
        if answer.kind is AnswerKind.READY:
            self._ready.set_result(None)
        elif answer.kind is AnswerKind.FATAL:
            self._reason = f"the store's writer process gave up: {answer.text}"
        elif self._owner is None:
            return
        elif answer.kind is AnswerKind.ACK:
            self._owner.on_acknowledged(answer.number)
        else:
            self._owner.on_refused(answer.number, answer.text)

    def _reap(self) -> None:
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


async def start_writer(path: Path, lock_fd: int, quota_bytes: int) -> WriterChannel:
    """Start a writer for `path` and wait until it is ready. Raises StoreOpenError."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    with theirs:
        process = await loop.run_in_executor(None, _popen(path, theirs.fileno(), lock_fd, quota_bytes))
    _, channel = await loop.create_unix_connection(lambda: WriterChannel(process), sock=ours)
    try:
        await channel.wait_ready()
    except BaseException:
        await channel.close()
        raise
    return channel


def _popen(path: Path, socket_fd: int, lock_fd: int, quota_bytes: int) -> Callable[[], subprocess.Popen[bytes]]:
    argv = [
        sys.executable,
        "-m",
        "controlplane.store.writer",
        str(path),
        str(socket_fd),
        str(lock_fd),
        str(quota_bytes),
    ]
    # The writer must find the same code whatever directory this process was started in.
    source = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))}

    def start() -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(argv, pass_fds=(socket_fd, lock_fd), stdin=subprocess.DEVNULL, env=env)
        except OSError as exc:
            raise StoreClosedError(f"the store's writer process could not be started: {exc}") from exc

    return start
