"""The sidecar's counters as Prometheus metrics, put together at scrape time.

Series with equal labels (several routes to one workload) are summed. Their number is bounded by `ProxyStats`.
"""

import os
import resource
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mesh.telemetry import istio
from mesh.telemetry.exposition import Exposition, label_text
from mesh.telemetry.istio import Peer
from mesh.telemetry.otlp import SpanExporter
from sidecar.cluster import ClusterState
from sidecar.cluster_metrics import resilience_families
from sidecar.config import Direction
from sidecar.filter_metrics import render_filters
from sidecar.health_checking import HealthChecker
from sidecar.plane import Plane
from sidecar.stats import BUCKET_BOUNDS, Histogram, ProxyStats, RequestSeries, SeriesKey, TcpSeries

_PLAIN: Final = "none"
"""connection_security_policy without mTLS, as the destination reports it; the source can't know (Istio: unknown)."""


class _Sum:
    """Several result slots with the same labels."""

    __slots__ = ("count", "duration_ms", "request_bytes", "response_bytes")

    def __init__(self) -> None:
        self.count = 0
        self.duration_ms = Histogram()
        self.request_bytes = Histogram()
        self.response_bytes = Histogram()


@dataclass(slots=True)
class _TcpSum:
    opened: int = 0
    closed: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSource:
    """What a scrape reads."""

    plane: Plane
    own: Peer
    exporter: SpanExporter | None = None
    xds: Mapping[str, int] = field(default_factory=dict)
    """Counters of the control plane's stream, by name."""


def render_metrics(source: MetricsSource) -> bytes:
    """The page for `/metrics` and `/stats/prometheus`."""
    page = Exposition()
    stats = source.plane.stats
    _requests(page, stats, source.own)
    _tcp(page, stats, source.own)
    _clusters(page, source.plane.clusters.values(), stats)
    _health_checks(page, source.plane.checker, source.plane.clusters)
    _proxy(page, source)
    render_filters(page, stats.filters.values, source.plane.sites())
    render_process(page)
    return page.render()


def _add(into: Histogram, other: Histogram) -> None:
    into.total += other.total
    into.buckets = [one + two for one, two in zip(into.buckets, other.buckets, strict=True)]


def _common_labels(key: SeriesKey, workload: Mapping[str, str], own: Peer, service: str) -> dict[str, str]:
    is_inbound = key.direction is Direction.INBOUND
    # Without mTLS and its peer metadata the receiving side does not know who called.
    other = Peer() if is_inbound else Peer.of(workload)
    return {
        **istio.reporter_labels(is_inbound=is_inbound, own=own, other=other),
        **istio.service_labels(service),
        "connection_security_policy": _PLAIN if is_inbound else istio.UNKNOWN,
    }


def _service_of(series: RequestSeries | TcpSeries) -> str:
    """The full name of the destination service."""
    cluster = series.key.cluster
    if cluster.startswith("outbound|"):
        return istio.cluster_host(cluster)
    provenance = series.provenance if isinstance(series, RequestSeries) else None
    if provenance is not None and provenance.kind == "Service":
        return f"{provenance.name}.{provenance.namespace}.svc.cluster.local"
    return "" if cluster.startswith("inbound|") else cluster


def _requests(page: Exposition, stats: ProxyStats, own: Peer) -> None:
    sums: defaultdict[str, _Sum] = defaultdict(_Sum)
    for series in stats.all_requests():
        common = _common_labels(series.key, series.workload, own, _service_of(series))
        for (status, flags), result in series.results.items():
            labels = {
                **common,
                "request_protocol": "http",
                "response_code": str(status),
                "response_flags": flags or "-",
            }
            found = sums[label_text({**labels, "grpc_response_status": ""})]
            found.count += result.count
            _add(found.duration_ms, result.duration_ms)
            _add(found.request_bytes, result.request_bytes)
            _add(found.response_bytes, result.response_bytes)
    page.family(istio.REQUESTS, "counter", "Requests handled by this proxy.")
    for labels_text, found in sums.items():
        page.sample(istio.REQUESTS, labels_text, found.count)
    _histograms(page, istio.REQUEST_DURATION, "Duration of requests.", ((k, v.duration_ms) for k, v in sums.items()))
    _histograms(page, istio.REQUEST_BYTES, "Size of requests.", ((k, v.request_bytes) for k, v in sums.items()))
    _histograms(page, istio.RESPONSE_BYTES, "Size of responses.", ((k, v.response_bytes) for k, v in sums.items()))


def _histograms(page: Exposition, name: str, help_text: str, found: Iterable[tuple[str, Histogram]]) -> None:
    page.family(name, "histogram", help_text)
    for labels, histogram in found:
        page.histogram(name, labels, BUCKET_BOUNDS, histogram.buckets, histogram.total)


def _tcp(page: Exposition, stats: ProxyStats, own: Peer) -> None:
    sums: defaultdict[str, _TcpSum] = defaultdict(_TcpSum)
    for series in stats.all_tcp():
        common = _common_labels(series.key, series.workload, own, _service_of(series))
        found = sums[label_text({**common, "request_protocol": "tcp", "response_flags": "-"})]
        found.opened += series.opened
        found.closed += series.closed
        found.sent += series.sent_bytes
        found.received += series.received_bytes
    families = (
        (istio.TCP_OPENED, "TCP connections opened.", [(k, v.opened) for k, v in sums.items()]),
        (istio.TCP_CLOSED, "TCP connections closed.", [(k, v.closed) for k, v in sums.items()]),
        (istio.TCP_SENT, "Bytes sent to clients.", [(k, v.sent) for k, v in sums.items()]),
        (istio.TCP_RECEIVED, "Bytes received from clients.", [(k, v.received) for k, v in sums.items()]),
    )
    for name, help_text, samples in families:
        page.family(name, "counter", help_text)
        for labels, value in samples:
            page.sample(name, labels, value)


