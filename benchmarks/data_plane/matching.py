"""What it costs to find a request's route in tables of different sizes, without any network."""

import statistics
import time
from collections.abc import Callable, Sequence

from envoy.config.route.v3 import route_pb2
from google.protobuf import json_format

from benchmarks.data_plane.cases import Setup
from benchmarks.data_plane.envoy_file import route_config
from benchmarks.data_plane.measure import WindowError
from benchmarks.data_plane.targets import RouteEntry, Target, route_entries
from mesh.http.request import RequestHead, parse_request_head
from mesh.routing.matcher import CompiledTable
from mesh.xds.decode_routes import decode_route_table

COUNTS = (1, 100, 10_000)
_HEADS = 1000
"""Different requests, spread over the table."""
_REPEATS = 7
_BATCH_S = 0.1


def compiled_table(count: int) -> CompiledTable:
    """The table that the proxies have in the cases `routes/COUNT`."""
    target = Target(setup=Setup(routes=count), listen=0, stable=(0,), canary=(0,), collector=0)
    message = json_format.ParseDict(route_config(target), route_pb2.RouteConfiguration())
    return CompiledTable(decode_route_table(message, "route_config"))


def request_for(entry: RouteEntry) -> RequestHead:
    """A request that takes this route."""
    path = entry.request_path.replace("@ID@", "8c0a7d1e")
    header = f"x-route: {entry.header}\r\n" if entry.header else ""
    head = f"GET {path} HTTP/1.1\r\nhost: shop\r\naccept: application/json\r\nuser-agent: bench/1\r\n{header}\r\n"
    return parse_request_head(head.encode())


def heads_over(count: int) -> list[RequestHead]:
    """Requests for routes spread over a table of `count`, in no order of the table."""
    entries = route_entries(count)
    return [request_for(entries[n * 7919 % count]) for n in range(min(count, _HEADS))]


def measure_matching(said: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """For each size: microseconds for a match (median of several batches, the sizes taking turns) and milliseconds to compile the table.

    Raises WindowError when a request finds no route.
    """
    tables: dict[int, CompiledTable] = {}
    compile_ms: dict[int, float] = {}
    batches: dict[int, list[RequestHead]] = {}
    for count in COUNTS:
        said(f"matching/{count}")
        started = time.perf_counter()
        tables[count] = compiled_table(count)
        compile_ms[count] = (time.perf_counter() - started) * 1e3
        heads = heads_over(count)
        if any(tables[count].find(head) is None for head in heads):
            raise WindowError(f"matching/{count}: a request finds no route")
        batches[count] = _batch(tables[count], heads)
    times: dict[int, list[float]] = {count: [] for count in COUNTS}
    for _ in range(_REPEATS):
        for count, batch in batches.items():
            times[count].append(_time(tables[count], batch) / len(batch) * 1e6)
    return {
        str(count): {
            "match_us": round(statistics.median(times[count]), 3),
            "decode_and_compile_ms": round(compile_ms[count], 1),
        }
        for count in COUNTS
    }


def _batch(table: CompiledTable, heads: Sequence[RequestHead]) -> list[RequestHead]:
    """The heads, as often as fills a tenth of a second or so."""
    each_s = _time(table, heads) / len(heads)
    return list(heads) * max(1, int(_BATCH_S / each_s / len(heads)))


def _time(table: CompiledTable, heads: Sequence[RequestHead]) -> float:
    find = table.find
    started = time.perf_counter()
    for head in heads:
        find(head)
    return time.perf_counter() - started
