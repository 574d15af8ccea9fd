"""Whatever happens to a cluster in whatever order, picks stay right: a random walk over updates, checks, ejections and time."""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mesh.balance.config import (
    BalanceOptions,
    HashingConfig,
    SlowStartConfig,
    SubsetConfig,
    SubsetFallback,
    SubsetSelector,
)
from mesh.balance.endpoint import Endpoint, Health, LbPolicy, Locality
from mesh.resilience.outlier import FailureKind, OutlierConfig
from sidecar.cluster import ClusterState
from sidecar.config import Cluster
from sidecar.endpoint import EndpointState

pytestmark = pytest.mark.unit

endpoints = st.lists(
    st.builds(
        lambda name, priority, weight, health, zone, version: Endpoint(
            address=name,
            port=80,
            priority=priority,
            weight=weight,
            health=health,
            locality=Locality(zone=zone),
            locality_weight=len(zone),
            labels=(("version", version),),
        ),
        st.sampled_from("abcdefgh"),
        st.integers(0, 2),
        st.integers(1, 3),
        st.sampled_from(list(Health)),
        st.sampled_from(["", "x", "yy"]),
        st.sampled_from(["v1", "v2"]),
    ),
    max_size=8,
    unique_by=lambda one: one.address,
).map(tuple)
SUBSETS = SubsetConfig(
    selectors=(SubsetSelector(keys=frozenset({"version"})),), fallback=SubsetFallback.ANY_ENDPOINT, panic_mode_any=True
)


class Changes(RuleBasedStateMachine):
    """The cluster must never give out an endpoint that is gone, draining, or unusable without a panic."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.rng = random.Random(1)
        self.removed: list[EndpointState] = []

    @initialize(
        policy=st.sampled_from(list(LbPolicy)),
        found=endpoints,
        is_weighted=st.booleans(),
        is_divided=st.booleans(),
        threshold=st.sampled_from([0.0, 50.0]),
    )
    def begin(
        self, policy: LbPolicy, found: tuple[Endpoint, ...], is_weighted: bool, is_divided: bool, threshold: float
    ) -> None:
        options = BalanceOptions(
            slow_start=SlowStartConfig(window_s=5.0),
            hashing=HashingConfig(min_ring_size=16, table_size=2003, balance_factor=120),
            is_locality_weighted=is_weighted,
            subsets=SUBSETS if is_divided else None,
        )
        config = Cluster(
            name="c",
            endpoints=found,
            lb_policy=policy,
            balance=options,
            panic_threshold_percent=threshold,
            outlier=OutlierConfig(consecutive_5xx=1, max_ejection_percent=60, interval_s=1.0, base_ejection_s=3.0),
        )
        self.cluster = ClusterState(config, self.rng, lambda: self.now)

    @rule(found=endpoints)
    def update(self, found: tuple[Endpoint, ...]) -> None:
        before = list(self.cluster.hosts.values())
        self.cluster.update(replace(self.cluster.config, endpoints=found))
        now = set(self.cluster.hosts.values())
        self.removed += [host for host in before if host not in now]

    @rule(policy=st.sampled_from(list(LbPolicy)))
    def change_policy(self, policy: LbPolicy) -> None:
        self.cluster.update(replace(self.cluster.config, lb_policy=policy))

    @rule(at=st.integers(0, 7))
    def fail(self, at: int) -> None:
        hosts = list(self.cluster.hosts.values())
        if hosts:
            self.cluster.fail(hosts[at % len(hosts)], FailureKind.SERVER_ERROR, self.now)

    @rule(at=st.integers(0, 7), verdict=st.booleans(), excluded=st.booleans())
    def check(self, at: int, verdict: bool, excluded: bool) -> None:
        hosts = list(self.cluster.hosts.values())
        if hosts:
            hosts[at % len(hosts)].is_check_failed = verdict
            hosts[at % len(hosts)].is_check_excluded = excluded
            self.cluster.rebuild()

    @rule(seconds=st.floats(0.1, 10.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.cluster.sweep(self.now)

    @rule(key=st.integers(0, 2**64 - 1), version=st.sampled_from(["", "v1", "v9"]), tries=st.integers(0, 3))
    def pick(self, key: int, version: str, tries: int) -> None:
        labels = (("version", version),) if version else ()
        tried: list[EndpointState] = []
        for _ in range(tries + 1):
            host = self.cluster.pick_for(hash_key=key, labels=labels, tried=tried)
            self.must_be_right(host)
            if host is None:
                break
            host.active = (host.active + 1) % 7
            tried.append(host)

    @invariant()
    def plain_picks_are_right(self) -> None:
        cluster = getattr(self, "cluster", None)
        if cluster is not None and cluster.picker is not None:
            for _ in range(3):
                self.must_be_right(cluster.picker.pick(self.rng.random))

    def must_be_right(self, host: EndpointState | None) -> None:
        hosts = self.cluster.hosts.values()
        if host is None:
            return
        assert host in hosts
        assert not host.is_removed
        assert not host.is_check_excluded
        assert host.endpoint.health is not Health.DRAINING
        if self.cluster.config.panic_threshold_percent == 0:
            assert host.can_be_used()

    @invariant()
    def counts_are_right(self) -> None:
        cluster = getattr(self, "cluster", None)
        if cluster is not None:
            usable = [host for host in cluster.hosts.values() if host.can_be_used()]
            assert cluster.healthy + cluster.degraded == len(usable)
            assert all(host.is_usable == host.can_be_used() for host in cluster.hosts.values())
            assert not any(host.is_usable for host in self.removed)
            assert sum(cluster.priority_load()) in (0, 100)


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # making a failure shorter takes minutes here
)
