"""The bootstrap file that real Envoy and our sidecar both start from."""

import json
from typing import Any

from benchmarks.data_plane.targets import (
    CANARY_PERCENT,
    TRACED_PERCENT,
    RouteEntry,
    Target,
    cluster_name,
    route_entries,
)

_TYPES = "type.googleapis.com/envoy."
_RETRY = {"retry_on": "5xx,reset,connect-failure", "num_retries": 2}
_COLLECTOR = "collector"
Json = dict[str, Any]


def bootstrap(target: Target) -> str:
    """The file's text, JSON (which is YAML too)."""
    listener = {
        "name": "bench",
        "address": _address(target.listen),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(target)}]}
        ],
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": _clusters(target)}})


def _manager(target: Target) -> Json:
    router = {"@type": f"{_TYPES}extensions.filters.http.router.v3.Router"}
    manager: Json = {
        "@type": f"{_TYPES}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": route_config(target),
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    if target.is_traced:
        provider = {
            "@type": f"{_TYPES}config.trace.v3.OpenTelemetryConfig",
            "service_name": target.service,
            "grpc_service": {"envoy_grpc": {"cluster_name": _COLLECTOR}, "timeout": "1s"},
        }
        manager["tracing"] = {
            "random_sampling": {"value": TRACED_PERCENT},
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": provider},
        }
    return manager


def route_config(target: Target) -> Json:
    """The RouteConfiguration alone."""
    setup = target.setup
    if setup.clusters:
        hosts = [_host_of_cluster(number) for number in range(setup.clusters)]
    else:
        routes = [_entry_route(entry) for entry in route_entries(setup.routes)]
        routes += [_regex_route(number) for number in range(setup.regex_routes)]
        if not setup.routes:
            routes.append({"match": {"prefix": "/"}, "route": _last_route(target)})
        hosts = [{"name": "all", "domains": ["*"], "routes": routes}]
    return {"name": "bench", "virtual_hosts": hosts}


def _last_route(target: Target) -> Json:
    if not target.setup.features or not target.is_resilient:
        return {"cluster": "stable", "timeout": "15s"}
    split = [{"name": "stable", "weight": 100 - CANARY_PERCENT}, {"name": "canary", "weight": CANARY_PERCENT}]
    return {"weighted_clusters": {"clusters": split}, "timeout": "15s", "retry_policy": _RETRY}


def _entry_route(entry: RouteEntry) -> Json:
    match: Json = {"path": entry.path} if entry.kind == "exact" else {"prefix": entry.path}
    if entry.header:
        match["headers"] = [{"name": "x-route", "string_match": {"exact": entry.header}}]
    return {"match": match, "route": {"cluster": entry.cluster, "timeout": "15s", "retry_policy": _RETRY}}


def _regex_route(number: int) -> Json:
    pattern = f"/(unique|shop)/[a-z]+/v{number}-[0-9a-f]+(/.*)?"
    return {"match": {"safe_regex": {"regex": pattern}}, "route": {"cluster": "stable", "timeout": "15s"}}


def _host_of_cluster(number: int) -> Json:
    name = cluster_name(number)
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "15s", "retry_policy": _RETRY}}
    return {"name": name, "domains": [name], "routes": [route]}


def _clusters(target: Target) -> list[Json]:
    if target.setup.clusters:
        endpoints = (*target.stable, *target.canary)
        clusters = [_cluster(target, cluster_name(number), endpoints) for number in range(target.setup.clusters)]
    else:
        clusters = [_cluster(target, "stable", target.stable), _cluster(target, "canary", target.canary)]
    if target.is_traced:
        http2 = {
            "@type": f"{_TYPES}extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        collector = _bare_cluster(_COLLECTOR, (target.collector,))
        clusters.append(
            {
                **collector,
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
            }
        )
    return clusters


def _cluster(target: Target, name: str, ports: tuple[int, ...]) -> Json:
    cluster = _bare_cluster(name, ports)
    if target.setup.features and target.is_resilient:
        cluster["lb_policy"] = "LEAST_REQUEST"
        cluster["outlier_detection"] = {"consecutive_5xx": 5, "base_ejection_time": "30s", "max_ejection_percent": 50}
    return cluster


def _bare_cluster(name: str, ports: tuple[int, ...]) -> Json:
    endpoints = [{"endpoint": {"address": _address(port)}} for port in ports]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
