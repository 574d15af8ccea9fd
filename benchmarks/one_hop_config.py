"""Equal configurations for every proxy: a 90/10 split, two retries, least loaded endpoint, passive health.

What does not exist in a proxy is left out and said in `DIFFERENCES`.
"""

from dataclasses import dataclass

import yaml

DIFFERENCES = {
    "meshwork": "all of it, and Istio-like counters and histograms per route and endpoint, request ids",
    "envoy": "all of it; default statistics on, no access log",
    "haproxy": "split by a random number; retries; least connections; passive health by observed errors; no metrics kept per route",
    "nginx": "split by a hash of the request id; next upstream on error; least connections; passive health; no metrics",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports of one run."""

    stable: tuple[int, int]
    canary: int
    meshwork: int
    envoy: int
    haproxy: int
    nginx: int


def upstream_nginx(ports: Ports, folder: str) -> str:
    """The server behind all proxies: 61 bytes; under /unique every response has a header of its own."""
    listen = " ".join(f"listen 127.0.0.1:{port};" for port in (*ports.stable, ports.canary))
    return f"""
worker_processes 1; daemon off; pid {folder}/upstream.pid; error_log {folder}/upstream.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; {_temp_paths(folder + "/upstream_")}
  server {{
    {listen}
    location / {{ default_type text/plain; return 200 "{"0123456789" * 6}\\n"; }}
    location /unique {{ default_type text/plain; add_header x-unique $request_id; return 200 "{"0123456789" * 6}\\n"; }}
  }}
}}
"""


def _temp_paths(prefix: str) -> str:
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{name}_temp_path {prefix}{name};" for name in names)


def envoy_bootstrap(ports: Ports, listen: int) -> str:
    """The bootstrap file that real Envoy and our sidecar both start from."""
    split = [{"name": "stable", "weight": 90}, {"name": "canary", "weight": 10}]
    route = {
        "match": {"prefix": "/"},
        "route": {
            "weighted_clusters": {"clusters": split},
            "timeout": "15s",
            "retry_policy": {"retry_on": "5xx,reset,connect-failure", "num_retries": 2},
        },
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "one_hop",
        "route_config": {"name": "one_hop", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "one_hop",
        "address": _address(listen),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    clusters = [_cluster("stable", ports.stable), _cluster("canary", (ports.canary,))]
    return yaml.safe_dump({"static_resources": {"listeners": [listener], "clusters": clusters}}, sort_keys=False)


def _cluster(name: str, ports: tuple[int, ...]) -> dict[str, object]:
    endpoints = [{"endpoint": {"address": _address(port)}} for port in ports]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "outlier_detection": {"consecutive_5xx": 5, "base_ejection_time": "30s", "max_ejection_percent": 50},
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def haproxy(ports: Ports) -> str:
    """HAProxy, one thread."""

    def servers(numbers: tuple[int, ...]) -> str:
        health = "check inter 1h observe layer7 error-limit 5 on-error mark-down"
        return "\n".join(f"  server s{port} 127.0.0.1:{port} {health}" for port in numbers)

    return f"""
global
  nbthread 1
  maxconn 1000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 15s
  retries 2
  retry-on 500 502 503 504 conn-failure empty-response
  option redispatch
  option forwardfor
  http-reuse always
  balance leastconn
frontend one_hop
  bind 127.0.0.1:{ports.haproxy}
  unique-id-format %[uuid()]
  unique-id-header x-request-id
  use_backend canary if {{ rand(100) lt 10 }}
  default_backend stable
backend stable
{servers(ports.stable)}
backend canary
{servers((ports.canary,))}
"""


def nginx(ports: Ports, folder: str) -> str:
    """nginx, one worker."""

    def upstream(name: str, numbers: tuple[int, ...]) -> str:
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=5 fail_timeout=30s;" for port in numbers)
        return f"upstream {name} {{ least_conn; {servers} keepalive 64; keepalive_requests 1000000000; }}"

    return f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; {_temp_paths(folder + "/nginx_")}
  split_clients $request_id $backend {{ 10% canary; * stable; }}
  {upstream("stable", ports.stable)}
  {upstream("canary", (ports.canary,))}
  server {{
    listen 127.0.0.1:{ports.nginx};
    location / {{
      proxy_pass http://$backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto http;
      proxy_set_header X-Request-Id $request_id;
      proxy_next_upstream error timeout http_500 http_502 http_503 http_504;
      proxy_next_upstream_tries 3;
      proxy_read_timeout 15s;
    }}
  }}
}}
"""


WRK_SAME = """
wrk.headers["accept"] = "application/json"
wrk.headers["accept-encoding"] = "gzip, deflate"
wrk.headers["user-agent"] = "shop-frontend/1.4.2"
wrk.headers["x-tenant"] = "default"
wrk.headers["x-client"] = "bench"
"""
"""Every request is the same, as load generators are."""

WRK_UNIQUE = (
    WRK_SAME
    + """
local n = 0
request = function()
  n = n + 1
  wrk.headers["x-request-id"] = string.format("8c0a7d1e-5b1f-4c57-9e33-%012x", n)
  wrk.headers["x-order"] = tostring(n * 7919 % 1000003)
  return wrk.format("GET", "/unique/orders/" .. tostring(n % 997))
end
"""
)
"""Every request and every response has headers and a path that no cache has seen."""
