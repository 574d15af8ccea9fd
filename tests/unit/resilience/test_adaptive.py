"""The adaptive concurrency limit against a simulated app, with a simulated clock."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.resilience.adaptive import AdaptiveConfig, AdaptiveLimit, next_limit
from mesh.resilience.errors import ResilienceConfigError

pytestmark = pytest.mark.unit


class App:
    """Serves `workers` requests at once, each in `service_s`; more of them queue."""

    def __init__(self, workers: int, service_s: float) -> None:
        self.workers = workers
        self.service_s = service_s
        self.free_at = [0.0] * workers

    def finish_at(self, now: float) -> float:
        start = max(now, heapq.heappop(self.free_at))
        heapq.heappush(self.free_at, start + self.service_s)
        return start + self.service_s


def simulate(limit: AdaptiveLimit, app: App, *, rate: float, start: float, seconds: float) -> list[int]:
    """Offer `rate` requests per second. Returns the limit after each 100 ms outside measurements."""
    limits: list[int] = []
    ends: list[tuple[float, float]] = []
    now, next_note = start, start + 0.1
    while now < start + seconds:
        now += 1.0 / rate
        while ends and ends[0][0] <= now:
            end, began = heapq.heappop(ends)
            limit.finish(began, end)
        if limit.try_begin(now):
            heapq.heappush(ends, (app.finish_at(now), now))
        if now >= next_note:
            next_note += 0.1
            if not limit.is_measuring:
                limits.append(limit.limit)
    while ends:
        end, began = heapq.heappop(ends)
        limit.finish(began, end)
    return limits


def test_limit_settles_near_what_the_app_bears() -> None:
    app = App(workers=10, service_s=0.01)
    limit = AdaptiveLimit(AdaptiveConfig(), lambda: 0.0, 0.0)
    found = simulate(limit, app, rate=3000, start=0.0, seconds=20.0)
    settled = found[len(found) // 2 :]
    # 10 at once without queueing; the buffer (25 %) and the headroom (sqrt) allow a few more.
    assert 10 <= min(settled) <= max(settled) <= 25
    assert limit.min_rtt_s == pytest.approx(0.01, rel=0.05)
    assert limit.refused_total > 0
    assert limit.active == 0


def test_app_that_becomes_slower_gets_a_lower_limit_until_it_is_measured_anew() -> None:
    config = AdaptiveConfig(min_rtt_interval_s=20.0, min_rtt_jitter_percent=0.0)
    limit = AdaptiveLimit(config, lambda: 0.0, 0.0)
    before = simulate(limit, App(20, 0.01), rate=4000, start=0.0, seconds=10.0)[-1]
    slow = simulate(limit, App(20, 0.04), rate=4000, start=10.0, seconds=3.0)
    assert min(slow) == config.min_limit < before
    # At the minimum for five windows: the measurement is repeated without waiting for its interval.
    assert limit.min_rtt_s == pytest.approx(0.04, rel=0.1)
    assert simulate(limit, App(20, 0.04), rate=4000, start=13.0, seconds=5.0)[-1] >= 15


def test_unloaded_app_is_never_refused_once_measured() -> None:
    limit = AdaptiveLimit(AdaptiveConfig(min_limit=3), lambda: 0.0, 0.0)
    simulate(limit, App(10, 0.01), rate=100, start=0.0, seconds=5.0)
    refused = limit.refused_total
    simulate(limit, App(10, 0.01), rate=100, start=5.0, seconds=20.0)
    assert limit.refused_total == refused


def test_measuring_lowers_the_limit_ignores_older_requests_and_gives_it_back() -> None:
    config = AdaptiveConfig(min_rtt_requests=2, min_rtt_interval_s=10.0, min_rtt_jitter_percent=50.0)
    limit = AdaptiveLimit(config, lambda: 0.5, 0.0)
    assert limit.is_measuring
    for at in (0.0, 0.1):
        assert limit.try_begin(at)
        limit.finish(at, at + 0.01)
    assert not limit.is_measuring
    assert limit.min_rtt_s == pytest.approx(0.01)
    limit.limit = 100
    assert limit.try_begin(12.0)
    assert not limit.is_measuring  # 10 s and a quarter of jitter are not over
    assert limit.try_begin(12.7)
    assert (limit.is_measuring, limit.limit) == (True, 3)
    limit.finish(12.0, 13.0)  # begun before: says nothing about an app without a queue
    assert limit.is_measuring
    for at in (13.1, 13.2):
        assert limit.try_begin(at)
        limit.finish(at, at + 0.02)
    assert (limit.is_measuring, limit.limit) == (False, 100)
    assert limit.min_rtt_s == pytest.approx(0.02)


def test_requests_without_an_answer_only_free_their_place() -> None:
    limit = AdaptiveLimit(AdaptiveConfig(min_rtt_requests=1), lambda: 0.0, 0.0)
    assert limit.try_begin(0.0)
    limit.give_up()
    assert (limit.active, limit.is_measuring) == (0, True)


def test_known_latency_is_not_measured() -> None:
    limit = AdaptiveLimit(AdaptiveConfig(fixed_min_rtt_s=0.01), lambda: 0.0, 0.0)
    assert not limit.is_measuring
    found = simulate(limit, App(10, 0.01), rate=3000, start=0.0, seconds=100.0)
    assert len(found) > 900  # never interrupted
    assert 10 <= found[-1] <= 25


@pytest.mark.parametrize(
    ("limit", "min_rtt", "sample", "wanted"),
    [
        (100, 0.010, 0.0125, 110),  # within the buffer: as it is, and the headroom
        (100, 0.010, 0.0250, 57),  # twice as slow: half, and the headroom
        (100, 0.010, 1.0000, 57),  # never below half at once
        (100, 0.010, 0.0001, 214),  # never above double at once
        (990, 0.010, 0.0100, 1000),
        (3, 0.010, 1.0, 3),
        (100, 0.010, 0.0, 214),
    ],
)
def test_gradient(limit: int, min_rtt: float, sample: float, wanted: int) -> None:
    assert next_limit(AdaptiveConfig(), limit, min_rtt_s=min_rtt, sample_rtt_s=sample) == wanted


@given(
    limit=st.integers(3, 1000),
    min_rtt=st.floats(1e-6, 100.0),
    samples=st.tuples(st.floats(1e-6, 100.0), st.floats(1e-6, 100.0)),
)
def test_limit_stays_in_bounds_and_falls_with_latency(limit: int, min_rtt: float, samples: tuple[float, float]) -> None:
    config = AdaptiveConfig()
    fast, slow = (next_limit(config, limit, min_rtt_s=min_rtt, sample_rtt_s=one) for one in sorted(samples))
    assert config.min_limit <= slow <= fast <= config.max_limit


def test_bounds_are_checked() -> None:
    with pytest.raises(ResilienceConfigError, match="minConcurrency"):
        AdaptiveConfig(min_limit=0)
    with pytest.raises(ResilienceConfigError, match="percentages"):
        AdaptiveConfig(percentile=101)
    with pytest.raises(ResilienceConfigError, match="intervals"):
        AdaptiveConfig(update_interval_s=0)
