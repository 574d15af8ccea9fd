"""Limits, retries and ejections of clusters as Prometheus families, under Envoy's names. Read at scrape time."""

from collections.abc import Callable, Sequence
from typing import Final

from mesh.resilience.outlier import EjectionKind
from sidecar.cluster import ClusterState

Family = tuple[str, str, str, list[int]]
"""Name without `envoy_cluster_`, kind, help, one value per cluster."""

_COUNTERS: Final = (
    ("upstream_cx_connect_fail", "connect_failures", "Connections that could not be made."),
    ("upstream_cx_connect_timeout", "connect_timeouts", "Connections that were not made in time."),
    ("upstream_cx_overflow", "connection_overflows", "Requests that met max_connections."),
    ("upstream_cx_per_host_overflow", "per_host_overflows", "Requests that met an endpoint's max_connections."),
    ("upstream_rq_pending_overflow", "pending_overflows", "Requests refused by max_pending or max_requests."),
    ("upstream_rq_retry_success", "retries_succeeded", "Retries that brought a good response."),
    ("upstream_rq_retry_overflow", "retries_refused", "Retries refused by the budget."),
    ("upstream_rq_retry_limit_exceeded", "retries_limited", "Failures with all retries used up."),
    ("upstream_rq_retry_backoff_exponential", "backoffs", "Retries after an exponential wait."),
    ("upstream_rq_retry_backoff_ratelimited", "backoffs_by_server", "Retries after a wait the response asked for."),
    ("upstream_rq_timeout", "timeouts", "Requests that ran into the route's timeout."),
    ("upstream_rq_per_try_timeout", "try_timeouts", "Attempts that ran into the per-try timeout."),
    ("upstream_rq_per_try_idle_timeout", "try_idle_timeouts", "Attempts on which nothing moved for too long."),
    ("upstream_rq_max_duration_reached", "max_duration_reached", "Requests ended by max_stream_duration."),
    ("upstream_rq_hedged", "hedges", "Attempts started beside a slow one."),
)

_BREAKERS: Final[tuple[tuple[str, str, Callable[[ClusterState], int]], ...]] = (
    ("cx", "connections", lambda state: state.config.limits.max_connections - state.connections),
    ("pending", "waiting requests", lambda state: state.config.limits.max_pending - state.pending),
    ("rq", "requests", lambda state: state.config.limits.max_requests - state.active),
    ("retries", "retries", lambda state: state.config.limits.retry_budget.limit(state.active) - state.retries),
)
_OPEN_NAMES: Final = {"cx": "cx_open", "pending": "rq_pending_open", "rq": "rq_open", "retries": "rq_retry_open"}


def resilience_families(states: Sequence[ClusterState]) -> list[Family]:
    """Every family of this file."""
    return [*_counters(states), *_breakers(states), *_ejections(states)]


def _counters(states: Sequence[ClusterState]) -> list[Family]:
    return [
        (name, "counter", text, [getattr(state.counts, attribute) for state in states])
        for name, attribute, text in _COUNTERS
    ]


def _breakers(states: Sequence[ClusterState]) -> list[Family]:
    """DEVIATION: Envoy shows what remains only with track_remaining; it costs nothing here."""
    families: list[Family] = []
    for name, what, remaining in _BREAKERS:
        left = [remaining(state) for state in states]
        prefix = "circuit_breakers_default"
        families += [
            (f"{prefix}_remaining_{name}", "gauge", f"More {what} that may be.", [max(0, one) for one in left]),
            (f"{prefix}_{_OPEN_NAMES[name]}", "gauge", f"1: no more {what}.", [int(one <= 0) for one in left]),
        ]
    return families


def _ejections(states: Sequence[ClusterState]) -> list[Family]:
    prefix = "outlier_detection_ejections"
    active = [state.detector.ejected if state.detector is not None else 0 for state in states]
    totals = [state.ejections_total for state in states]
    families: list[Family] = [
        (f"{prefix}_total", "counter", "Endpoints ejected so far.", totals),
        (f"{prefix}_enforced_total", "counter", "Endpoints ejected so far.", totals),
        (f"{prefix}_active", "gauge", "Endpoints out now.", active),
        (f"{prefix}_overflow", "counter", "Outliers kept: too many out.", [s.ejections.overflow for s in states]),
    ]
    for kind in EjectionKind:
        name = kind.value
        enforced = [state.ejections.enforced[kind] for state in states]
        detected = [state.ejections.detected[kind] for state in states]
        families += [
            (f"{prefix}_enforced_{name}", "counter", f"Endpoints ejected by {name}.", enforced),
            (f"{prefix}_detected_{name}", "counter", f"Outliers found by {name}.", detected),
        ]
    return families
