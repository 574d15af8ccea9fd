"""The load: many clients at once for some time, then everything is compared with everything."""

import asyncio
import contextlib
import itertools
import socket
from collections import Counter, defaultdict
from typing import Any

from tests.component.faults.clients import Client, Tally
from tests.component.faults.proxy import Proxy
from tests.component.faults.table import BROKEN, FAULTS, GOOD, Ending
from tests.component.faults.upstreams import Upstreams

_serial = itertools.count()
_ABANDONED = frozenset({"DC", "SI"})
"""One of these says that it was the client."""


async def run_load(proxy: Proxy, *, seed: str, clients: int, seconds: float) -> Tally:
    """All scenes at once."""
    tally = Tally()
    until = asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as tasks:
        for n in range(clients):
            tasks.create_task(Client(f"{seed}{n}", proxy.port, tally).run(until))
    return tally


async def never_read(proxy: Proxy, *, clients: int, size: int) -> int:
    """Ask for large responses and don't read. Returns the largest memory in KiB."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for n in range(clients):
            sock = stack.enter_context(contextlib.closing(socket.socket()))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)  # what waits is to wait in the proxy
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", proxy.port))
            await loop.sock_sendall(sock, b"GET /deaf/large/deaf-%d/%d HTTP/1.1\r\nhost: a\r\n\r\n" % (n, size))
        proxy.peak_kb = 0
        async with asyncio.timeout(30):
            while await proxy.total("envoy_cluster_upstream_rq_active"):
                await asyncio.sleep(0.1)
    return proxy.peak_kb


async def upload_to_nobody(proxy: Proxy, *, clients: int, size: int) -> int:
    """Send large bodies as fast as they are taken to a server that reads nothing. Returns the largest memory in KiB."""
    loop = asyncio.get_running_loop()
    proxy.peak_kb = 0

    async def upload() -> None:
        with contextlib.closing(socket.socket()) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", proxy.port))
            head = b"POST /long/sink/up-%d/1 HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (next(_serial), size)
            with contextlib.suppress(OSError):
                await loop.sock_sendall(sock, head)
                for _ in range(0, size, 65536):
                    await loop.sock_sendall(sock, bytes(65536))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(upload())
    return proxy.peak_kb


async def settle(proxy: Proxy, descriptors: int) -> None:
    """Wait until nothing is left: no request, no connection, no descriptor more than before."""
    async with asyncio.timeout(15):
        while True:
            stats = await proxy.stats()
            busy = {
                name: value
                for name, value in stats.items()
                if value
                and name.partition("{")[0]
                in (
                    "envoy_cluster_upstream_rq_active",
                    "envoy_cluster_upstream_rq_pending_active",
                    "envoy_cluster_upstream_cx_active",
                    "meshwork_sidecar_downstream_connections",
                )
            }
            if not busy and proxy.descriptors() <= descriptors:
                return
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                raise AssertionError(
                    f"left over: {busy}, {proxy.descriptors()} descriptors, {descriptors} before"
                ) from None


def _fault_of(record: dict[str, Any]) -> tuple[str, str]:
    """(fault, token) of an access log record; the fault is empty for what never was a request of ours."""
    parts = str(record["path"]).split("/")
    return (parts[-3], parts[-2]) if len(parts) >= 4 else ("", "")


async def compare(
    proxy: Proxy, up: Upstreams, tally: Tally, before: Counter[Ending] | None = None
) -> dict[str, Counter[Ending]]:
    """What clients saw, what the log says and what the counters say must be the same story. Returns endings by fault.

    `before`: what the counters said when the log was empty.
    """
    records = await proxy.records()
    details = {_fault_of(record)[1]: record["response_code_details"] for record in records}
    assert not tally.wrong, [(one, details.get(one.partition(":")[0].rpartition("/")[2])) for one in tally.wrong[:10]]
    assert not up.wrong, up.wrong[:10]
    assert not proxy.complaints, proxy.complaints[:10]
    endings: defaultdict[str, Counter[Ending]] = defaultdict(Counter)
    logged: Counter[str] = Counter()
    problems: list[str] = []
    for record in records:
        fault, token = _fault_of(record)
        ending = (int(record["response_code"]), str(record["response_flags"]))
        logged[token] += 1
        endings[fault][ending] += 1
        if token == "bad-chunk":  # a client's
            assert ending == (400, "DPE"), record
            continue
        if fault not in FAULTS:
            continue
        if token in tally.abandoned:
            if ending not in FAULTS[fault].endings and not _ABANDONED & set(ending[1].split(",")):
                problems.append(f"{record['path']}, given up by its client: {ending}")
            continue
        seen = tally.settled.get(token)
        allowed = FAULTS[fault].endings | ({GOOD} if "/retried/" in record["path"] else set())
        if record["method"] == "POST" and allowed == {GOOD}:
            allowed |= {(503, "UC")}  # the race of every kept connection; see the scene of unsafe requests
        if ending not in allowed:
            problems.append(f"{record['path']}: {ending} with {record['response_code_details']!r}")
        if seen is not None and seen != (BROKEN if seen == BROKEN else ending[0]):
            problems.append(f"{record['path']}: the client saw {seen}, the log says {ending}")
        if seen == BROKEN and ending[1] == "-":
            problems.append(f"{record['path']}: a broken response without a flag")
    assert not problems, problems[:10]
    unlogged = [token for token in tally.settled if logged[token] != 1]
    assert not unlogged, unlogged[:10]
    await _compare_counters(proxy, endings, before or Counter())
    return dict(endings)


async def _compare_counters(proxy: Proxy, endings: dict[str, Counter[Ending]], before: Counter[Ending]) -> None:
    logged: Counter[Ending] = Counter()
    for found in endings.values():
        logged.update(found)
    counted = await proxy.endings() - before
    malformed = int(await proxy.total("meshwork_sidecar_malformed_requests_total"))
    # Requests that are refused while they are parsed are counted and not logged.
    more = counted - logged
    assert not (logged - counted), logged - counted
    assert {flags for _, flags in more} <= {"DPE"}, more
    assert sum(more.values()) <= malformed
