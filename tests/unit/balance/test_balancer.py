"""Balancers: priorities, localities, panic and policies together."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.balance.balancer import BalanceCounts, Balancer, BalanceSpec, Surroundings
from mesh.balance.config import BalanceOptions, HashingConfig
from mesh.balance.endpoint import Health, LbPolicy
from mesh.balance.hashing import hash64
from tests.unit.balance.hosts import Member, member, shares

pytestmark = pytest.mark.unit

SMALL = HashingConfig(table_size=1009)


def balancer(hosts: Sequence[Member], counts: BalanceCounts | None = None, **spec: object) -> Balancer[Member]:
    around = Surroundings(
        clock=lambda: 0.0,
        draw=random.Random(4).random,
        in_flight=lambda: sum(host.active for host in hosts),
        counts=counts or BalanceCounts(),
    )
    spec.setdefault("options", BalanceOptions(hashing=SMALL))
    made: Balancer[Member] = Balancer(replace(BalanceSpec(), **spec), around)  # type: ignore[arg-type]
    made.update(hosts)
    return made


def picks(made: Balancer[Member], draws: int = 10000) -> dict[str, float]:
    rng = random.Random(9)
    return shares(lambda: made.picker.pick(rng.random), draws)


@pytest.mark.parametrize("policy", LbPolicy)
def test_every_policy_picks_evenly_among_equals_and_nothing_from_nothing(policy: LbPolicy) -> None:
    found = picks(balancer([member(name) for name in "abc"], policy=policy))
    assert set(found) == {"a", "b", "c"}
    assert all(abs(share - 1 / 3) < 0.07 for share in found.values())
    assert picks(balancer([], policy=policy), 10) == {"": 1.0}


def test_draining_hosts_get_nothing_not_even_in_panic() -> None:
    hosts = [
        member("up"),
        member("leaving", health=Health.DRAINING),
        *(member(f"down{i}", health=Health.UNHEALTHY) for i in range(3)),
    ]
    made = balancer(hosts)
    assert made.is_panicking
    assert set(picks(made)) == {"up", "down0", "down1", "down2"}


def test_hosts_that_are_not_counted_change_nothing() -> None:
    hosts = [member("up"), member("down", health=Health.UNHEALTHY), member("new")]
    hosts[2].is_usable = False
    hosts[2].is_check_excluded = True
    made = balancer(hosts)
    assert (made.is_panicking, set(picks(made))) == (False, {"up"})


def test_load_spills_to_the_next_priority() -> None:
    hosts = [member("a"), member("b"), member("c", health=Health.UNHEALTHY), member("d", health=Health.UNHEALTHY)]
    found = picks(balancer([*hosts, member("x", priority=1), member("y", priority=2)]))
    assert found["a"] + found["b"] == pytest.approx(0.7, abs=0.02)
    assert found["x"] == pytest.approx(0.3, abs=0.02)
    assert "y" not in found


def test_degraded_hosts_take_the_rest() -> None:
    hosts = [member("up"), member("so-so", health=Health.DEGRADED)]
    found = picks(balancer(hosts))
    assert found["so-so"] == pytest.approx(0.3, abs=0.02)
    enough = picks(balancer([*hosts, member("too"), member("three")]))
    assert set(enough) == {"up", "too", "three"}


def test_panic_is_counted() -> None:
    counts = BalanceCounts()
    made = balancer([member("up"), *(member(f"down{i}", health=Health.UNHEALTHY) for i in range(3))], counts)
    picks(made, 10)
    assert counts.panic_picks == 10
    hashing = balancer(
        [member("up"), *(member(f"down{i}", health=Health.UNHEALTHY) for i in range(3))], counts, policy=LbPolicy.MAGLEV
    )
    picks(hashing, 5)
    assert counts.panic_picks == 15


ZONES = [("a1", "a", 3), ("a2", "a", 3), ("b1", "b", 1)]


def test_localities_share_by_weight_and_endpoints_within() -> None:
    hosts = [member(name, zone=zone, zone_weight=weight) for name, zone, weight in ZONES]
    found = picks(balancer(hosts, is_locality_weighted=True))
    assert found["a1"] + found["a2"] == pytest.approx(0.75, abs=0.01)
    assert found["a1"] == pytest.approx(0.375, abs=0.01)
    assert picks(balancer(hosts))["b1"] == pytest.approx(1 / 3, abs=0.01)


def test_a_failing_locality_hands_load_over() -> None:
    hosts = [member(f"a{i}", zone="a", zone_weight=1) for i in range(10)] + [member("b", zone="b", zone_weight=1)]
    for host in hosts[:5]:
        host.is_usable = False
    found = picks(balancer(hosts, is_locality_weighted=True))
    assert found["b"] == pytest.approx(1 / 1.7, abs=0.01)


def test_a_locality_without_weight_gets_nothing_unless_none_has_any() -> None:
    hosts = [member("a", zone="a", zone_weight=2), member("b", zone="b")]
    for policy in (LbPolicy.ROUND_ROBIN, LbPolicy.RING_HASH):
        assert set(picks(balancer(hosts, policy=policy, is_locality_weighted=True))) == {"a"}
    plain = [member("a", zone="a"), member("b", zone="b")]
    for policy in (LbPolicy.ROUND_ROBIN, LbPolicy.RING_HASH):
        assert set(picks(balancer(plain, policy=policy, is_locality_weighted=True))) == {"a", "b"}


@pytest.mark.parametrize("policy", [LbPolicy.ROUND_ROBIN, LbPolicy.MAGLEV])
def test_hosts_without_weight_serve_when_those_with_weight_are_out(policy: LbPolicy) -> None:
    hosts = [member("a", zone="a"), member("b", zone="b", zone_weight=3, health=Health.UNHEALTHY)]
    made = balancer(hosts, policy=policy, is_locality_weighted=True, panic_threshold_percent=0.0)
    assert set(picks(made)) == {"a"}


def test_locality_weights_hold_for_keys_too() -> None:
    hosts = [member(name, zone=zone, zone_weight=weight) for name, zone, weight in ZONES]
    found = picks(balancer(hosts, policy=LbPolicy.MAGLEV, is_locality_weighted=True))
    assert found["b1"] == pytest.approx(0.25, abs=0.02)


def test_another_host_is_found_while_there_is_one() -> None:
    hosts = [member(name) for name in "abc"] + [member("x", priority=1)]
    made = balancer(hosts, policy=LbPolicy.LEAST_REQUEST)
    assert {made.pick_other(hosts[:2]) for _ in range(30)} == {hosts[2]}
    assert {made.pick_other(hosts[:3]) for _ in range(30)} <= set(hosts[:3])
    assert balancer([]).pick_other(hosts) is None


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(LbPolicy)),
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(list(Health)), st.sampled_from("ab"), st.integers(0, 3)),
        max_size=12,
    ),
    st.booleans(),
    st.sampled_from([0.0, 50.0, 100.0]),
)
def test_a_pick_is_always_one_that_may_be_used(
    policy: LbPolicy, found: list[tuple[int, Health, str, int]], is_weighted: bool, threshold: float
) -> None:
    hosts = [
        member(f"h{i}", priority=priority, health=health, zone=zone, zone_weight=weight)
        for i, (priority, health, zone, weight) in enumerate(found)
    ]
    made = balancer(hosts, policy=policy, is_locality_weighted=is_weighted, panic_threshold_percent=threshold)
    usable = {host for host in hosts if host.is_usable}
    rng = random.Random(1)
    for _ in range(20):
        for picked in (made.picker.pick(rng.random), made.pick_hash(rng.getrandbits(64)), made.pick_other(hosts[:3])):
            if picked is None:
                assert threshold == 0 or not made.available
            else:
                assert picked in made.available
                assert picked.endpoint.health is not Health.DRAINING
                assert made.is_panicking or picked in usable


KEYS = [hash64(b"user-%d" % i) for i in range(2000)]


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_an_ejection_moves_only_the_ejected_hosts_keys_and_they_come_back(policy: LbPolicy) -> None:
    hosts = [member(f"h{i}") for i in range(8)]
    made = balancer(hosts, policy=policy)
    before = [made.pick_hash(key) for key in KEYS]
    hosts[3].is_usable = False
    made.update(hosts)
    during = [made.pick_hash(key) for key in KEYS]
    assert all(new is old or old is hosts[3] for old, new in zip(before, during, strict=True))
    heirs = {new for old, new in zip(before, during, strict=True) if old is hosts[3]}
    assert len(heirs) >= 5
    hosts[3].is_usable = True
    made.update(hosts)
    assert [made.pick_hash(key) for key in KEYS] == before


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_a_retry_of_a_key_goes_to_the_same_other_host(policy: LbPolicy) -> None:
    hosts = [member(f"h{i}") for i in range(5)]
    made = balancer(hosts, policy=policy)
    for key in KEYS[:200]:
        first = made.pick_hash(key)
        assert first is not None
        second = made.pick_hash(key, [first])
        assert second is not None
        assert second is not first
        assert made.pick_hash(key, [first]) is second
        assert made.pick_hash(key, hosts) in hosts


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_one_usable_host_of_many_takes_all_keys(policy: LbPolicy) -> None:
    hosts = [member(f"h{i}", health=Health.UNHEALTHY) for i in range(200)] + [member("only")]
    made = balancer(hosts, policy=policy, panic_threshold_percent=0.0)
    assert {made.pick_hash(key) for key in KEYS[:100]} == {hosts[-1]}


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_the_key_chooses_the_priority(policy: LbPolicy) -> None:
    hosts = [member("a"), member("b", health=Health.UNHEALTHY), member("x", priority=1)]
    made = balancer(hosts, policy=policy)
    found = [made.pick_hash(key) for key in KEYS]
    assert found == [made.pick_hash(key) for key in KEYS]
    assert found.count(hosts[2]) / len(KEYS) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("policy", [LbPolicy.RING_HASH, LbPolicy.MAGLEV])
def test_a_hot_key_overflows_to_others_when_loads_are_bounded(policy: LbPolicy) -> None:
    hosts = [member(f"h{i}") for i in range(10)]
    made = balancer(hosts, policy=policy, options=BalanceOptions(hashing=replace(SMALL, balance_factor=150)))
    for _ in range(100):
        picked = made.pick_hash(KEYS[0])
        assert picked is not None
        picked.active += 1
    owner = max(hosts, key=lambda host: host.active)
    assert owner.active <= 17
    assert sum(host.active for host in hosts) == 100
    for host in hosts:
        host.active = 0
    assert made.pick_hash(KEYS[0]) is not None
    assert {made.pick_hash(KEYS[0]) for _ in range(5)} == {made.pick_hash(KEYS[0])}


def test_tables_are_made_in_slices_while_the_old_one_answers() -> None:
    hosts = [member(f"h{i}") for i in range(10)]
    options = BalanceOptions(hashing=HashingConfig(table_size=65537))
    made = balancer(hosts, policy=LbPolicy.MAGLEV, options=options)
    before = [made.pick_hash(key) for key in KEYS]
    made.update([*hosts, member("new")])
    first = [made.pick_hash(key) for key in KEYS[:5]]
    assert first == before[:5]
    for _ in range(100):
        made.advance()
    after = [made.pick_hash(key) for key in KEYS]
    assert {host.name for host in after if host is not None} >= {"new"}
    assert sum(1 for old, new in zip(before, after, strict=True) if old is new) > 0.8 * len(KEYS)


def test_a_removed_host_gets_nothing_before_the_new_table_is_ready() -> None:
    hosts = [member(f"h{i}") for i in range(10)]
    made = balancer(hosts, policy=LbPolicy.MAGLEV, options=BalanceOptions(hashing=HashingConfig(table_size=65537)))
    made.pick_hash(1)
    made.update(hosts[1:])
    for key in KEYS[:30]:
        assert made.pick_hash(key) in hosts[1:]


def test_a_host_made_anew_under_the_same_name_replaces_the_old_one() -> None:
    hosts = [member("a"), member("b")]
    made = balancer(hosts, policy=LbPolicy.RING_HASH)
    again = [member("a"), member("b")]
    assert made.pick_hash(7) in hosts
    made.update(again)
    assert made.pick_hash(7) in again
