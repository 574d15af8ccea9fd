"""envoy.config.cluster.v3.Cluster -> Cluster. Pure."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from mesh.balance.endpoint import LoadAssignment
from mesh.xds.decode_endpoints import decode_assignment
from mesh.xds.decode_resilience import decode_limits, decode_outlier
from mesh.xds.decode_routes import decode_provenance
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, unpack, wrapped
from sidecar.config import Cluster, ClusterKind
from sidecar.decode.balancing import decode_balancing
from sidecar.decode.health_checks import decode_health_checks

_Type: Final = cluster_pb2.Cluster
_SUPPORTED: Final = (
    "name",
    "type",
    "eds_cluster_config",
    "connect_timeout",
    "lb_policy",
    "round_robin_lb_config",
    "least_request_lb_config",
    "ring_hash_lb_config",
    "maglev_lb_config",
    "lb_subset_config",
    "load_balancing_policy",
    "load_assignment",
    "circuit_breakers",
    "outlier_detection",
    "health_checks",
    "common_lb_config",
    "typed_extension_protocol_options",
    "metadata",
)
_HARMLESS: Final = (
    "alt_stat_name",
    "per_connection_buffer_limit_bytes",
    "dns_lookup_family",
    "dns_refresh_rate",
    "dns_failure_refresh_rate",
    "respect_dns_ttl",
    "cleanup_interval",
    "upstream_connection_options",
    "ignore_health_on_host_removal",
    "close_connections_on_host_health_failure",
)
"""Accepted: names are not resolved here, and statistics have their own names.

DEVIATION: `ignore_health_on_host_removal` is always true. Envoy by default goes on using an endpoint that the control plane has
removed for as long as it passes its checks; here removed is removed, because an acknowledged drain relies on it.
"""
_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedCluster:
    """A cluster and what the snapshot's assembly must know of it."""

    cluster: Cluster
    """Without endpoints when `eds_name` is set."""
    eds_name: str = ""
    """The ClusterLoadAssignment to wait for; empty: none."""
    is_http2: bool = False
    """Speaks only HTTP/2, so no route may lead there; gRPC collectors do."""

    def with_endpoints(self, assignment: LoadAssignment) -> Cluster:
        """The cluster, complete."""
        return dataclasses.replace(
            self.cluster,
            endpoints=assignment.endpoints,
            overprovisioning_percent=assignment.overprovisioning_percent,
        )


def decode_cluster(cluster: Any, path: str) -> DecodedCluster:
    """One cluster. Raises DecodeError."""
    only(cluster, path, *_SUPPORTED, *_HARMLESS)
    kind, eds_name = _kind(cluster, path)
    balancing = decode_balancing(cluster, path)
    options = _protocol_options(cluster, path)
    is_static = kind is ClusterKind.STATIC and not eds_name
    assignment = (
        decode_assignment(cluster.load_assignment, join(path, "load_assignment")) if is_static else LoadAssignment()
    )
    if kind is ClusterKind.ORIGINAL_DST and cluster.health_checks:
        raise DecodeError(join(path, "health_checks"), "a cluster of type ORIGINAL_DST has no endpoints to check")
    connect_timeout = seconds(cluster, "connect_timeout")
    has_outlier = cluster.HasField("outlier_detection")
    decoded = Cluster(
        name=cluster.name,
        kind=kind,
        endpoints=assignment.endpoints,
        overprovisioning_percent=assignment.overprovisioning_percent,
        lb_policy=balancing.policy,
        choice_count=balancing.choices,
        panic_threshold_percent=balancing.panic_threshold_percent,
        balance=balancing.options,
        connect_timeout_s=5.0 if connect_timeout is None else connect_timeout,
        idle_timeout_s=_idle_timeout(options),
        max_requests_per_connection=_max_requests(options),
        max_stream_duration_s=_max_stream_duration(options),
        limits=decode_limits(cluster.circuit_breakers, join(path, "circuit_breakers")),
        outlier=decode_outlier(cluster.outlier_detection, join(path, "outlier_detection")) if has_outlier else None,
        health_checks=decode_health_checks(cluster.health_checks, join(path, "health_checks")),
        ignores_new_hosts_until_checked=cluster.common_lb_config.ignore_new_hosts_until_first_hc,
        provenance=decode_provenance(cluster),
    )
    is_http2 = options is not None and options.explicit_http_config.HasField("http2_protocol_options")
    return DecodedCluster(cluster=decoded, eds_name=eds_name, is_http2=is_http2)


def _kind(cluster: Any, path: str) -> tuple[ClusterKind, str]:
    if cluster.type == _Type.ORIGINAL_DST:
        return ClusterKind.ORIGINAL_DST, ""
    if cluster.type == _Type.EDS:
        config, where = cluster.eds_cluster_config, join(path, "eds_cluster_config")
        only(config, where, "eds_config", "service_name")
        if not config.eds_config.HasField("ads"):
            raise DecodeError(join(where, "eds_config"), "want ads: {}; endpoints from elsewhere are not supported")
        return ClusterKind.STATIC, config.service_name or cluster.name
    return ClusterKind.STATIC, ""


def _protocol_options(cluster: Any, path: str) -> Any:
    where = join(path, "typed_extension_protocol_options")
    found = None
    for name, typed in cluster.typed_extension_protocol_options.items():
        where_one = f'{where}["{name}"]'
        _, found = unpack(typed, where_one, {_OPTIONS: http_protocol_options_pb2.HttpProtocolOptions})
        only(
            found,
            where_one,
            "common_http_protocol_options",
            "explicit_http_config",
            "use_downstream_protocol_config",
            "auto_config",
        )
    return found


def _idle_timeout(options: Any) -> float:
    found = None if options is None else seconds(options.common_http_protocol_options, "idle_timeout")
    return found or 60.0


def _max_stream_duration(options: Any) -> float | None:
    return None if options is None else seconds(options.common_http_protocol_options, "max_stream_duration") or None


def _max_requests(options: Any) -> int:
    return 0 if options is None else wrapped(options.common_http_protocol_options, "max_requests_per_connection", 0)
