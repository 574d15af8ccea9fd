"""Circuit breaker limits of a cluster: how much may be in flight before requests are refused at once."""

from dataclasses import dataclass, replace

from mesh.resilience.retry import RetryBudget

DEFAULT_BUDGET = RetryBudget()


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitLimits:
    """Ceilings of one cluster. Counted per sidecar. Source: Envoy CircuitBreakers.Thresholds and its defaults.

    DEVIATION: Istio sets them all to 2**32 - 1; here they stay finite unless somebody says otherwise.
    """

    max_connections: int = 1024
    """Open upstream connections, >= 1. A request beyond it waits (see max_pending)."""
    max_pending: int = 1024
    """Requests that wait for a connection, >= 0. One more is answered 503 (flag UO)."""
    max_requests: int = 1024
    """Requests in flight, >= 1. One more is answered 503 (flag UO)."""
    retry_budget: RetryBudget = DEFAULT_BUDGET
    """Retries in flight. One more waits a little, then it is not made (flag UO). A plain max_retries is a budget of 0 % with that
    minimum. DEVIATION: without either Envoy allows 3; here the budget is on."""
    max_connections_per_host: int | None = None
    """Open connections of one endpoint, >= 1; a request beyond it waits. None: no limit of its own. Source: per_host_thresholds."""


DEFAULT_LIMITS = CircuitLimits()


def share_of(limits: CircuitLimits, worker_count: int) -> CircuitLimits:
    """The limits of one of `worker_count` (>= 1) processes that share a cluster's traffic: rounded up, so none is 0 that was not."""
    if worker_count == 1:
        return limits

    def share(limit: int) -> int:
        return -(-limit // worker_count)

    budget, per_host = limits.retry_budget, limits.max_connections_per_host
    return CircuitLimits(
        max_connections=share(limits.max_connections),
        max_pending=share(limits.max_pending),
        max_requests=share(limits.max_requests),
        retry_budget=replace(budget, min_concurrency=share(budget.min_concurrency)),
        max_connections_per_host=None if per_host is None else share(per_host),
    )
