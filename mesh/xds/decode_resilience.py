"""Outlier detection and circuit breakers of envoy.config.cluster.v3. Pure."""

from typing import Any, Final

from mesh.errors import MeshError
from mesh.resilience.limits import DEFAULT_LIMITS, CircuitLimits
from mesh.resilience.outlier import OutlierConfig
from mesh.resilience.retry import RetryBudget
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, wrapped

_STATISTICAL: Final = (
    "success_rate_minimum_hosts",
    "success_rate_request_volume",
    "success_rate_stdev_factor",
    "failure_percentage_threshold",
    "failure_percentage_minimum_hosts",
    "failure_percentage_request_volume",
)
"""Read and left aside: they only matter when the detectors below are enforced."""
_NOT_ENFORCED: Final = (
    "enforcing_success_rate",
    "enforcing_failure_percentage",
    "enforcing_failure_percentage_local_origin",
    "enforcing_local_origin_success_rate",
)


def decode_outlier(detection: Any, path: str) -> OutlierConfig:
    """When hosts are ejected. Raises DecodeError.

    DEVIATION: the success rate detector, which Envoy enforces by default, does not exist here; asking for it is an error.
    """
    only(
        detection,
        path,
        "consecutive_5xx",
        "enforcing_consecutive_5xx",
        "consecutive_gateway_failure",
        "enforcing_consecutive_gateway_failure",
        "consecutive_local_origin_failure",
        "enforcing_consecutive_local_origin_failure",
        "split_external_local_origin_errors",
        "interval",
        "base_ejection_time",
        "max_ejection_time",
        "max_ejection_time_jitter",
        "max_ejection_percent",
        *_STATISTICAL,
        *_NOT_ENFORCED,
    )
    for name in _NOT_ENFORCED:
        if wrapped(detection, name, 0):
            raise DecodeError(join(path, name), "this detector is not supported; set it to 0 or remove it")
    base = _or(seconds(detection, "base_ejection_time"), 30.0)
    try:
        return OutlierConfig(
            consecutive_5xx=_threshold(detection, path, "consecutive_5xx", enforced=100),
            consecutive_gateway=_threshold(detection, path, "consecutive_gateway_failure", enforced=0),
            consecutive_local_origin=_threshold(detection, path, "consecutive_local_origin_failure", enforced=100),
            split_local_origin=detection.split_external_local_origin_errors,
            interval_s=_or(seconds(detection, "interval"), 10.0),
            base_ejection_s=base,
            max_ejection_s=_or(seconds(detection, "max_ejection_time"), max(300.0, base)),
            max_ejection_percent=wrapped(detection, "max_ejection_percent", 10),
        )
    except MeshError as exc:
        raise exc if isinstance(exc, DecodeError) else DecodeError(path, str(exc)) from exc


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _threshold(detection: Any, path: str, name: str, *, enforced: int) -> int:
    """A consecutive detector's threshold; 0 when it is not enforced."""
    share = wrapped(detection, f"enforcing_{name}", enforced)
    if share not in (0, 100):
        raise DecodeError(join(path, f"enforcing_{name}"), f"is {share}; only 0 and 100 are supported")
    return wrapped(detection, name, 5) if share else 0


def decode_limits(breakers: Any, path: str) -> CircuitLimits:
    """Circuit breaker limits of the default priority. Raises DecodeError."""
    only(breakers, path, "thresholds")
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
        if threshold.priority == 0:  # HIGH is for routes with that priority, which are refused
            limits = _limits(threshold, where)
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
