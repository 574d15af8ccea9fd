"""nginx: as a peer configured as the others are, and as the upstream behind all of them; one worker each."""

from pathlib import Path

from benchmarks.data_plane.cases import SMALL_BYTES
from benchmarks.data_plane.targets import CANARY_PERCENT, Target, route_entries

BODY_SIZES = (61, 1024, 64 * 1024, 10 * 1024 * 1024)
"""Sizes of the files that the upstream serves as /bytes/SIZE."""


def nginx_peer(target: Target, folder: Path) -> str:
    """The configuration of the peer."""
    return f"""
{_top(folder, "nginx")}
http {{
  {_http(folder, "nginx")}
  client_max_body_size 0; proxy_request_buffering off; proxy_max_temp_file_size 0;
  map_hash_max_size 65536; map_hash_bucket_size 128;
  map $http_x_request_id $own_or_new_id {{ "" $request_id; default $http_x_request_id; }}
  {_maps(target)}
  {_upstream("stable", target.stable, target)}
  {_upstream("canary", target.canary, target)}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-Proto http;
  proxy_set_header X-Request-Id $own_or_new_id;
  {_retries(target)}
  proxy_read_timeout 15s;
  server {{
    listen 127.0.0.1:{target.listen} backlog=4096;
    {_locations(target)}
  }}
}}
"""


def nginx_upstream(ports: tuple[int, ...], folder: Path) -> str:
    """Small answers at any path; files at /bytes/SIZE; under /unique and /shop a header that occurs once; /sink reads a body first.

    nginx reads a whole request body only to pass it on: /sink passes the request, without the body, to a second server of its own.
    """
    listen = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in ports)
    small = '"' + "0123456789" * (SMALL_BYTES // 10) + '\\n"'
    answer = f"default_type text/plain; return 200 {small};"
    sink = f"{folder}/sink.sock"
    return f"""
{_top(folder, "upstream")}
http {{
  {_http(folder, "upstream")}
  sendfile on; tcp_nopush on; open_file_cache max=16;
  upstream answer {{ server unix:{sink}; keepalive 600; keepalive_requests 1000000000; }}
  server {{
    {listen}
    location / {{ {answer} }}
    location /unique/ {{ add_header x-unique $request_id; {answer} }}
    location /shop/ {{ add_header x-unique $request_id; {answer} }}
    location /bytes/ {{ default_type application/octet-stream; root {folder}/www; }}
    location /sink {{
      client_max_body_size 0; client_body_buffer_size 11m; proxy_pass_request_body off; proxy_set_header Content-Length "";
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://answer;
    }}
  }}
  server {{ listen unix:{sink}; location / {{ {answer} }} }}
}}
"""


def write_bodies(folder: Path) -> None:
    """The files that the upstream serves."""
    (folder / "www" / "bytes").mkdir(parents=True)
    for size in BODY_SIZES:
        (folder / "www" / "bytes" / str(size)).write_bytes(b"0123456789abcdef" * (size // 16) + b"." * (size % 16))


def _top(folder: Path, name: str) -> str:
    files = f"pid {folder}/{name}.pid; error_log {folder}/{name}.log;"
    return f"worker_processes 1; daemon off; {files} events {{ worker_connections 8192; multi_accept on; }}"


def _http(folder: Path, name: str) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {folder}/{name}_{kind};" for kind in kinds)
    return f"access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; {paths}"


def _upstream(name: str, ports: tuple[int, ...], target: Target) -> str:
    is_resilient = target.setup.features and target.is_resilient
    health = "max_fails=5 fail_timeout=30s" if is_resilient else "max_fails=0"
    servers = " ".join(f"server 127.0.0.1:{port} {health};" for port in ports)
    return f"upstream {name} {{ {'least_conn;' if is_resilient else ''} {servers} keepalive 600; keepalive_requests 1000000000; }}"


def _retries(target: Target) -> str:
    if (target.setup.features and target.is_resilient) or target.setup.routes:
        return "proxy_next_upstream error timeout http_500 http_502 http_503 http_504; proxy_next_upstream_tries 3;"
    return "proxy_next_upstream off;"


def _maps(target: Target) -> str:
    entries = [entry for entry in route_entries(target.setup.routes) if entry.kind == "header"]
    if entries:
        lines = " ".join(f"{entry.header} {entry.cluster};" for entry in entries)
        return f"map $http_x_route $by_header {{ {lines} }}"
    return f"split_clients $request_id $split {{ {CANARY_PERCENT}% canary; * stable; }}"


def _locations(target: Target) -> str:
    entries = route_entries(target.setup.routes)
    if entries:
        exact = [f"location = {e.path} {{ proxy_pass http://{e.cluster}; }}" for e in entries if e.kind == "exact"]
        prefix = [f"location {e.path} {{ proxy_pass http://{e.cluster}; }}" for e in entries if e.kind == "prefix"]
        return "\n".join([*exact, *prefix, "location /shop/by-header/ { proxy_pass http://$by_header; }"])
    is_split = target.setup.features and target.is_resilient
    return f"location / {{ proxy_pass http://{'$split' if is_split else 'stable'}; }}"
