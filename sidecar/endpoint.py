"""One endpoint at run time: its connections, what is in flight to it and waits for it, and what everybody thinks of its health."""

from collections import deque
from typing import TYPE_CHECKING, Protocol

from mesh.balance.endpoint import Endpoint, Health
from mesh.balance.ewma import Latency
from mesh.resilience.outlier import HostHealth

if TYPE_CHECKING:
    from sidecar.cluster import ClusterState
    from sidecar.health_checking import HostCheck
    from sidecar.upstream import UpstreamConnection

_USABLE = frozenset({Health.HEALTHY, Health.DEGRADED})


class Waiter(Protocol):
    """Somebody who waits for a connection to an endpoint."""

    stale_retries: int
    """Kept connections that turned out to be closed; who has met one waits for a new one."""

    def on_connection(self, upstream: "UpstreamConnection") -> None:
        """Here it is."""
        ...

    def on_connect_failed(self, why: str) -> None:
        """None could be made."""
        ...


class EndpointState:
    """One endpoint: its idle connections, requests in flight and health."""

    __slots__ = (
        "active",
        "address",
        "check",
        "cluster",
        "connecting",
        "endpoint",
        "health",
        "idle",
        "is_check_excluded",
        "is_check_failed",
        "is_removed",
        "is_usable",
        "keeps_simply",
        "latency",
        "open",
        "pending",
        "port",
        "text",
        "usable_since",
        "weight",
    )

    def __init__(self, endpoint: Endpoint, cluster: "ClusterState") -> None:
        self.endpoint = endpoint
        self.cluster = cluster
        self.address = endpoint.address
        self.port = endpoint.port
        self.text = f"{endpoint.address}:{endpoint.port}"
        self.weight: float = endpoint.weight
        """The endpoint's, less while it warms up."""
        self.active = 0
        """Requests (and TCP connections) in flight."""
        self.health = HostHealth()
        """What outlier detection thinks of it."""
        self.is_check_failed = False
        """The active health check says no. Whoever changes it calls the cluster's `rebuild`."""
        self.is_check_excluded = False
        """Not counted as a host at all: new and not checked yet, or out by its own word (see `sidecar.health_checking`)."""
        self.is_usable = False
        """Whether it may take requests; the cluster keeps it up to date."""
        self.usable_since = 0.0
        """Monotonic seconds: when it appeared or became usable again."""
        self.latency: Latency | None = None
        """Only with PEAK_EWMA. The exchange says when an attempt was answered well, `ClusterState.fail` when not."""
        self.idle: list[UpstreamConnection] = []
        """Connections ready for a request; the last one was used last."""
        self.open = 0
        """Connections, busy, idle or being made."""
        self.connecting = 0
        self.pending: deque[Waiter] = deque()
        """Requests that wait for a connection. Bounded by the cluster's max_pending."""
        self.check: HostCheck | None = None
        """Its active health check, while it has one."""
        self.is_removed = False
        self.keeps_simply = True
        """Whether a connection that becomes free can go to `idle` without further questions. See `refresh`."""

    def refresh(self) -> None:
        """Call it when `pending`, `is_removed` or `latency` changed."""
        self.keeps_simply = not (
            self.is_removed
            or self.pending
            or self.latency is not None
            or self.cluster.config.max_requests_per_connection
        )

    def can_be_used(self) -> bool:
        """What everybody thinks of it: the control plane, active checks, outlier detection."""
        return (
            self.endpoint.health in _USABLE
            and self.health.ejected_until is None
            and not self.is_check_failed
            and not self.is_check_excluded
            and not self.is_removed
        )

    def latency_ms(self) -> float | None:
        """What PEAK_EWMA expects of it; None with another policy."""
        return None if self.latency is None else round(self.latency.estimate_s(self.cluster.now()) * 1000.0, 3)

    def health_flags(self) -> str:
        """Why it is not simply healthy, in Envoy's words; `healthy` when nothing is wrong."""
        flags = (
            ("/failed_active_hc", self.is_check_failed),
            ("/failed_outlier_check", self.health.ejected_until is not None),
            ("/failed_eds_health", self.endpoint.health is Health.UNHEALTHY),
            ("/eds_status_draining", self.endpoint.health is Health.DRAINING),
            ("/degraded_eds_health", self.endpoint.health is Health.DEGRADED),
        )
        return "".join(name for name, is_set in flags if is_set) or "healthy"
