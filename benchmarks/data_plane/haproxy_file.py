"""HAProxy configured as the others are; one thread."""

from collections.abc import Iterable
from pathlib import Path

from benchmarks.data_plane.targets import CANARY_PERCENT, Target, route_entries


def haproxy_files(target: Target, folder: Path) -> dict[str, str]:
    """File name -> text. `haproxy.cfg` is the one to start with."""
    files = {"haproxy.cfg": _config(target, folder)}
    entries = route_entries(target.setup.routes)
    if entries:
        files["exact.map"] = _map((entry.path, entry.cluster) for entry in entries if entry.kind == "exact")
        files["prefix.map"] = _map((entry.path, entry.cluster) for entry in entries if entry.kind == "prefix")
        files["header.map"] = _map((entry.header, entry.cluster) for entry in entries if entry.kind == "header")
    return files


def _map(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{key} {value}\n" for key, value in pairs)


def _config(target: Target, folder: Path) -> str:
    is_resilient = target.setup.features and target.is_resilient
    retries = "  retries 2\n  retry-on 500 502 503 504 conn-failure empty-response\n  option redispatch\n"
    return f"""
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 15s
{retries if is_resilient or target.setup.routes else "  retries 0"}
  http-reuse always
  balance {"leastconn" if is_resilient else "roundrobin"}
frontend bench
  bind 127.0.0.1:{target.listen}
  unique-id-format %[uuid()]
  http-request set-header x-request-id %[unique-id] unless {{ req.hdr(x-request-id) -m found }}
  http-request set-header x-forwarded-proto http
{_rules(target, folder)}
backend stable
{_servers(target.stable, is_resilient)}
backend canary
{_servers(target.canary, is_resilient)}
"""


def _rules(target: Target, folder: Path) -> str:
    if target.setup.routes:
        return f"""
  use_backend %[path,map({folder}/exact.map)] if {{ path,map({folder}/exact.map) -m found }}
  use_backend %[path,map_beg({folder}/prefix.map)] if {{ path,map_beg({folder}/prefix.map) -m found }}
  use_backend %[req.hdr(x-route),map({folder}/header.map)] if {{ path_beg /shop/by-header/ }} {{ req.hdr(x-route) -m found }}
"""
    if target.setup.features and target.is_resilient:
        return f"  use_backend canary if {{ rand(100) lt {CANARY_PERCENT} }}\n  default_backend stable"
    return "  default_backend stable"


def _servers(ports: tuple[int, ...], is_resilient: bool) -> str:
    health = " check inter 1h observe layer7 error-limit 5 on-error mark-down" if is_resilient else ""
    return "\n".join(f"  server s{port} 127.0.0.1:{port}{health}" for port in ports)
