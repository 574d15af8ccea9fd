"""Many client connections that do nothing, and what they cost the sidecar."""

import asyncio
import re
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tests.component.workers_harness import Sidecar

MAX_KIB_PER_IDLE_CONNECTION = 6.0
"""RSS of the sidecar, for a connection that has been accepted and has not sent anything."""
_REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one connection."""

    idle_kib: float
    """Accepted."""
    used_kib: float
    """After it has sent a request and had its response."""


class _Client(asyncio.Protocol):
    __slots__ = ("_waiting", "is_lost", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.is_lost = False
        self._waiting: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    async def ask(self) -> bytes:
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(_REQUEST)
        return await asyncio.wait_for(self._waiting, 20)


def rss_kib(pid: int) -> int:
    """Resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def allow_descriptors(count: int) -> None:
    """For this test's own ends of the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= count, f"the limit of file descriptors is {hard}, this test needs {count}: raise it (ulimit -Hn)"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


async def hold(sidecar: Sidecar, count: int) -> Cost:
    """Open `count` connections, see that all are held, then that each answers a request. Returns what they cost."""
    loop = asyncio.get_running_loop()
    assert (await _once(sidecar)).startswith(b"HTTP/1.1 200")  # makes what is made on first use
    before = rss_kib(sidecar.process.pid)
    clients: list[_Client] = []
    try:
        while len(clients) < count:
            batch = min(_AT_ONCE, count - len(clients))
            made = await asyncio.gather(
                *(loop.create_connection(_Client, "127.0.0.1", sidecar.listen) for _ in range(batch))
            )
            clients += [client for _, client in made]
        await sidecar.until(lambda: _are_open(sidecar, count))
        idle = rss_kib(sidecar.process.pid)
        for begin in range(0, count, _AT_ONCE):
            answers = await asyncio.gather(*(client.ask() for client in clients[begin : begin + _AT_ONCE]))
            assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        assert not any(client.is_lost for client in clients)
        assert await sidecar.metric("meshwork_sidecar_downstream_connections") == count
        return Cost((idle - before) / count, (rss_kib(sidecar.process.pid) - before) / count)
    finally:
        for client in clients:
            client.transport.close()


async def _once(sidecar: Sidecar) -> bytes:
    _, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", sidecar.listen)
    try:
        return await client.ask()
    finally:
        client.transport.close()


async def _are_open(sidecar: Sidecar, count: int) -> bool:
    return await sidecar.metric("meshwork_sidecar_downstream_connections") == count
