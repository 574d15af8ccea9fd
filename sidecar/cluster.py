"""Clusters at run time: which endpoints may be used now, their connections, and what is in flight.

A `ClusterState` outlives snapshots: `update` takes the new configuration over and keeps the connections and health of the endpoints that
are still there. Everything runs on the loop's thread.
"""

import random
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mesh.balance.endpoint import Endpoint, Health, LbPolicy
from mesh.balance.pick import Picker, make_picker
from mesh.resilience.outlier import EjectionCounts, FailureKind, HostHealth, OutlierDetector
from sidecar.cluster_counts import ClusterCounts
from sidecar.config import Cluster, ClusterKind

if TYPE_CHECKING:
    from sidecar.exchange import Exchange
    from sidecar.upstream import UpstreamConnection

MAX_ORIGINAL_HOSTS = 1024
"""Addresses remembered for an ORIGINAL_DST cluster; unused ones are dropped beyond it."""


class EndpointState:
    """One endpoint: its idle connections, requests in flight and health."""

    __slots__ = (
        "active",
        "address",
        "cluster",
        "connecting",
        "endpoint",
        "health",
        "idle",
        "is_removed",
        "keeps_simply",
        "open",
        "pending",
        "port",
        "text",
        "weight",
    )

    def __init__(self, endpoint: Endpoint, cluster: "ClusterState") -> None:
        self.endpoint = endpoint
        self.cluster = cluster
        self.address = endpoint.address
        self.port = endpoint.port
        self.text = f"{endpoint.address}:{endpoint.port}"
        self.weight = endpoint.weight
        self.active = 0
        """Requests (and TCP connections) in flight."""
        self.health = HostHealth()
        self.idle: list[UpstreamConnection] = []
        """Connections ready for a request; the last one was used last."""
        self.open = 0
        """Connections, busy, idle or being made."""
        self.connecting = 0
        self.pending: deque[Exchange] = deque()
        """Requests that wait for a connection. Bounded by the cluster's max_pending."""
        self.is_removed = False
        self.keeps_simply = True
        """Whether a connection that becomes free can go to `idle` without further questions. See `refresh`."""

    def refresh(self) -> None:
        """Call it when `pending` or `is_removed` changed."""
        self.keeps_simply = not (self.is_removed or self.pending or self.cluster.config.max_requests_per_connection)


