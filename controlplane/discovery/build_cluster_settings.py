"""TrafficSettings -> the fields of a cluster. Pure."""

from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, health_check_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2

from controlplane.discovery.messages import duration, uint32
from mesh.resilience.outlier import OutlierConfig
from policies.traffic import HealthCheck, Keepalive, LoadBalancing, SlowStart, TrafficSettings

PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_LB_POLICY = {
    LoadBalancing.LEAST_REQUEST: cluster_pb2.Cluster.LEAST_REQUEST,
    LoadBalancing.ROUND_ROBIN: cluster_pb2.Cluster.ROUND_ROBIN,
    LoadBalancing.RANDOM: cluster_pb2.Cluster.RANDOM,
    LoadBalancing.RING_HASH: cluster_pb2.Cluster.RING_HASH,
    LoadBalancing.MAGLEV: cluster_pb2.Cluster.MAGLEV,
}
_AGGRESSION_KEY = "upstream.slow_start_aggression"
"""Envoy lets runtime override the number under this name, which it insists on having."""


def apply_settings(cluster: Any, settings: TrafficSettings, *, is_http: bool) -> None:
    """Set what `settings` say."""
    cluster.connect_timeout.CopyFrom(duration(settings.connect_timeout_s))
    cluster.circuit_breakers.CopyFrom(_limits(settings))
    _balance(cluster, settings)
    if settings.outlier is not None:
        cluster.outlier_detection.CopyFrom(_outlier(settings.outlier))
    if settings.min_health_percent is not None:
        cluster.common_lb_config.healthy_panic_threshold.CopyFrom(
            percent_pb2.Percent(value=settings.min_health_percent)
        )
    if settings.active_locality is not None:
        cluster.common_lb_config.locality_weighted_lb_config.SetInParent()
    if settings.keepalive is not None:
        cluster.upstream_connection_options.CopyFrom(_keepalive(settings.keepalive))
    if settings.health_check is not None:
        cluster.health_checks.append(_health_check(settings.health_check))
    if is_http and _has_http_options(settings):
        cluster.typed_extension_protocol_options[PROTOCOL_OPTIONS].Pack(_http_options(settings))


def _balance(cluster: Any, settings: TrafficSettings) -> None:
    cluster.lb_policy = _LB_POLICY[settings.load_balancing]
    match settings.load_balancing:
        case LoadBalancing.RING_HASH if settings.table_size:
            cluster.ring_hash_lb_config.minimum_ring_size.value = settings.table_size
        case LoadBalancing.MAGLEV if settings.table_size:
            cluster.maglev_lb_config.table_size.value = settings.table_size
        case LoadBalancing.ROUND_ROBIN if settings.slow_start is not None:
            cluster.round_robin_lb_config.slow_start_config.CopyFrom(_slow_start(settings.slow_start))
        case LoadBalancing.LEAST_REQUEST if settings.slow_start is not None:
            cluster.least_request_lb_config.slow_start_config.CopyFrom(_slow_start(settings.slow_start))
        case _:
            pass  # the defaults


def _slow_start(slow_start: SlowStart) -> Any:
    built = cluster_pb2.Cluster.SlowStartConfig(
        slow_start_window=duration(slow_start.window_s),
        min_weight_percent=percent_pb2.Percent(value=slow_start.min_percent),
    )
    built.aggression.default_value = slow_start.aggression
    built.aggression.runtime_key = _AGGRESSION_KEY
    return built


def _limits(settings: TrafficSettings) -> Any:
    threshold = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=uint32(settings.max_connections),
        max_pending_requests=uint32(settings.max_pending_requests),
        max_requests=uint32(settings.max_requests),
    )
    if settings.max_retries is not None:
        threshold.max_retries.value = settings.max_retries
    else:
        threshold.retry_budget.budget_percent.value = settings.budget_percent
        threshold.retry_budget.min_retry_concurrency.value = settings.budget_min
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[threshold])


def _outlier(config: OutlierConfig) -> Any:
    """Only consecutive failures eject: the statistical detectors are set to not enforced."""
    detection = outlier_detection_pb2.OutlierDetection(
        interval=duration(config.interval_s),
        base_ejection_time=duration(config.base_ejection_s),
        max_ejection_time=duration(config.max_ejection_s),
        max_ejection_percent=uint32(config.max_ejection_percent),
        split_external_local_origin_errors=config.split_local_origin,
        enforcing_success_rate=uint32(0),
        enforcing_failure_percentage=uint32(0),
    )
    # Envoy since 1.31 does so only when told to: of three pods 10 % are none.
    detection.always_eject_one_host.value = config.always_eject_one
    for name, threshold in (
        ("consecutive_5xx", config.consecutive_5xx),
        ("consecutive_gateway_failure", config.consecutive_gateway),
    ):
        if threshold:
            getattr(detection, name).value = threshold
        getattr(detection, f"enforcing_{name}").value = 100 if threshold else 0
    if config.split_local_origin:
        if config.consecutive_local_origin:
            detection.consecutive_local_origin_failure.value = config.consecutive_local_origin
        detection.enforcing_consecutive_local_origin_failure.value = 100 if config.consecutive_local_origin else 0
        detection.enforcing_local_origin_success_rate.value = 0
    return detection


def _keepalive(keepalive: Keepalive) -> Any:
    options = cluster_pb2.UpstreamConnectionOptions(tcp_keepalive=address_pb2.TcpKeepalive())
    probing = options.tcp_keepalive
    if keepalive.probes is not None:
        probing.keepalive_probes.value = keepalive.probes
    if keepalive.time_s is not None:
        probing.keepalive_time.value = round(keepalive.time_s)
    if keepalive.interval_s is not None:
        probing.keepalive_interval.value = round(keepalive.interval_s)
    return options


def _health_check(check: HealthCheck) -> Any:
    built = health_check_pb2.HealthCheck(
        timeout=duration(check.timeout_s),
        interval=duration(check.interval_s),
        healthy_threshold=uint32(check.healthy_threshold),
        unhealthy_threshold=uint32(check.unhealthy_threshold),
    )
    if check.path:
        built.http_health_check.path = check.path
        built.http_health_check.host = check.host
    else:
        built.tcp_health_check.SetInParent()
    return built


def _has_http_options(settings: TrafficSettings) -> bool:
    return bool(settings.idle_timeout_s or settings.max_requests_per_connection or settings.max_connection_duration_s)


def _http_options(settings: TrafficSettings) -> Any:
    options = http_protocol_options_pb2.HttpProtocolOptions()
    options.explicit_http_config.http_protocol_options.SetInParent()
    common = options.common_http_protocol_options
    if settings.idle_timeout_s:
        common.idle_timeout.CopyFrom(duration(settings.idle_timeout_s))
    if settings.max_requests_per_connection:
        common.max_requests_per_connection.value = settings.max_requests_per_connection
    if settings.max_connection_duration_s:
        common.max_connection_duration.CopyFrom(duration(settings.max_connection_duration_s))
    return options
