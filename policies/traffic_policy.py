"""trafficPolicy -> TrafficSettings."""

from dataclasses import replace

from mesh.api.traffic_policy import (
    ConnectionPoolSettings,
    OutlierDetection,
    RetryBudget,
    TcpKeepalive,
    TrafficPolicy,
)
from mesh.resilience.outlier import OutlierConfig
from policies.balancing import compile_balancing
from policies.checks import Findings
from policies.traffic import DEFAULT_SETTINGS, Keepalive, TrafficSettings


def compile_traffic(path: str, policy: TrafficPolicy, findings: Findings) -> TrafficSettings:
    """The settings of one cluster. `policy` is whole: what it leaves out has its default."""
    balancing = compile_balancing(f"{path}.loadBalancer", policy.load_balancer, findings)
    outlier = policy.outlier_detection
    percent, least = _budget(f"{path}.retryBudget", policy.retry_budget, findings)
    pool = policy.connection_pool or ConnectionPoolSettings()
    if policy.retry_budget is not None and pool.http.max_retries:
        findings.invalid(f"{path}.retryBudget", "connectionPool.http.maxRetries is given too: remove one of them")
    settings = _pool(f"{path}.connectionPool", pool, findings)
    return replace(
        settings,
        max_retries=settings.max_retries if policy.retry_budget is None else None,
        load_balancing=balancing.algorithm,
        hash_key=balancing.hash_key,
        table_size=balancing.table_size,
        slow_start=balancing.slow_start,
        locality=balancing.locality,
        budget_percent=percent,
        budget_min=least,
        outlier=_outlier(f"{path}.outlierDetection", outlier, findings),
        min_health_percent=_min_health(f"{path}.outlierDetection", outlier, findings),
    )


def _pool(path: str, pool: ConnectionPoolSettings, findings: Findings) -> TrafficSettings:
    _check_pool(path, pool, findings)
    tcp, http, default = pool.tcp, pool.http, DEFAULT_SETTINGS
    connect = findings.duration(f"{path}.tcp.connectTimeout", tcp.connect_timeout)
    http_idle = findings.duration(f"{path}.http.idleTimeout", http.idle_timeout)
    tcp_idle = findings.duration(f"{path}.tcp.idleTimeout", tcp.idle_timeout)
    return TrafficSettings(
        max_connections=tcp.max_connections or default.max_connections,
        max_pending_requests=http.http1_max_pending_requests or default.max_pending_requests,
        max_requests=http.http2_max_requests or default.max_requests,
        max_retries=http.max_retries or None,
        max_requests_per_connection=http.max_requests_per_connection,
        connect_timeout_s=connect or default.connect_timeout_s,
        idle_timeout_s=http_idle or tcp_idle,
        tcp_idle_timeout_s=tcp_idle,
        max_connection_duration_s=findings.duration(f"{path}.tcp.maxConnectionDuration", tcp.max_connection_duration),
        keepalive=_keepalive(f"{path}.tcp.tcpKeepalive", tcp.tcp_keepalive, findings),
    )


def _keepalive(path: str, wanted: TcpKeepalive | None, findings: Findings) -> Keepalive | None:
    if wanted is None:
        return None
    if wanted.probes is not None:
        findings.between(f"{path}.probes", wanted.probes, 1, 127)
    times = {"time": wanted.time, "interval": wanted.interval}
    seconds = {name: findings.duration(f"{path}.{name}", text) for name, text in times.items()}
    for name, value in seconds.items():
        if value is not None and (value < 1 or value != int(value)):
            findings.invalid(f"{path}.{name}", f"{times[name]}: sockets count whole seconds, 1s or more")
    return Keepalive(probes=wanted.probes, time_s=seconds["time"], interval_s=seconds["interval"])


def _check_pool(path: str, pool: ConnectionPoolSettings, findings: Findings) -> None:
    findings.at_least(f"{path}.tcp.maxConnections", pool.tcp.max_connections, 0)
    findings.at_least(f"{path}.http.http1MaxPendingRequests", pool.http.http1_max_pending_requests, 0)
    findings.at_least(f"{path}.http.http2MaxRequests", pool.http.http2_max_requests, 0)
    findings.at_least(f"{path}.http.maxRetries", pool.http.max_retries, 0)
    findings.at_least(f"{path}.http.maxRequestsPerConnection", pool.http.max_requests_per_connection, 0)
    if pool.http.h2_upgrade_policy not in ("", "DEFAULT", "DO_NOT_UPGRADE"):
        findings.unsupported(f"{path}.http.h2UpgradePolicy", "HTTP/2 upstream is not supported: use DO_NOT_UPGRADE")


def _budget(path: str, budget: RetryBudget | None, findings: Findings) -> tuple[float, int]:
    """(percent, always allowed)."""
    default = DEFAULT_SETTINGS
    if budget is None:
        return default.budget_percent, default.budget_min
    least = default.budget_min if budget.min_retry_concurrency is None else budget.min_retry_concurrency
    findings.at_least(f"{path}.minRetryConcurrency", least, 0)
    percent = default.budget_percent if budget.percent is None else findings.percent(f"{path}.percent", budget.percent)
    return percent, max(least, 0)


def _outlier(path: str, outlier: OutlierDetection | None, findings: Findings) -> OutlierConfig | None:
    if outlier is None:
        return None
    default = OutlierConfig()
    counts = {
        "consecutive5xxErrors": (outlier.consecutive_5xx_errors, default.consecutive_5xx),
        "consecutiveGatewayErrors": (
            outlier.consecutive_gateway_errors,
            0,
        ),  # as in Envoy: not enforced unless asked for
        "consecutiveLocalOriginFailures": (outlier.consecutive_local_origin_failures, default.consecutive_local_origin),
    }
    chosen: list[int] = []
    for name, (given, otherwise) in counts.items():
        value = otherwise if given is None else given
        findings.at_least(f"{path}.{name}", value, 0)
        chosen.append(max(value, 0))
    percent = default.max_ejection_percent if outlier.max_ejection_percent is None else outlier.max_ejection_percent
    findings.between(f"{path}.maxEjectionPercent", percent, 0, 100)
    base = findings.duration(f"{path}.baseEjectionTime", outlier.base_ejection_time) or default.base_ejection_s
    return OutlierConfig(
        consecutive_5xx=chosen[0],
        consecutive_gateway=chosen[1],
        consecutive_local_origin=chosen[2],
        split_local_origin=outlier.split_external_local_origin_errors,
        interval_s=findings.duration(f"{path}.interval", outlier.interval) or default.interval_s,
        base_ejection_s=base,
        max_ejection_s=max(default.max_ejection_s, base),
        max_ejection_percent=min(max(percent, 0), 100),
    )


def _min_health(path: str, outlier: OutlierDetection | None, findings: Findings) -> int | None:
    if outlier is None or outlier.min_health_percent is None:
        return None
    findings.between(f"{path}.minHealthPercent", outlier.min_health_percent, 0, 100)
    return outlier.min_health_percent
