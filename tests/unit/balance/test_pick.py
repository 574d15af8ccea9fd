"""Pickers: shares, load and order."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from mesh.balance.endpoint import Endpoint, LbPolicy
from mesh.balance.errors import BalanceConfigError

pytestmark = pytest.mark.unit


@dataclass(eq=False)
class Host:
    name: str
    weight: int = 1
    active: int = 0


def shares(policy: LbPolicy, hosts: list[Host], draws: int = 20000) -> dict[str, float]:
    rng = random.Random(3)
    picker = make_picker(policy, hosts)
    counts = Counter(host.name for _ in range(draws) if (host := picker.pick(rng.random)) is not None)
    return {name: count / draws for name, count in counts.items()}


@pytest.mark.parametrize("policy", LbPolicy)
def test_equal_hosts_get_equal_shares(policy: LbPolicy) -> None:
    found = shares(policy, [Host("a"), Host("b"), Host("c")])
    assert all(abs(share - 1 / 3) < 0.02 for share in found.values())


@pytest.mark.parametrize("policy", LbPolicy)
def test_weights_are_shares_when_nothing_is_in_flight(policy: LbPolicy) -> None:
    found = shares(policy, [Host("a", 6), Host("b", 3), Host("c", 1)])
    assert found["a"] == pytest.approx(0.6, abs=0.02)
    assert found["c"] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("policy", LbPolicy)
def test_one_host_and_none(policy: LbPolicy) -> None:
    rng = random.Random(1)
    only = Host("a")
    assert make_picker(policy, [only]).pick(rng.random) is only
    empty: list[Host] = []
    assert make_picker(policy, empty).pick(rng.random) is None


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


def test_load_counts_per_weight() -> None:
    rng = random.Random(2)
    hosts = [Host("big", weight=4), Host("small", weight=1)]
    picker = LeastRequest(hosts)
    for _ in range(1000):
        host = picker.pick(rng.random)
        assert host is not None
        host.active += 1
    assert hosts[0].active == pytest.approx(800, abs=40)


def test_more_choices_find_the_least_loaded_more_often() -> None:
    rng = random.Random(2)
    hosts = [Host(str(n), active=1) for n in range(9)] + [Host("free")]
    picker = LeastRequest(hosts, choices=8)
    assert sum(1 for _ in range(1000) if picker.pick(rng.random) is hosts[9]) > 450


def test_weighted_round_robin_is_smooth() -> None:
    picker = RoundRobin([Host("a", 5), Host("b", 1), Host("c", 1)])
    order = "".join(host.name for _ in range(7) if (host := picker.pick(random.random)) is not None)
    assert order == "aabacaa"


def test_round_robin_starts_where_told() -> None:
    picker = RoundRobin([Host("a"), Host("b"), Host("c")], start=0.5)
    assert [host.name for _ in range(4) if (host := picker.pick(random.random)) is not None] == ["b", "c", "a", "b"]


def test_endpoints_out_of_bounds_are_refused() -> None:
    with pytest.raises(BalanceConfigError, match="weight is 0"):
        Endpoint(address="10.0.0.1", port=80, weight=0)
    with pytest.raises(BalanceConfigError, match="port is 0"):
        Endpoint(address="10.0.0.1", port=0)
