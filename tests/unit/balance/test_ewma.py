"""Peak EWMA: what it expects of a host, and where requests go."""

import random
from collections import Counter

import pytest

from mesh.balance.config import EwmaConfig
from mesh.balance.ewma import Latency, PeakEwma
from tests.unit.balance.hosts import Host, shares

pytestmark = pytest.mark.unit

CONFIG = EwmaConfig(decay_s=10.0, default_rtt_s=0.03, penalty_s=1.0)


def test_a_slower_answer_counts_at_once_and_is_forgotten_slowly() -> None:
    latency = Latency(CONFIG, 0.0)
    assert latency.estimate_s(0.0) == pytest.approx(0.03)
    latency.observe(0.2, 1.0)
    assert latency.estimate_s(1.0) == pytest.approx(0.2)
    latency.observe(0.1, 11.0)
    assert latency.estimate_s(11.0) == pytest.approx(0.2 * 0.3679 + 0.1 * 0.6321, rel=1e-3)


def test_silence_lowers_the_estimate() -> None:
    latency = Latency(CONFIG, 0.0)
    latency.observe(1.0, 0.0)
    assert latency.estimate_s(10.0) == pytest.approx(0.3679, rel=1e-3)
    assert latency.estimate_s(0.0) == pytest.approx(1.0)


def hosts(*rtts_s: float) -> list[Host]:
    found = []
    for i, rtt_s in enumerate(rtts_s):
        latency = Latency(CONFIG, 0.0)
        for _ in range(3):
            latency.observe(rtt_s, 100.0)
        found.append(Host("abcdef"[i], latency=latency))
    return found


def test_load_balances_latency_against_requests_in_flight() -> None:
    fast, slow = hosts(0.01, 0.04)
    picker, rng = PeakEwma([fast, slow], lambda: 100.0), random.Random(1)
    assert {picker.pick(rng.random) for _ in range(50)} == {fast}
    fast.active = 2
    assert {picker.pick(rng.random) for _ in range(50)} == {fast}
    fast.active = 4
    assert {picker.pick(rng.random) for _ in range(50)} == {slow}


def test_equally_fast_hosts_share_by_weight() -> None:
    found = hosts(0.01, 0.01)
    found[0].weight = 3
    picker, rng = PeakEwma(found, lambda: 100.0), random.Random(1)
    assert shares(lambda: picker.pick(rng.random))["a"] == pytest.approx(0.75, abs=0.02)
    found[0].active, found[1].active = 3, 1
    assert shares(lambda: picker.pick(rng.random))["a"] == pytest.approx(0.75, abs=0.02)
    found[0].active = 4
    assert shares(lambda: picker.pick(rng.random))["a"] < 0.6


def test_one_host_and_none() -> None:
    only = Host("a")
    assert PeakEwma([only], lambda: 0.0).pick(random.random) is only
    empty: list[Host] = []
    assert PeakEwma(empty, lambda: 0.0).pick(random.random) is None


def simulate(rtts_s: dict[str, float], errors: dict[str, float], *, seconds: float = 60.0) -> Counter[str]:
    """200 requests a second against hosts with these latencies and shares of fast failures: who got how many in the second half."""
    rng, now = random.Random(5), 0.0
    found = [Host(name, latency=Latency(CONFIG, 0.0)) for name in rtts_s]
    picker = PeakEwma(found, lambda: now)
    ends: list[tuple[float, float, Host, bool]] = []
    counts: Counter[str] = Counter()
    while now < seconds:
        now += 0.005
        for end in sorted(end for end in ends if end[0] <= now):
            ends.remove(end)
            _, started, host, is_error = end
            host.active -= 1
            assert host.latency is not None
            if is_error:
                host.latency.fail(now)
            else:
                host.latency.observe(now - started, now)
        picked = picker.pick(rng.random)
        assert picked is not None
        picked.active += 1
        is_error = rng.random() < errors.get(picked.name, 0.0)
        ends.append((now + (0.001 if is_error else rtts_s[picked.name] * (0.5 + rng.random())), now, picked, is_error))
        if now > seconds / 2:
            counts[picked.name] += 1
    return counts


def test_a_host_that_fails_fast_gets_little() -> None:
    counts = simulate({"good": 0.02, "well": 0.02, "bad": 0.02}, {"bad": 1.0})
    assert counts["bad"] < 0.02 * counts.total()
    assert counts["good"] == pytest.approx(counts["well"], rel=0.2)


def test_a_slow_host_gets_less_but_is_tried_again() -> None:
    counts = simulate({"fast": 0.01, "quick": 0.01, "slow": 0.2}, {})
    assert 0 < counts["slow"] < 0.1 * counts.total()
