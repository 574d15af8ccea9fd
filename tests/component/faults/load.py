"""The load: many clients at once for some time, then everything is compared with everything."""

import asyncio
from collections import Counter, defaultdict
from typing import Any

from tests.component.faults.clients import Client, Tally
from tests.component.faults.proxy import Proxy
from tests.component.faults.table import BROKEN, FAULTS, GOOD, Ending
from tests.component.faults.upstreams import Upstreams

_CLIENT_GONE = "DC"
_NEVER_READ: frozenset[Ending] = frozenset({(200, "SI"), (200, "UT"), (200, "-")})


async def run_load(proxy: Proxy, *, seed: str, clients: int, seconds: float) -> Tally:
    """All scenes at once."""
    tally = Tally()
    until = asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as tasks:
        for n in range(clients):
            tasks.create_task(Client(f"{seed}{n}", proxy.port, tally).run(until))
    return tally


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


async def compare(proxy: Proxy, up: Upstreams, tally: Tally) -> dict[str, Counter[Ending]]:
    """What clients saw, what the log says and what the counters say must be the same story. Returns endings by fault."""
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
        if token in tally.abandoned or fault not in FAULTS:
            continue
        seen = tally.settled.get(token)
        allowed = FAULTS[fault].endings | ({GOOD} if "/retried/" in record["path"] else set())
        if ending not in allowed:
            problems.append(f"{record['path']}: {ending} with {record['response_code_details']!r}")
        if seen is not None and seen != (BROKEN if seen == BROKEN else ending[0]):
            problems.append(f"{record['path']}: the client saw {seen}, the log says {ending}")
        if seen == BROKEN and ending[1] == "-":
            problems.append(f"{record['path']}: a broken response without a flag")
    assert not problems, problems[:10]
    unlogged = [token for token in tally.settled if logged[token] != 1]
    assert not unlogged, unlogged[:10]
    await _compare_counters(proxy, endings)
    return dict(endings)


async def _compare_counters(proxy: Proxy, endings: dict[str, Counter[Ending]]) -> None:
    logged: Counter[Ending] = Counter()
    for found in endings.values():
        logged.update(found)
    counted = await proxy.endings()
    malformed = int(await proxy.total("meshwork_sidecar_malformed_requests_total"))
    # Requests that are refused while they are parsed are counted and not logged.
    more = counted - logged
    assert not (logged - counted), logged - counted
    assert {flags for _, flags in more} <= {"DPE"}, more
    assert sum(more.values()) <= malformed
