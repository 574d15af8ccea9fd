"""wrk: what it sends, as Lua, and what it saw."""

import re
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data_plane.cases import Heads, Request, Setup
from benchmarks.data_plane.processes import on_cores
from benchmarks.data_plane.targets import RouteEntry, cluster_name, route_entries

_PATIENCE_S = 60
_HEADERS = """
wrk.headers["accept"] = "application/json"
wrk.headers["accept-encoding"] = "gzip, deflate"
wrk.headers["user-agent"] = "shop-frontend/1.4.2"
wrk.headers["x-tenant"] = "default"
wrk.headers["x-client"] = "bench"
"""

_UNIQUE = """
local seed, n, parts = math.floor(os.time() * 131 + os.clock() * 1000003) % 0x10000, 0, {}
local function add(path, name, value)
  local headers = {}
  for key, old in pairs(wrk.headers) do headers[key] = old end
  headers["x-request-id"] = "@ID@"
  if name then headers[name] = value end
  local text = wrk.format("GET", path, headers)
  local before, middle, after = string.match(text, "^(.-)@ID@(.-)@ID@(.*)$")
  parts[#parts + 1] = {before, middle, after}
end
function init(args)
--ADD--
end
function request()
  n = n + 1
  local id = string.format("%08x-%04x-4c57-9e33-0123456789ab", n * 2654435761 % 0x100000000, seed)
  local part = parts[n * 7919 % #parts + 1]
  return part[1] .. id .. part[2] .. id .. part[3]
end
"""
"""Heads are cut at their two unique places before the load, so that each costs the load generator little. Ids begin with what
differs most: Envoy decides by the first eight digits whether a request is traced."""


def script(setup: Setup, request: Request) -> str:
    """The Lua for a case."""
    if request.heads is Heads.UNIQUE:
        head = _HEADERS + ('wrk.headers["connection"] = "close"\n' if request.is_churn else "")
        return head + _UNIQUE.replace("--ADD--", _adds(setup))
    if request.upload_bytes:
        return f'{_HEADERS}wrk.method = "POST"\nwrk.body = string.rep("x", {request.upload_bytes})\n'
    return _HEADERS


def path(request: Request) -> str:
    """Where wrk sends requests whose heads repeat."""
    return (
        "/sink"
        if request.upload_bytes
        else f"/bytes/{request.download_bytes}"
        if request.download_bytes > 61
        else "/orders"
    )


def _adds(setup: Setup) -> str:
    if setup.clusters:
        names = (cluster_name(number) for number in range(setup.clusters))
        return "\n".join(f'  add("/unique/orders/@ID@", "Host", "{name}")' for name in names)
    entries = route_entries(setup.routes)
    if entries:
        return "\n".join(f'  add("{one.request_path}"{_header(one)})' for one in entries)
    return '  add("/unique/orders/@ID@")'


def _header(entry: RouteEntry) -> str:
    return f', "x-route", "{entry.header}"' if entry.header else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run of wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    """Responses other than 2xx and 3xx, and socket errors."""
    cpu_s: float = 0.0
    """What wrk itself took."""

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


def run_wrk(port: int, where: str, lua: Path, seconds: int, connections: int, cores: Sequence[int]) -> Load:
    """Load 127.0.0.1:port for `seconds`. Raises RuntimeError when wrk fails."""
    command = [*on_cores(cores), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency"]
    command += ["-s", str(lua), f"http://127.0.0.1:{port}{where}"]
    before = _children_cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + _PATIENCE_S)
    if done.returncode:
        raise RuntimeError(f"wrk: {done.stderr or done.stdout}")
    return parse_wrk(done.stdout, _children_cpu_s() - before)


def _children_cpu_s() -> float:
    """Of children that have ended, as wrk has: proxies and upstream have not."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def parse_wrk(output: str, cpu_s: float = 0.0) -> Load:
    """Read wrk's report. Raises RuntimeError when it is not one."""
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", output)
    if total is None:
        raise RuntimeError(f"wrk said something unexpected:\n{output}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    return Load(
        requests=int(total[1]),
        seconds=float(total[2]) * _SECONDS[total[3]],
        p50_ms=_percentile(output, "50%"),
        p99_ms=_percentile(output, "99%"),
        errors=(int(bad[1]) if bad else 0) + (sum(map(int, sockets.groups())) if sockets else 0),
        cpu_s=cpu_s,
    )


def _percentile(output: str, which: str) -> float:
    found = re.search(rf"^\s*{which}\s+([\d.]+)(us|ms|s|m)", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk reported no {which} latency:\n{output}")
    return float(found[1]) * _SECONDS[found[2]] * 1000
