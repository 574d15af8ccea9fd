"""A cluster's state: who may be used, and what survives a change."""

import random
from dataclasses import replace

import pytest

from mesh.balance.config import (
    BalanceOptions,
    HashingConfig,
    SlowStartConfig,
    SubsetConfig,
    SubsetFallback,
    SubsetSelector,
)
from mesh.balance.endpoint import Endpoint, Health, Labels, LbPolicy, Locality
from mesh.balance.hashing import hash64
from mesh.resilience.outlier import FailureKind, OutlierConfig
from sidecar.cluster import ClusterState
from sidecar.config import Cluster
from sidecar.endpoint import EndpointState

pytestmark = pytest.mark.unit

KEYS = [hash64(b"%d" % i) for i in range(500)]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def endpoint(name: str, *, version: str = "", **fields: int) -> Endpoint:
    labels: Labels = (("version", version),) if version else ()
    return Endpoint(
        address=name, port=80, labels=labels, priority=fields.get("priority", 0), weight=fields.get("weight", 1)
    )


def state(config: Cluster, clock: Clock | None = None) -> ClusterState:
    return ClusterState(config, random.Random(7), clock or Clock())


def hosts(cluster: ClusterState) -> dict[str, EndpointState]:
    return {host.address: host for host in cluster.hosts.values()}


HASHED = Cluster(
    name="c",
    endpoints=tuple(endpoint(name) for name in "abcde"),
    lb_policy=LbPolicy.MAGLEV,
    balance=BalanceOptions(hashing=HashingConfig(table_size=1009)),
)


def test_equal_keys_go_to_one_endpoint_across_updates_that_do_not_concern_them() -> None:
    cluster = state(HASHED)
    assert cluster.is_hashing
    before = [cluster.pick_for(hash_key=key) for key in KEYS]
    cluster.update(replace(HASHED, connect_timeout_s=1.0))
    assert [cluster.pick_for(hash_key=key) for key in KEYS] == before
    assert len({cluster.pick_for() for _ in range(200)}) == 5


def test_owners_do_not_depend_on_what_was_before() -> None:
    final = replace(
        HASHED,
        endpoints=tuple(endpoint(name, weight=i % 3 + 1) for i, name in enumerate("abcdefg")),
        lb_policy=LbPolicy.RING_HASH,
        balance=BalanceOptions(hashing=HashingConfig(min_ring_size=5, max_ring_size=9)),
    )
    fresh, changed = state(final), state(replace(final, endpoints=final.endpoints[4:]))
    changed.update(replace(final, endpoints=final.endpoints[::-1]))
    changed.update(final)
    for key in KEYS:
        one, other = fresh.pick_for(hash_key=key), changed.pick_for(hash_key=key)
        assert one is not None
        assert other is not None
        assert one.text == other.text


def test_an_unusable_endpoint_hands_its_keys_over() -> None:
    cluster = state(HASHED)
    before = [cluster.pick_for(hash_key=key) for key in KEYS]
    gone = hosts(cluster)["a"]
    gone.is_check_failed = True
    cluster.rebuild()
    during = [cluster.pick_for(hash_key=key) for key in KEYS]
    assert gone not in during
    assert all(new is old or old is gone for old, new in zip(before, during, strict=True))
    gone.is_check_failed = False
    cluster.rebuild()
    assert [cluster.pick_for(hash_key=key) for key in KEYS] == before


def test_a_pinned_endpoint_is_taken_while_it_is_usable_and_untried() -> None:
    cluster = state(HASHED)
    pinned = hosts(cluster)["c"]
    assert {cluster.pick_for(pinned=("c", 80), hash_key=key) for key in KEYS[:50]} == {pinned}
    assert cluster.pick_for(pinned=("c", 80), tried=[pinned]) is not pinned
    pinned.is_check_failed = True
    cluster.rebuild()
    assert cluster.pick_for(pinned=("c", 80)) is not pinned
    assert cluster.pick_for(pinned=("elsewhere", 80)) is not None


DIVIDED = Cluster(
    name="c",
    endpoints=(endpoint("a", version="v1"), endpoint("b", version="v1"), endpoint("c", version="v2")),
    balance=BalanceOptions(subsets=SubsetConfig(selectors=(SubsetSelector(keys=frozenset({"version"})),))),
)
V1: Labels = (("version", "v1"),)
V2: Labels = (("version", "v2"),)


def test_labels_choose_the_subset() -> None:
    cluster = state(DIVIDED)
    found = hosts(cluster)
    assert {cluster.pick_for(labels=V1) for _ in range(20)} == {found["a"], found["b"]}
    assert {cluster.pick_for(labels=V1, tried=[found["a"]]) for _ in range(20)} == {found["b"]}
    assert cluster.pick_for(labels=(("version", "v3"),)) is None
    assert cluster.pick_for() is None
    assert cluster.picker is not None
    assert cluster.picker.pick(random.random) is None
    assert cluster.balance_counts.subsets_selected == 40


def test_subsets_follow_ejections_and_new_labels() -> None:
    cluster = state(replace(DIVIDED, outlier=OutlierConfig(consecutive_5xx=1, max_ejection_percent=50)))
    found = hosts(cluster)
    assert cluster.fail(found["a"], FailureKind.SERVER_ERROR, 0.0)
    assert {cluster.pick_for(labels=V1) for _ in range(20)} == {found["b"]}
    moved = (endpoint("a", version="v1"), endpoint("b", version="v2"), endpoint("c", version="v2"))
    cluster.update(replace(cluster.config, endpoints=moved))
    assert {cluster.pick_for(labels=V2) for _ in range(20)} == {found["b"], found["c"]}


