"""Clusters at run time: which endpoints may be used now, their connections, and what is in flight.

A `ClusterState` outlives snapshots: `update` takes the new configuration over and keeps the connections and health of the endpoints that
are still there. Everything runs on the loop's thread.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mesh.balance.balancer import BalanceCounts, Balancer, BalanceSpec, Surroundings
from mesh.balance.endpoint import Endpoint, Health, Labels, LbPolicy
from mesh.balance.ewma import Latency
from mesh.balance.pick import Picker
from mesh.balance.slow_start import slow_start_factor
from mesh.balance.subset_balancer import SubsetBalancer
from mesh.resilience.outlier import EjectionCounts, FailureKind, OutlierDetector
from sidecar.cluster_counts import ClusterCounts
from sidecar.config import Cluster, ClusterKind
from sidecar.endpoint import EndpointState

if TYPE_CHECKING:
    from sidecar.upstream import UpstreamConnection

MAX_ORIGINAL_HOSTS = 1024
"""Addresses remembered for an ORIGINAL_DST cluster; unused ones are dropped beyond it."""


class ClusterState:
    """One cluster: the picker over the endpoints that may be used now, limits and outlier detection."""

    __slots__ = (
        "_around",
        "_balancer",
        "_clock",
        "_rng",
        "_subsets",
        "_warming_until",
        "active",
        "available",
        "balance_counts",
        "config",
        "connections",
        "counts",
        "degraded",
        "detector",
        "ejections",
        "has_connected",
        "healthy",
        "hosts",
        "is_hashing",
        "is_original_dst",
        "is_panicking",
        "max_requests",
        "next_sweep",
        "pending",
        "picker",
        "retries",
    )

    def __init__(self, config: Cluster, rng: random.Random, clock: Callable[[], float] = time.monotonic) -> None:
        self._rng = rng
        self._clock = clock
        self.config = config
        self.hosts: dict[tuple[str, int], EndpointState] = {}
        self.available: tuple[EndpointState, ...] = ()
        """What the picker draws from."""
        self.healthy = 0
        """Endpoints that are usable and not degraded."""
        self.degraded = 0
        """Usable endpoints that the control plane calls degraded."""
        self.picker: Picker[EndpointState] | None = None
        """For requests without labels, keys and history. None: ORIGINAL_DST, see `original_host`."""
        self.is_hashing = False
        """Whether requests with equal keys go to one endpoint."""
        self.balance_counts = BalanceCounts()
        self._around = Surroundings(
            clock=clock, draw=rng.random, in_flight=lambda: self.active, counts=self.balance_counts
        )
        self._balancer: Balancer[EndpointState] | None = None
        self._subsets: SubsetBalancer[EndpointState] | None = None
        self._warming_until = 0.0
        """When the last endpoint has its full weight; 0: none is warming up."""
        self.active = 0
        """Requests in flight."""
        self.retries = 0
        """Retries waiting or in flight."""
        self.pending = 0
        """Requests that wait for a connection."""
        self.connections = 0
        self.has_connected = False
        """A connection for a request has been tried at some time."""
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
        self._make_balancer(self.config, config)
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
        if not self.is_original_dst:
            # In the order given: where it matters to a ring, proxies with different pasts must agree.
            self.hosts = {key: self.hosts[key] for key in wanted}
        self._equip_hosts()
        self._refresh(is_same_set=False)
        return closing

    def _make_balancer(self, old: Cluster, new: Cluster) -> None:
        """Balancers outlive configurations that don't concern them: with them their tables and turns."""
        spec, subsets = _balance_spec(new), new.balance.subsets
        self.is_hashing = spec.policy.is_hashing
        if (self._balancer or self._subsets) and spec == _balance_spec(old) and subsets == old.balance.subsets:
            return
        self._balancer = Balancer(spec, self._around) if subsets is None else None
        self._subsets = SubsetBalancer(subsets, spec, self._around) if subsets is not None else None

    def _equip_hosts(self) -> None:
        """Give each host what the policy needs."""
        measures = self.config.lb_policy is LbPolicy.PEAK_EWMA
        ewma = self.config.balance.ewma
        for host in self.hosts.values():
            if not measures:
                host.latency = None
            elif host.latency is None or host.latency.config != ewma:
                host.latency = Latency(ewma, self._clock())
            host.refresh()

    def _drop(self, host: EndpointState) -> list["UpstreamConnection"]:
        host.is_removed = True
        host.is_usable = False
        host.refresh()
        idle, host.idle = host.idle, []
        return idle

    def close(self) -> list["UpstreamConnection"]:
        """The cluster is gone from the configuration. Returns idle connections that are to be closed."""
        closing = [connection for host in self.hosts.values() for connection in self._drop(host)]
        self.hosts = {}
        self._refresh(is_same_set=False)
        return closing

    def rebuild(self) -> None:
        """Work out anew what may be used. Call it when an endpoint was ejected or returned, or a check's verdict changed."""
        self._refresh(is_same_set=True)

    def _refresh(self, *, is_same_set: bool) -> None:
        if self.is_original_dst:
            self.picker = None
            return
        if self.detector is not None:
            self.detector.adopt(host.health for host in self.hosts.values())
        self._look_at_hosts(self._clock())
        if self._subsets is not None:
            self._subsets.update(tuple(self.hosts.values()), is_same_set=is_same_set)
            balancer = self._subsets.fallback()
        else:
            assert self._balancer is not None
            balancer = self._balancer
            balancer.update(tuple(self.hosts.values()))
        self.picker = balancer.picker
        self.available = balancer.available
        self.is_panicking = balancer.is_panicking

    def now(self) -> float:
        """By the cluster's clock."""
        return self._clock()

    def priority_load(self) -> tuple[int, ...]:
        """Percent of the load per priority level, from 0 on; of requests without labels when there are subsets."""
        balancer = self._subsets.fallback() if self._subsets is not None else self._balancer
        shares = balancer.shares if balancer is not None else ()
        return tuple(share.healthy_percent + share.degraded_percent for share in shares)

    def active_subsets(self) -> int:
        """Subsets that have an endpoint."""
        return self._subsets.active if self._subsets is not None else 0

    def _look_at_hosts(self, now: float) -> None:
        """Health and weight of every host as of now."""
        slow_start = self.config.balance.slow_start
        self.healthy = self.degraded = 0
        self._warming_until = 0.0
        for host in self.hosts.values():
            is_usable = host.can_be_used()
            if is_usable and not host.is_usable:
                host.usable_since = now
            host.is_usable = is_usable
            if not is_usable:
                continue
            if host.endpoint.health is Health.DEGRADED:
                self.degraded += 1
            else:
                self.healthy += 1
            if slow_start is not None:
                host.weight = host.endpoint.weight * slow_start_factor(slow_start, now - host.usable_since)
                if now < host.usable_since + slow_start.window_s:
                    self._warming_until = max(self._warming_until, host.usable_since + slow_start.window_s)

    def pick_for(
        self,
        *,
        hash_key: int | None = None,
        labels: Labels = (),
        pinned: tuple[str, int] | None = None,
        tried: Sequence[EndpointState] = (),
    ) -> EndpointState | None:
        """A host for a request that is not plain; None when there is none. Not for ORIGINAL_DST.

        `hash_key` (64 bits) decides with hashing policies; `labels`, sorted by name, choose the subset; `pinned` is taken while it is
        usable; a host that was `tried` is avoided while there is another.
        """
        if pinned is not None:
            host = self.hosts.get(pinned)
            if host is not None and host.is_usable and host not in tried:
                return host
        balancer = self._subsets.find(labels) if self._subsets is not None else self._balancer
        if balancer is None:
            return None
        if self.is_hashing:
            key = hash_key if hash_key is not None else int(self._rng.random() * 0x1_0000_0000_0000_0000)
            return balancer.pick_hash(key, tried)
        return balancer.pick_other(tried) if tried else balancer.picker.pick(self._rng.random)

    def hosts_with(self, labels: Labels) -> list[EndpointState]:
        """The hosts that carry all of these labels."""
        return [host for host in self.hosts.values() if set(labels) <= set(host.endpoint.labels)]

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
        if host.latency is not None:
            host.latency.fail(now)
        detector = self.detector
        if detector is None or host.is_removed:
            return False
        if not detector.on_failure(host.health, kind, hosts=len(self.hosts), now=now):
            return False
        self.rebuild()
        return True

    def uneject(self, host: EndpointState) -> bool:
        """An active health check passed: an ejected host may return. False when nothing changed."""
        if self.detector is None or not self.detector.on_active_check_passed(host.health):
            return False
        self.rebuild()
        return True

    @property
    def ejections_total(self) -> int:
        """Ejections so far, also by earlier configurations."""
        return self.ejections.total

    def sweep(self, now: float) -> None:
        """Let ejected hosts return and eject others by their rates. Cheap when nothing is due; call it about once a second."""
        if self.is_hashing:
            self._advance_tables()
        if self._warming_until:
            self.rebuild()
        if self.detector is None or now < self.next_sweep:
            return
        self.next_sweep = now + self.detector.config.interval_s
        if self.detector.sweep((host.health for host in self.hosts.values()), now):
            self.rebuild()

    def _advance_tables(self) -> None:
        """Tables of hashing policies are made in slices, by requests or, without any, here."""
        if self._balancer is not None:
            self._balancer.advance()
        if self._subsets is not None:
            self._subsets.advance()

    def may_retry(self) -> bool:
        """Whether the retry budget has room."""
        return self.config.limits.retry_budget.allows(active_requests=self.active, active_retries=self.retries)


def _balance_spec(config: Cluster) -> BalanceSpec:
    subsets = config.balance.subsets
    return BalanceSpec(
        policy=config.lb_policy,
        choices=config.choice_count,
        panic_threshold_percent=config.panic_threshold_percent,
        overprovisioning_percent=config.overprovisioning_percent,
        options=config.balance,
        is_locality_weighted=config.balance.is_locality_weighted and (subsets is None or subsets.is_locality_aware),
    )