def _clusters(page: Exposition, clusters: Iterable[ClusterState], stats: ProxyStats) -> None:
    """What people look up about upstreams, under Envoy's names."""
    retries: defaultdict[str, int] = defaultdict(int)
    for series in stats.all_requests():
        retries[series.key.cluster] += series.retries
    states = list(clusters)
    families = (
        ("upstream_rq_retry", "counter", "Retries.", [retries[state.config.name] for state in states]),
        ("upstream_rq_active", "gauge", "Requests in flight.", [state.active for state in states]),
        ("upstream_rq_pending_active", "gauge", "Requests waiting.", [state.pending for state in states]),
        ("upstream_cx_active", "gauge", "Open connections.", [state.connections for state in states]),
        ("membership_total", "gauge", "Endpoints.", [len(state.hosts) for state in states]),
        ("membership_healthy", "gauge", "Usable endpoints.", [state.healthy for state in states]),
        ("membership_degraded", "gauge", "Degraded endpoints.", [state.degraded for state in states]),
        (
            "membership_excluded",
            "gauge",
            "Endpoints that are not counted yet.",
            [sum(host.is_check_excluded for host in state.hosts.values()) for state in states],
        ),
        (
            "lb_healthy_panic",
            "counter",
            "Requests balanced over all endpoints because too few were healthy.",
            [state.balance_counts.panic_picks for state in states],
        ),
        ("lb_subsets_active", "gauge", "Subsets that have an endpoint.", [state.active_subsets() for state in states]),
        (
            "lb_subsets_selected",
            "counter",
            "Requests to a subset of their own.",
            [state.balance_counts.subsets_selected for state in states],
        ),
        (
            "lb_subsets_fallback",
            "counter",
            "Requests to the fallback because no subset matched.",
            [state.balance_counts.subsets_fallback for state in states],
        ),
        *resilience_families(states),
    )
    labels = [label_text({"envoy_cluster_name": state.config.name}) for state in states]
    for name, kind, help_text, values in families:
        page.family(f"envoy_cluster_{name}", kind, help_text)
        for one, value in zip(labels, values, strict=True):
            page.sample(f"envoy_cluster_{name}", one, value)


def _health_checks(page: Exposition, checker: HealthChecker, clusters: Mapping[str, ClusterState]) -> None:
    """Only clusters that are or were checked."""
    if not checker.stats:
        return
    labels = {name: label_text({"envoy_cluster_name": name}) for name in checker.stats}
    for name in ("attempt", "success", "failure", "passive_failure", "network_failure"):
        page.family(f"envoy_cluster_health_check_{name}", "counter", "Active health checks.")
        for cluster, stats in checker.stats.items():
            page.sample(f"envoy_cluster_health_check_{name}", labels[cluster], getattr(stats, name))
    page.family("envoy_cluster_health_check_healthy", "gauge", "Endpoints that pass their active health checks.")
    for cluster in checker.stats.keys() & clusters.keys():
        page.sample("envoy_cluster_health_check_healthy", labels[cluster], checker.healthy(clusters[cluster]))


def _proxy(page: Exposition, source: MetricsSource) -> None:
    stats = source.plane.stats
    counters: dict[str, tuple[str, int]] = {
        "downstream_connections_total": ("Connections accepted.", stats.downstream_connections_opened),
        "downstream_connections_refused_total": ("Connections beyond the limit, closed.", stats.downstream_refused),
        "loops_refused_total": ("Connections straight to an interception port, refused.", stats.loops_refused),
    }
    if source.exporter is not None:
        counters["spans_exported_total"] = ("Spans the collector took.", source.exporter.exported_total)
        counters["spans_dropped_total"] = ("Spans lost.", source.exporter.dropped_total)
    for name, (help_text, value) in counters.items():
        page.family(f"meshwork_sidecar_{name}", "counter", help_text)
        page.sample(f"meshwork_sidecar_{name}", "", value)
    render_xds(page, source.xds)
    page.family("meshwork_sidecar_malformed_requests_total", "counter", "Requests refused by the codec.")
    for reason, count in stats.malformed.items():
        page.sample("meshwork_sidecar_malformed_requests_total", label_text({"reason": reason}), count)
    page.family("meshwork_sidecar_downstream_connections", "gauge", "Connections open now.")
    page.sample("meshwork_sidecar_downstream_connections", "", stats.downstream_connections_active)
    page.family("meshwork_sidecar_downstream_connections_limit", "gauge", "Connections that may be open at once.")
    page.sample("meshwork_sidecar_downstream_connections_limit", "", source.plane.max_downstream_connections)
    page.family(
        "meshwork_sidecar_series_overflowed", "gauge", "1: the series budget is used up; some series share one."
    )
    page.sample("meshwork_sidecar_series_overflowed", "", int(stats.overflowed))


def render_xds(page: Exposition, counters: Mapping[str, int]) -> None:
    """`AdsStatus.counters`."""
    for name, value in counters.items():
        page.family(f"meshwork_sidecar_xds_{name}_total", "counter", "The stream to the control plane.")
        page.sample(f"meshwork_sidecar_xds_{name}_total", "", value)


def render_process(page: Exposition) -> None:
    """What this process uses."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    page.family("process_cpu_seconds_total", "counter", "User and system CPU time.")
    page.sample("process_cpu_seconds_total", "", usage.ru_utime + usage.ru_stime)
    page.family("process_resident_memory_bytes", "gauge", "Resident memory.")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    page.sample("process_resident_memory_bytes", "", pages * os.sysconf("SC_PAGE_SIZE"))