class ClusterState:
    """One cluster: the picker over the endpoints that may be used now, limits and outlier detection."""

    __slots__ = (
        "_rng",
        "active",
        "available",
        "config",
        "connections",
        "counts",
        "detector",
        "ejections",
        "hosts",
        "is_original_dst",
        "is_panicking",
        "max_requests",
        "next_sweep",
        "pending",
        "picker",
        "retries",
    )

    def __init__(self, config: Cluster, rng: random.Random) -> None:
        self._rng = rng
        self.config = config
        self.hosts: dict[tuple[str, int], EndpointState] = {}
        self.available: tuple[EndpointState, ...] = ()
        """What the picker draws from."""
        self.picker: Picker[EndpointState] | None = None
        """None: ORIGINAL_DST, see `original_host`."""
        self.active = 0
        """Requests in flight."""
        self.retries = 0
        """Retries waiting or in flight."""
        self.pending = 0
        """Requests that wait for a connection."""
        self.connections = 0
        self.is_panicking = False
        """Too few endpoints are usable, so all are used."""
        self.ejections = EjectionCounts()
        self.counts = ClusterCounts()
        self.next_sweep = 0.0
        self.detector: OutlierDetector | None = None
        self.is_original_dst = False
        self.max_requests = 0
        self._take(config)

    def update(self, config: Cluster) -> list["UpstreamConnection"]:
        """Take a new configuration. Returns idle connections that are to be closed."""
        if config is self.config or config == self.config:
            return []
        return self._take(config)

    def _take(self, config: Cluster) -> list["UpstreamConnection"]:
        self.config = config
        self.max_requests = config.limits.max_requests
        self.is_original_dst = config.kind is ClusterKind.ORIGINAL_DST
        if config.outlier is None:
            self.detector = None
            for known in self.hosts.values():
                known.health.ejected_until = None  # nobody would let it return
        elif self.detector is None or self.detector.config != config.outlier:
            self.detector = OutlierDetector(config.outlier, self._rng.random, self.ejections)
        wanted = {(endpoint.address, endpoint.port): endpoint for endpoint in config.endpoints}
        closing: list[UpstreamConnection] = []
        if not self.is_original_dst:
            for key in [key for key in self.hosts if key not in wanted]:
                closing += self._drop(self.hosts.pop(key))
        for key, endpoint in wanted.items():
            host = self.hosts.get(key)
            if host is None:
                self.hosts[key] = EndpointState(endpoint, self)
            else:
                host.endpoint = endpoint
                host.weight = endpoint.weight
                host.refresh()
        self.rebuild()
        return closing

    def _drop(self, host: EndpointState) -> list["UpstreamConnection"]:
        host.is_removed = True
        host.refresh()
        idle, host.idle = host.idle, []
        return idle

    def close(self) -> list["UpstreamConnection"]:
        """The cluster is gone from the configuration. Returns idle connections that are to be closed."""
        closing = [connection for host in self.hosts.values() for connection in self._drop(host)]
        self.hosts = {}
        self.rebuild()
        return closing

    def rebuild(self) -> None:
        """Work out anew what may be used. Call it when an endpoint was ejected or returned."""
        if self.is_original_dst:
            self.picker = None
            return
        if self.detector is not None:
            self.detector.adopt(host.health for host in self.hosts.values())
        levels: dict[int, list[EndpointState]] = {}
        for host in self.hosts.values():
            if host.endpoint.health is not Health.DRAINING:
                levels.setdefault(host.endpoint.priority, []).append(host)
        self.available = ()
        self.is_panicking = False
        for _, level in sorted(levels.items()):
            usable = [host for host in level if _is_usable(host)]
            if len(usable) * 100 >= len(level) * self.config.panic_threshold_percent and usable:
                self.available = tuple(usable)
                break
        else:
            self._panic(levels)
        self.picker = make_picker(
            self.config.lb_policy, self.available, choices=self.config.choice_count, start=self._rng.random()
        )

    def _panic(self, levels: dict[int, list[EndpointState]]) -> None:
        """No priority level is healthy enough. Below the threshold the first level is used whole; a threshold of 0 uses what is usable."""
        if not levels:
            return
        first = levels[min(levels)]
        if self.config.panic_threshold_percent > 0:
            self.is_panicking = True
            self.available = tuple(first)
        else:
            self.available = tuple(host for level in levels.values() for host in level if _is_usable(host))

    def pick_other(self, tried: Sequence[EndpointState]) -> EndpointState | None:
        """A host for a retry: among those not tried, if there are any, the one with the least in flight (ties by chance)."""
        if self.picker is None:
            return tried[-1] if tried else None
        fresh = [host for host in self.available if host not in tried]
        if not fresh:
            return self.picker.pick(self._rng.random)
        policy = LbPolicy.RANDOM if self.config.lb_policy is LbPolicy.RANDOM else LbPolicy.LEAST_REQUEST
        return make_picker(policy, fresh).pick(self._rng.random)

    def original_host(self, destination: tuple[str, int] | None) -> EndpointState | None:
        """The host of an ORIGINAL_DST cluster for the address that the client meant."""
        if destination is None:
            return None
        host = self.hosts.get(destination)
        if host is None:
            if len(self.hosts) >= MAX_ORIGINAL_HOSTS:
                self._forget_unused()
            host = EndpointState(Endpoint(address=destination[0], port=destination[1]), self)
            self.hosts[destination] = host
        return host

    def _forget_unused(self) -> None:
        for key in [key for key, host in self.hosts.items() if host.open == 0 and host.active == 0]:
            del self.hosts[key]

    def fail(self, host: EndpointState, kind: FailureKind, now: float) -> bool:
        """Count a failure of `host`. True when it has just been ejected."""
        detector = self.detector
        if detector is None or host.is_removed:
            return False
        if not detector.on_failure(host.health, kind, hosts=len(self.hosts), now=now):
            return False
        self.rebuild()
        return True

    @property
    def ejections_total(self) -> int:
        """Ejections so far, also by earlier configurations."""
        return self.ejections.total

    def sweep(self, now: float) -> None:
        """Let ejected hosts return and eject others by their rates. Cheap when nothing is due; call it about once a second."""
        if self.detector is None or now < self.next_sweep:
            return
        self.next_sweep = now + self.detector.config.interval_s
        if self.detector.sweep((host.health for host in self.hosts.values()), now):
            self.rebuild()

    def may_retry(self) -> bool:
        """Whether the retry budget has room."""
        return self.config.limits.retry_budget.allows(active_requests=self.active, active_retries=self.retries)


def _is_usable(host: EndpointState) -> bool:
    return host.endpoint.health is Health.HEALTHY and host.health.ejected_until is None
