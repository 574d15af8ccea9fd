"""The admin interface: what this sidecar holds and does, as JSON. On loopback only.

`mesh proxy-config` prints these rows: each section is a list of flat objects.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.routing.table import Forward, Route, RouteTable
from mesh.telemetry.exposition import CONTENT_TYPE
from sidecar.cluster import ClusterState
from sidecar.config import HttpFilter, Listener, Snapshot, TcpFilter
from sidecar.endpoint import EndpointState
from sidecar.metrics import MetricsSource, render_metrics
from sidecar.responder import Answer, json, text
from sidecar.route_text import action_text, extras_text, match_text

Row = dict[str, Any]

PATHS: Final = ("/config_dump", "/clusters", "/stats", "/stats/prometheus", "/ready", "/server_info")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSource:
    """What the admin interface reads."""

    metrics: Callable[[], MetricsSource]
    is_ready: Callable[[], bool]
    identity: Mapping[str, Any]
    """Who we are: node id, cluster."""
    xds_status: Callable[[], Mapping[str, Any]]
    started: float
    """Monotonic seconds."""


def answer_admin(source: AdminSource, path: str) -> Answer | None:
    """The answer for an admin path; None when there is none."""
    plane = source.metrics().plane
    match path:
        case "/":
            return text(200, "\n".join(PATHS))
        case "/config_dump":
            dump = config_dump(plane.snapshot, plane.clusters)
            return json({"node": dict(source.identity), "xds": dict(source.xds_status()), **dump})
        case "/clusters":
            return json([_cluster_with_hosts(plane.clusters[name]) for name in sorted(plane.clusters)])
        case "/stats":
            return text(200, flat_stats(render_metrics(source.metrics())))
        case "/server_info":
            return json(_server_info(source))
        case _:
            return answer_metrics(source, path) or answer_ready(source, path)


def answer_metrics(source: AdminSource, path: str) -> Answer | None:
    """The metrics port."""
    if path in ("/metrics", "/stats/prometheus"):
        return Answer(200, render_metrics(source.metrics()), CONTENT_TYPE)
    return text(200, "/metrics\n/stats/prometheus") if path == "/" else None


def answer_ready(source: AdminSource, path: str) -> Answer | None:
    """The readiness port."""
    if path not in ("/ready", "/healthz/ready"):
        return None
    if source.is_ready():
        return text(200, "ready")
    return text(503, "not ready: waiting for the first complete configuration, or draining")


def _server_info(source: AdminSource) -> Row:
    return {
        "name": "meshwork",
        "state": "LIVE" if source.is_ready() else "NOT_READY",
        "pid": os.getpid(),
        "uptime_s": round(time.monotonic() - source.started, 3),
        "node": dict(source.identity),
        "version": source.metrics().plane.snapshot.version,
    }


def flat_stats(page: bytes) -> str:
    """`name{labels}: value` lines of a metrics page, without histograms' buckets."""
    lines = page.decode().splitlines()
    shown = (line for line in lines if not line.startswith("#") and "_bucket{" not in line)
    return "\n".join(": ".join(line.rsplit(" ", 1)) for line in shown)


def config_dump(snapshot: Snapshot, clusters: Mapping[str, ClusterState]) -> dict[str, Any]:
    """The snapshot in force, section by section."""
    return {
        "version": snapshot.version,
        "listeners": [row for listener in snapshot.listeners for row in _listener_rows(listener)],
        "routes": [row for table in _tables(snapshot) for row in _route_rows(table)],
        "clusters": [_cluster_row(clusters[name]) for name in sorted(clusters)],
        "endpoints": [_endpoint_row(host) for name in sorted(clusters) for host in clusters[name].hosts.values()],
    }


def _tables(snapshot: Snapshot) -> Iterator[RouteTable]:
    yield from snapshot.route_tables.values()
    for listener in snapshot.listeners:
        for chain in listener.chains:
            if isinstance(chain.filter, HttpFilter) and chain.filter.inline_routes is not None:
                yield chain.filter.inline_routes


def _listener_rows(listener: Listener) -> Iterator[Row]:
    for chain in listener.chains:
        one = chain.filter
        yield {
            "name": listener.name,
            "address": f"{listener.address}:{listener.port}",
            "bind": listener.bind,
            "direction": listener.direction.value,
            "chain": chain.name,
            "port": chain.destination_port or "any",
            "protocol": "HTTP" if isinstance(one, HttpFilter) else "TCP",
            "leads_to": _leads_to(one),
        }
    if not listener.chains:
        yield {"name": listener.name, "address": f"{listener.address}:{listener.port}", "bind": listener.bind}


def _leads_to(one: HttpFilter | TcpFilter) -> str:
    if isinstance(one, TcpFilter):
        return ", ".join(branch.name for branch in one.clusters)
    return f"inline {one.inline_routes.name}" if one.inline_routes is not None else f"route {one.route_table}"


def _route_rows(table: RouteTable) -> Iterator[Row]:
    for host in table.virtual_hosts:
        for route in host.routes:
            cause = route.provenance or host.provenance
            yield {
                "table": table.name,
                "host": host.name,
                "domains": list(host.domains),
                "route": route.name,
                "match": match_text(route),
                "action": action_text(route),
                "also": extras_text(table, host, route),
                "timeout_s": route.action.timeout_s if isinstance(route.action, Forward) else None,
                "retries": _retries(route) if isinstance(route.action, Forward) else None,
                "cause": str(cause) if cause else "",
            }


def _retries(route: Route) -> int:
    assert isinstance(route.action, Forward)
    return route.action.retry.max_retries if route.action.retry is not None else 0


def _cluster_row(state: ClusterState) -> Row:
    config = state.config
    return {
        "name": config.name,
        "kind": config.kind.value,
        "policy": config.lb_policy.value,
        "endpoints": len(state.hosts),
        "healthy": state.healthy,
        "degraded": state.degraded,
        "usable": len(state.available),
        "ejections": state.ejections_total,
        "is_panicking": state.is_panicking,
        "priority_load": " ".join(str(share) for share in state.priority_load()),
        "active_requests": state.active,
        "connections": state.connections,
        "outlier_detection": config.outlier is not None,
        "health_checks": [type(one.probe).__name__.removesuffix("Probe").lower() for one in config.health_checks],
        "failing_checks": sum(1 for host in state.hosts.values() if host.is_check_failed),
        "cause": str(config.provenance) if config.provenance else "",
    }


def _cluster_with_hosts(state: ClusterState) -> Row:
    return {**_cluster_row(state), "hosts": [_endpoint_row(host) for host in state.hosts.values()]}


def _endpoint_row(host: EndpointState) -> Row:
    return {
        "cluster": host.cluster.config.name,
        "address": host.text,
        "weight": round(host.weight, 3),
        "priority": host.endpoint.priority,
        "locality": str(host.endpoint.locality),
        "locality_weight": host.endpoint.locality_weight,
        "health": "ejected" if host.health.ejected_until is not None else host.endpoint.health.value,
        "health_flags": host.health_flags(),
        "check": host.check.text if host.check is not None else "",
        "check_detail": host.check.detail if host.check is not None else "",
        "latency_ms": host.latency_ms(),
        "active_requests": host.active,
        "ejections": host.health.ejections_total,
        "success_rate": host.health.success_rate,
        "workload": host.endpoint.workload.get("workload", ""),
        "version": host.endpoint.workload.get("version", ""),
        "pod": host.endpoint.workload.get("pod", ""),
    }
