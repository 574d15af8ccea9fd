"""Pickers: shares, load and order."""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.balance.config import BalanceOptions, HashingConfig, SlowStartConfig, SubsetSelector
from mesh.balance.edf import Edf
from mesh.balance.endpoint import Endpoint
from mesh.balance.errors import BalanceConfigError
from mesh.balance.pick import FullScan, LeastRequest, Picker, Random, RoundRobin, WeightedDraw, WeightedLeastRequest
from tests.unit.balance.hosts import Host, shares

pytestmark = pytest.mark.unit

Make = Callable[[Sequence[Host]], Picker[Host]]
EQUAL: list[Make] = [LeastRequest, FullScan, Random, RoundRobin, WeightedLeastRequest]
WEIGHTED: list[Make] = [Random, RoundRobin, WeightedLeastRequest]


@pytest.mark.parametrize("make", EQUAL)
def test_equal_hosts_get_equal_shares(make: Make) -> None:
    picker, rng = make([Host("a"), Host("b"), Host("c")]), random.Random(3)
    found = shares(lambda: picker.pick(rng.random))
    assert all(abs(share - 1 / 3) < 0.02 for share in found.values())


@pytest.mark.parametrize("make", WEIGHTED)
def test_weights_are_shares_when_nothing_is_in_flight(make: Make) -> None:
    picker, rng = make([Host("a", 6), Host("b", 3), Host("c", 1)]), random.Random(3)
    found = shares(lambda: picker.pick(rng.random))
    assert found["a"] == pytest.approx(0.6, abs=0.02)
    assert found["c"] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("make", EQUAL)
def test_one_host_and_none(make: Make) -> None:
    only = Host("a")
    assert make([only]).pick(random.random) is only
    assert make([]).pick(random.random) is None


def test_two_choices_always_prefer_the_less_loaded_of_two() -> None:
    rng = random.Random(1)
    hosts = [Host("busy", active=5), Host("free")]
    assert {LeastRequest(hosts).pick(rng.random) for _ in range(200)} == {hosts[1]}


def test_two_choices_keep_the_load_even() -> None:
    rng = random.Random(2)
    hosts = [Host(str(n)) for n in range(10)]
    picker = LeastRequest(hosts)
    for _ in range(1000):
        host = picker.pick(rng.random)
        assert host is not None
        host.active += 1
    loads = [host.active for host in hosts]
    assert max(loads) - min(loads) <= 6


@pytest.mark.parametrize(("bias", "share"), [(0.0, 0.5), (1.0, 0.2), (2.0, 1 / 17)])
def test_requests_in_flight_lower_a_weight_by_the_bias(bias: float, share: float) -> None:
    picker = WeightedLeastRequest([Host("busy", weight=2, active=3), Host("free", weight=2)], bias)
    assert shares(lambda: picker.pick(random.random))["busy"] == pytest.approx(share, abs=0.01)


def test_load_settles_where_weight_by_load_is_equal() -> None:
    """Each host answers after as many picks as it has in flight times ten: more weight, more load, and nobody starves."""
    rng = random.Random(2)
    hosts = [Host("big", weight=4), Host("small", weight=1)]
    picker = WeightedLeastRequest(hosts)
    ends: list[tuple[int, Host]] = []
    picked = {"big": 0, "small": 0}
    for now in range(5000):
        for end in [end for end in ends if end[0] <= now]:
            ends.remove(end)
            end[1].active -= 1
        host = picker.pick(rng.random)
        assert host is not None
        host.active += 1
        picked[host.name] += 1
        ends.append((now + 10, host))
    assert 1.5 < picked["big"] / picked["small"] < 4.0


def test_more_choices_find_the_least_loaded_more_often() -> None:
    rng = random.Random(2)
    hosts = [Host(str(n), active=1) for n in range(9)] + [Host("free")]
    picker = LeastRequest(hosts, choices=8)
    assert sum(1 for _ in range(1000) if picker.pick(rng.random) is hosts[9]) > 450


def test_full_scan_finds_the_least_loaded_and_breaks_ties_by_chance() -> None:
    rng = random.Random(2)
    picker = FullScan([Host("a", active=1), Host("b"), Host("c", active=2), Host("d")])
    found = shares(lambda: picker.pick(rng.random))
    assert found.keys() == {"b", "d"}
    assert found["b"] == pytest.approx(0.5, abs=0.02)


def test_weighted_round_robin_has_no_bursts() -> None:
    picker = RoundRobin([Host("a", 5), Host("b", 1), Host("c", 1)])
    order = "".join(host.name for _ in range(70) if (host := picker.pick(random.random)) is not None)
    assert {order[i : i + 7].count("a") for i in range(63)} <= {4, 5, 6}
    assert order.count("b") == order.count("c") == 10


def test_round_robin_starts_where_told() -> None:
    picker = RoundRobin([Host("a"), Host("b"), Host("c")], start=0.5)
    assert [host.name for _ in range(4) if (host := picker.pick(random.random)) is not None] == ["b", "c", "a", "b"]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_turns_follow_weights_to_within_one(weights: list[int], start: float) -> None:
    turns = Edf([Host(str(i), weight) for i, weight in enumerate(weights)], lambda host: host.weight, start)
    rounds = 3
    counts = dict.fromkeys(map(str, range(len(weights))), 0)
    for _ in range(rounds * sum(weights)):
        counts[turns.next().name] += 1
    for i, weight in enumerate(weights):
        assert abs(counts[str(i)] - rounds * weight) <= 1


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=20), st.floats(0, 1, exclude_max=True))
def test_a_draw_always_hits_a_host(weights: list[float], chance: float) -> None:
    hosts = [Host(str(i), weight) for i, weight in enumerate(weights)]
    assert WeightedDraw(hosts).draw(lambda: chance) in hosts
    assert WeightedDraw(hosts).draw(lambda: 1.0 - 2.0**-53) in hosts


def test_values_out_of_bounds_are_refused() -> None:
    with pytest.raises(BalanceConfigError, match="weight is 0"):
        Endpoint(address="10.0.0.1", port=80, weight=0)
    with pytest.raises(BalanceConfigError, match="port is 0"):
        Endpoint(address="10.0.0.1", port=0)
    with pytest.raises(BalanceConfigError, match="not a prime"):
        HashingConfig(table_size=65536)
    with pytest.raises(BalanceConfigError, match="minimum <= maximum"):
        HashingConfig(min_ring_size=10, max_ring_size=9)
    with pytest.raises(BalanceConfigError, match="want 0 or >= 100"):
        HashingConfig(balance_factor=99)
    with pytest.raises(BalanceConfigError, match="must be > 0"):
        SlowStartConfig(window_s=0.0)
    with pytest.raises(BalanceConfigError, match="want >= 0"):
        BalanceOptions(active_request_bias=-1.0)
    with pytest.raises(BalanceConfigError, match="without keys"):
        SubsetSelector(keys=frozenset())
