"""What the filters count: (metric, label) -> number. Read by the metrics page; bounded."""

import enum

MAX_COUNTS = 4000
"""Beyond it, new labels of a metric share the empty label."""


class FilterCount(enum.Enum):
    """A metric: Envoy's name where Envoy has it, and the name of its label."""

    CORS_VALID = ("envoy_http_cors_origin_valid", "envoy_http_conn_manager_prefix")
    CORS_INVALID = ("envoy_http_cors_origin_invalid", "envoy_http_conn_manager_prefix")
    FAULT_DELAYS = ("envoy_http_fault_delays_injected", "envoy_http_conn_manager_prefix")
    FAULT_ABORTS = ("envoy_http_fault_aborts_injected", "envoy_http_conn_manager_prefix")
    FAULT_OVERFLOW = ("envoy_http_fault_faults_overflow", "envoy_http_conn_manager_prefix")
    LIMIT_ENABLED = ("envoy_http_local_rate_limit_enabled", "envoy_local_http_ratelimit_prefix")
    LIMIT_OK = ("envoy_http_local_rate_limit_ok", "envoy_local_http_ratelimit_prefix")
    LIMIT_LIMITED = ("envoy_http_local_rate_limit_rate_limited", "envoy_local_http_ratelimit_prefix")
    LIMIT_ENFORCED = ("envoy_http_local_rate_limit_enforced", "envoy_local_http_ratelimit_prefix")
    ADAPTIVE_BLOCKED = (
        "envoy_http_adaptive_concurrency_gradient_controller_rq_blocked",
        "envoy_http_conn_manager_prefix",
    )
    SESSION_KEPT = ("meshwork_sidecar_sessions_kept_total", "cluster")
    """Requests that went to the endpoint of their session."""
    SESSION_MOVED = ("meshwork_sidecar_sessions_moved_total", "cluster")
    """Requests that were told a new one."""
    MIRROR_SENT = ("meshwork_sidecar_mirrored_requests_total", "cluster")
    MIRROR_ANSWERED = ("meshwork_sidecar_mirror_responses_total", "cluster")
    MIRROR_FAILED = ("meshwork_sidecar_mirror_failures_total", "cluster")
    MIRROR_DROPPED = ("meshwork_sidecar_mirror_dropped_total", "cluster")
    """Not sent: the cluster's limits are reached, it has no endpoint, or the body is too large."""


class FilterCounts:
    """The counts of one data plane. They only grow while the process lives."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[tuple[FilterCount, str], int] = {}

    def add(self, count: FilterCount, label: str) -> None:
        """One more."""
        key = (count, label)
        if key not in self.values and len(self.values) >= MAX_COUNTS:
            key = (count, "")
        self.values[key] = self.values.get(key, 0) + 1

    def get(self, count: FilterCount, label: str) -> int:
        """How many so far."""
        return self.values.get((count, label), 0)
