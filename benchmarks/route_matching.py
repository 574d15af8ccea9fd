"""What finding a route costs with 1, 100 and 10,000 routes: time per match, and time and memory to compile the table.

For every kind of route and every number of them: microseconds per match for the first and the last route, and for a request that no
route takes. Usage: python -m benchmarks routes
"""

import argparse
import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesh.http.request import RequestHead, parse_request_head
from mesh.routing.matcher import CompiledTable
from mesh.routing.table import (
    Forward,
    HeaderMatch,
    MatchKind,
    PathKind,
    PathMatch,
    QueryMatch,
    Route,
    RouteMatch,
    RouteTable,
    StringMatch,
    VirtualHost,
    WeightedCluster,
)

RESULT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "route_matching.json"
MAX_GROWTH = 2.0
"""From 100 routes to 10,000."""
COUNTS = (1, 100, 10_000)
ROUNDS = 15
CALLS = 1000


def _exact(value: str) -> StringMatch:
    return StringMatch(kind=MatchKind.EXACT, value=value)


MATCHES: dict[str, Callable[[int], RouteMatch]] = {
    "exact": lambda i: RouteMatch(path=PathMatch(kind=PathKind.EXACT, value=f"/svc-{i}/v1")),
    "prefix": lambda i: RouteMatch(path=PathMatch(value=f"/svc-{i}/v1")),
    "segment_prefix": lambda i: RouteMatch(path=PathMatch(kind=PathKind.SEGMENT_PREFIX, value=f"/svc-{i}")),
    "regex": lambda i: RouteMatch(path=PathMatch(kind=PathKind.REGEX, value=f"/svc-{i}/v[0-9]+")),
    "header": lambda i: RouteMatch(headers=(HeaderMatch(name="x-tenant", match=_exact(f"t{i}")),)),
    "query": lambda i: RouteMatch(query=(QueryMatch(name="t", match=_exact(f"t{i}")),)),
}


def table(kind: str, count: int) -> RouteTable:
    """`count` routes of one virtual host."""
    routes = tuple(
        Route(name=f"r{i}", match=MATCHES[kind](i), action=Forward(clusters=(WeightedCluster(name=f"c{i}"),)))
        for i in range(count)
    )
    return RouteTable(name="t", virtual_hosts=(VirtualHost(name="v", domains=("*",), routes=routes),))


def hosts_table(count: int) -> RouteTable:
    """`count` virtual hosts with wildcards of several depths, one route each."""
    route = Route(name="r", action=Forward(clusters=(WeightedCluster(name="c"),)))
    return RouteTable(
        name="t",
        virtual_hosts=tuple(
            VirtualHost(name=f"v{i}", domains=(f"*.{'x.' * (i % 5)}svc-{i}.example",), routes=(route,))
            for i in range(count)
        ),
    )


def head(at: int | str, host: str = "web.example") -> RequestHead:
    """A request for route `at`, with headers as browsers send them."""
    lines = "".join(f"x-other-{i}: some value\r\n" for i in range(8))
    return parse_request_head(
        f"GET /svc-{at}/v1?t=t{at} HTTP/1.1\r\nHost: {host}\r\n{lines}X-Tenant: t{at}\r\n\r\n".encode()
    )


def microseconds(compiled: CompiledTable, request: RequestHead) -> float:
    """Of CPU per match, the best of several rounds: what else the machine does matters little."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            compiled.find(request)
        best = min(best, time.process_time() - started)
    return round(best / CALLS * 1e6, 2)


def measure(made: RouteTable, first: RequestHead, last: RequestHead, none: RequestHead) -> dict[str, Any]:
    """One table: compile time, memory of what compiling adds, and time per match."""
    gc.collect()
    started = time.process_time()
    compiled = CompiledTable(made)
    compile_s = time.process_time() - started
    assert compiled.find(first) is not None
    assert compiled.find(last) is not None
    found = {name: microseconds(compiled, one) for name, one in (("first", first), ("last", last), ("none", none))}
    del compiled
    gc.collect()
    tracemalloc.start()
    again = CompiledTable(made)
    size_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del again
    return {"us_per_match": found, "compile_ms": round(compile_s * 1e3, 1), "compiled_kib": size_bytes // 1024}


def run() -> dict[str, dict[str, Any]]:
    """Every kind of route, every number."""
    results: dict[str, dict[str, Any]] = {}
    for kind in MATCHES:
        results[kind] = {
            str(count): measure(table(kind, count), head(0), head(count - 1), head("none")) for count in COUNTS
        }
    results["wildcard host"] = {
        str(count): measure(
            hosts_table(count),
            head(0, "a.svc-0.example"),
            head(0, f"a.{'x.' * ((count - 1) % 5)}svc-{count - 1}.example"),
            head(0, "a.b.c.else"),
        )
        for count in COUNTS
    }
    return results


def main(arguments: list[str]) -> int:
    """Measure, print a table, write the results. 1 when the cost of a match grows with the number of routes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks routes", description=main.__doc__)
    parser.add_argument("--output", type=Path, default=RESULT, help="the JSON file to write")
    options = parser.parse_args(arguments)
    results = run()
    print(f"{'routes by':16}{'how many':>9}{'first':>8}{'last':>8}{'none':>8} us   compile ms   compiled KiB")
    worst = 0.0
    for kind, found in results.items():
        for count, one in found.items():
            us = one["us_per_match"]
            print(f"{kind:16}{count:>9}{us['first']:8.2f}{us['last']:8.2f}{us['none']:8.2f}", end="")
            print(f"{one['compile_ms']:16.1f}{one['compiled_kib']:15}")
        few, many = (found[str(count)]["us_per_match"]["last"] for count in COUNTS[1:])
        worst = max(worst, many / few)
    print(f"10,000 routes cost at most {worst:.1f} times what 100 do (goal: {MAX_GROWTH:g})")
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    return int(worst > MAX_GROWTH)
