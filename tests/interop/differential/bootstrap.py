"""The one bootstrap file that both proxies start from: a listener for each set of options that the corpus asks about."""

from typing import Any

import yaml

_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_HTTP1 = {"accept_http_10": True, "enable_trailers": True}
_FORWARD: Any = {"cluster": "up"}
_UPGRADES: Any = [{"upgrade_type": "websocket"}]
_CONNECT: Any = {"upgrade_configs": [{"upgrade_type": "CONNECT"}, *_UPGRADES]}

LISTENERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "defaults": {"http_protocol_options": {}, "upgrade_configs": []},
    "edge": {"use_remote_address": True},
    "hops": {"use_remote_address": True, "xff_num_trusted_hops": 1},
    "skip_xff": {"use_remote_address": True, "skip_xff_append": True},
    "keep_id": {"use_remote_address": True, "preserve_external_request_id": True},
    "via": {"via": "edge-1"},
    "paths": {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    },
    "normalize": {"normalize_path": True},
    "merge": {"merge_slashes": True},
    "slashes_reject": {"normalize_path": True, "path_with_escaped_slashes_action": "REJECT_REQUEST"},
    "slashes_redirect": {"normalize_path": True, "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"},
    "underscores_reject": {"common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}},
    "underscores_drop": {"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}},
    "few_headers": {"common_http_protocol_options": {"max_headers_count": 10}, "max_request_headers_kb": 4},
    "two_requests": {"common_http_protocol_options": {"max_requests_per_connection": 2}},
    "connect": _CONNECT,
    "connect_forward": _CONNECT,
}
"""Changes to the HTTP connection manager, by the listener's name."""


def _route(listener: str) -> list[dict[str, Any]]:
    connect: dict[str, Any] = {"match": {"connect_matcher": {}}, "route": dict(_FORWARD)}
    if listener == "connect":
        connect["route"]["upgrade_configs"] = [{"upgrade_type": "CONNECT", "connect_config": {}}]
    elif listener == "connect_forward":
        connect["route"]["upgrade_configs"] = [{"upgrade_type": "CONNECT"}]
    else:
        connect = {}
    return [*([connect] if connect else []), {"match": {"prefix": "/"}, "route": dict(_FORWARD)}]


def _listener(name: str, port: int) -> dict[str, Any]:
    manager = {
        "@type": _HCM,
        "stat_prefix": name,
        "codec_type": "HTTP1",
        "delayed_close_timeout": "0.05s",
        "http_protocol_options": _HTTP1,
        "upgrade_configs": _UPGRADES,
        "route_config": {
            "name": name,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _route(name)}],
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
        **LISTENERS[name],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": name, "address": _address(port), "filter_chains": [{"filters": filters}]}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap(ports: dict[str, int], upstream_port: int, admin_port: int) -> str:
    """The file, with a port for each listener."""
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]}]
    cluster = {
        "name": "up",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "up", "endpoints": endpoints},
    }
    document = {
        "admin": {"address": _address(admin_port)},
        "static_resources": {
            "listeners": [_listener(name, port) for name, port in ports.items()],
            "clusters": [cluster],
        },
    }
    return yaml.safe_dump(document)
