"""Outlier detection and circuit breakers of envoy.config.cluster.v3. Pure."""

import dataclasses
from typing import Any, Final

from mesh.errors import MeshError
from mesh.resilience.limits import DEFAULT_LIMITS, CircuitLimits
from mesh.resilience.outlier import OutlierConfig
from mesh.resilience.retry import RetryBudget
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, wrapped

_DEFAULT_PRIORITY: Final = 0
_OUTLIER_INTEGERS: Final = {
    "consecutive_5xx": "consecutive_5xx",
    "enforcing_consecutive_5xx": "enforcing_consecutive_5xx",
    "consecutive_gateway_failure": "consecutive_gateway",
    "enforcing_consecutive_gateway_failure": "enforcing_consecutive_gateway",
    "consecutive_local_origin_failure": "consecutive_local_origin",
    "enforcing_consecutive_local_origin_failure": "enforcing_consecutive_local_origin",
    "success_rate_minimum_hosts": "success_rate_min_hosts",
    "success_rate_request_volume": "success_rate_volume",
    "enforcing_success_rate": "enforcing_success_rate",
    "enforcing_local_origin_success_rate": "enforcing_local_origin_success_rate",
    "failure_percentage_threshold": "failure_percentage_threshold",
    "failure_percentage_minimum_hosts": "failure_percentage_min_hosts",
    "failure_percentage_request_volume": "failure_percentage_volume",
    "enforcing_failure_percentage": "enforcing_failure_percentage",
    "enforcing_failure_percentage_local_origin": "enforcing_local_origin_failure_percentage",
    "max_ejection_percent": "max_ejection_percent",
}
"""Envoy's name -> ours. What is not set keeps OutlierConfig's default, which is Envoy's."""
_OUTLIER_SECONDS: Final = {
    "interval": "interval_s",
    "base_ejection_time": "base_ejection_s",
    "max_ejection_time": "max_ejection_s",
    "max_ejection_time_jitter": "max_ejection_jitter_s",
}


def decode_outlier(detection: Any, path: str) -> OutlierConfig:
    """When hosts are ejected. Raises DecodeError."""
    only(
        detection,
        path,
        *_OUTLIER_INTEGERS,
        *_OUTLIER_SECONDS,
        "success_rate_stdev_factor",
        "split_external_local_origin_errors",
        "successful_active_health_check_uneject_host",
        "always_eject_one_host",
    )
    found: dict[str, Any] = {
        ours: getattr(detection, name).value for name, ours in _OUTLIER_INTEGERS.items() if detection.HasField(name)
    }
    found |= {ours: seconds(detection, name) for name, ours in _OUTLIER_SECONDS.items() if detection.HasField(name)}
    if detection.HasField("success_rate_stdev_factor"):
        found["success_rate_stdev_factor"] = detection.success_rate_stdev_factor.value / 1000.0
    try:
        return OutlierConfig(
            split_local_origin=detection.split_external_local_origin_errors,
            uneject_on_active_check=wrapped(detection, "successful_active_health_check_uneject_host", True),
            always_eject_one=wrapped(detection, "always_eject_one_host", True),
            **found,
        )
    except MeshError as exc:
        raise DecodeError(path, str(exc)) from exc


def decode_limits(breakers: Any, path: str) -> CircuitLimits:
    """Circuit breaker limits of the default priority. Raises DecodeError.

    Thresholds of the HIGH priority are checked and left aside: only routes with that priority would use them, and a route's
    `priority: HIGH` is refused by the routes' decoder. (`max_connection_pools` is refused: there is one pool per endpoint.)
    """
    only(breakers, path, "thresholds", "per_host_thresholds")
    limits = DEFAULT_LIMITS
    for i, threshold in enumerate(breakers.thresholds):
        where = f"{join(path, 'thresholds')}[{i}]"
        only(
            threshold,
            where,
            "priority",
            "max_connections",
            "max_pending_requests",
            "max_requests",
            "max_retries",
            "retry_budget",
            "track_remaining",
        )
        found = _limits(threshold, where)
        if threshold.priority == _DEFAULT_PRIORITY:
            limits = found
    for i, threshold in enumerate(breakers.per_host_thresholds):
        only(threshold, f"{join(path, 'per_host_thresholds')}[{i}]", "priority", "max_connections")
        if threshold.priority == _DEFAULT_PRIORITY and threshold.HasField("max_connections"):
            limits = dataclasses.replace(limits, max_connections_per_host=max(threshold.max_connections.value, 1))
    return limits


def _limits(threshold: Any, path: str) -> CircuitLimits:
    return CircuitLimits(
        max_connections=max(wrapped(threshold, "max_connections", 1024), 1),
        max_pending=wrapped(threshold, "max_pending_requests", 1024),
        max_requests=max(wrapped(threshold, "max_requests", 1024), 1),
        retry_budget=_budget(threshold, path),
    )


def _budget(threshold: Any, path: str) -> RetryBudget:
    if threshold.HasField("retry_budget"):
        only(threshold.retry_budget, join(path, "retry_budget"), "budget_percent", "min_retry_concurrency")
        percent = (
            threshold.retry_budget.budget_percent.value if threshold.retry_budget.HasField("budget_percent") else 20.0
        )
        return RetryBudget(percent=percent, min_concurrency=wrapped(threshold.retry_budget, "min_retry_concurrency", 3))
    if threshold.HasField("max_retries"):
        return RetryBudget(percent=0.0, min_concurrency=threshold.max_retries.value)
    return DEFAULT_LIMITS.retry_budget