def test_a_fallback_to_any_is_what_plain_requests_get() -> None:
    subsets = SubsetConfig(
        selectors=(SubsetSelector(keys=frozenset({"version"})),), fallback=SubsetFallback.ANY_ENDPOINT
    )
    cluster = state(replace(DIVIDED, balance=BalanceOptions(subsets=subsets)))
    assert cluster.picker is not None
    assert len({cluster.picker.pick(random.random) for _ in range(30)}) == 3
    assert len(cluster.available) == 3


WARMING = Cluster(
    name="c",
    endpoints=(endpoint("a"), endpoint("b")),
    balance=BalanceOptions(slow_start=SlowStartConfig(window_s=10.0, min_weight_percent=10.0)),
)


def share_of(cluster: ClusterState, name: str) -> float:
    assert cluster.picker is not None
    draw = random.Random(11).random
    picked = [cluster.picker.pick(draw) for _ in range(2000)]
    return sum(1 for host in picked if host is not None and host.address == name) / 2000


def test_a_new_endpoint_warms_up_until_its_window_is_over() -> None:
    clock = Clock()
    cluster = state(WARMING, clock)
    clock.now += 60.0
    cluster.sweep(clock.now)
    assert share_of(cluster, "a") == pytest.approx(0.5, abs=0.01)
    cluster.update(replace(WARMING, endpoints=(*WARMING.endpoints, endpoint("new"))))
    assert share_of(cluster, "new") == pytest.approx(0.1 / 2.1, abs=0.01)
    clock.now += 5.0
    cluster.sweep(clock.now)
    assert share_of(cluster, "new") == pytest.approx(0.5 / 2.5, abs=0.01)
    clock.now += 5.0
    cluster.sweep(clock.now)
    assert share_of(cluster, "new") == pytest.approx(1 / 3, abs=0.01)


def test_an_endpoint_that_returns_warms_up_again() -> None:
    clock = Clock()
    cluster = state(WARMING, clock)
    clock.now += 60.0
    back = hosts(cluster)["b"]
    back.is_check_failed = True
    cluster.rebuild()
    clock.now += 60.0
    back.is_check_failed = False
    cluster.rebuild()
    assert share_of(cluster, "b") == pytest.approx(0.1 / 1.1, abs=0.01)


def test_latency_is_measured_only_for_the_policy_that_needs_it() -> None:
    plain = Cluster(name="c", endpoints=(endpoint("a"),))
    cluster = state(plain)
    host = hosts(cluster)["a"]
    assert (host.latency, host.keeps_simply) == (None, True)
    cluster.update(replace(plain, lb_policy=LbPolicy.PEAK_EWMA))
    latency = host.latency
    assert latency is not None
    assert not host.keeps_simply
    cluster.update(replace(cluster.config, connect_timeout_s=1.0))
    assert host.latency is latency
    cluster.fail(host, FailureKind.LOCAL_ORIGIN, 100.0)
    assert latency.estimate_s(100.0) == pytest.approx(1.0)
    cluster.update(plain)
    assert hosts(cluster)["a"].latency is None
    assert hosts(cluster)["a"].keeps_simply


def test_retries_stay_where_load_should_go_then_go_where_room_is() -> None:
    cluster = state(
        Cluster(
            name="c",
            endpoints=(endpoint("a"), endpoint("b"), endpoint("x", priority=1)),
            lb_policy=LbPolicy.LEAST_REQUEST,
        )
    )
    found = hosts(cluster)
    assert {cluster.pick_for(tried=[found["a"]]) for _ in range(30)} == {found["b"]}
    assert cluster.pick_for(tried=[found["a"], found["b"]]) in (found["a"], found["b"])


def test_counts_and_flags_say_who_is_what() -> None:
    specs = (
        ("up", Health.HEALTHY),
        ("so-so", Health.DEGRADED),
        ("down", Health.UNHEALTHY),
        ("leaving", Health.DRAINING),
    )
    cluster = state(
        Cluster(name="c", endpoints=tuple(Endpoint(address=name, port=80, health=health) for name, health in specs))
    )
    assert (cluster.healthy, cluster.degraded) == (1, 1)
    found = hosts(cluster)
    assert [found[name].health_flags() for name, _ in specs] == [
        "healthy", "/degraded_eds_health", "/failed_eds_health", "/eds_status_draining",
    ]  # fmt: skip
    found["up"].is_check_failed = True
    found["up"].health.ejected_until = 1.0
    assert found["up"].health_flags() == "/failed_active_hc/failed_outlier_check"


def test_the_clusters_overprovisioning_decides_when_load_spills() -> None:
    down = Endpoint(address="b", port=80, health=Health.UNHEALTHY)
    endpoints = (endpoint("a"), down, endpoint("x", priority=1))
    spilled = state(Cluster(name="c", endpoints=endpoints, overprovisioning_percent=100))
    assert share_of(spilled, "x") == pytest.approx(0.5, abs=0.03)
    kept = state(Cluster(name="c", endpoints=endpoints, overprovisioning_percent=200))
    assert share_of(kept, "x") == 0.0


def test_a_cluster_that_is_gone_picks_nobody() -> None:
    cluster = state(HASHED)
    picked = cluster.pick_for(hash_key=1)
    cluster.close()
    assert picked is not None
    assert not picked.is_usable
    assert cluster.pick_for(hash_key=1) is None


def test_locality_is_part_of_an_endpoint() -> None:
    east = Endpoint(address="a", port=80, locality=Locality("r", "east"), locality_weight=3)
    west = Endpoint(address="b", port=80, locality=Locality("r", "west"), locality_weight=1)
    cluster = state(Cluster(name="c", endpoints=(east, west), balance=BalanceOptions(is_locality_weighted=True)))
    assert share_of(cluster, "a") == pytest.approx(0.75, abs=0.01)
