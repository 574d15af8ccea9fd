"""What is counted about one cluster beyond its requests' outcomes. Plain ints, off the short way; names follow Envoy's counters."""


class ClusterCounts:
    """Only grows; outlives a change of the cluster's configuration."""

    __slots__ = (
        "backoffs",
        "backoffs_by_server",
        "connect_failures",
        "connect_timeouts",
        "connection_overflows",
        "hedges",
        "max_duration_reached",
        "pending_overflows",
        "per_host_overflows",
        "retries_limited",
        "retries_refused",
        "retries_succeeded",
        "timeouts",
        "try_idle_timeouts",
        "try_timeouts",
    )

    def __init__(self) -> None:
        self.backoffs = 0
        """upstream_rq_retry_backoff_exponential"""
        self.backoffs_by_server = 0
        """upstream_rq_retry_backoff_ratelimited: waits that a response asked for."""
        self.connect_failures = 0
        """upstream_cx_connect_fail, timeouts included"""
        self.connect_timeouts = 0
        """upstream_cx_connect_timeout"""
        self.connection_overflows = 0
        """upstream_cx_overflow: a request had to wait because max_connections was reached."""
        self.hedges = 0
        """Attempts that were started beside a slow one. Ours."""
        self.max_duration_reached = 0
        """upstream_rq_max_duration_reached"""
        self.pending_overflows = 0
        """upstream_rq_pending_overflow: refused by max_pending or max_requests."""
        self.per_host_overflows = 0
        """As connection_overflows, by the limit of one endpoint. Ours."""
        self.retries_limited = 0
        """upstream_rq_retry_limit_exceeded: num_retries was used up."""
        self.retries_refused = 0
        """upstream_rq_retry_overflow: no place in the budget."""
        self.retries_succeeded = 0
        """upstream_rq_retry_success"""
        self.timeouts = 0
        """upstream_rq_timeout"""
        self.try_idle_timeouts = 0
        """upstream_rq_per_try_idle_timeout"""
        self.try_timeouts = 0
        """upstream_rq_per_try_timeout"""
