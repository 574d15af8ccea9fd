"""The token bucket, with time as an argument."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.rate_limit import TokenBucket, TokenBucketConfig

pytestmark = pytest.mark.unit


def bucket(tokens: int = 3, fill: int = 1, interval: float = 1.0) -> TokenBucket:
    config = TokenBucketConfig(max_tokens=tokens, tokens_per_fill=fill, fill_interval_s=interval)
    return TokenBucket(config, 100.0)


def test_full_bucket_lets_a_burst_pass_and_then_one_per_fill() -> None:
    found = bucket()
    assert [found.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not found.take(100.9)
    assert found.take(101.0)
    assert not found.take(101.0)


def test_fills_come_in_whole_steps_on_a_fixed_grid() -> None:
    found = bucket(tokens=10, fill=4)
    for _ in range(10):
        assert found.take(100.0)
    assert not found.take(100.99)
    assert [found.take(101.5) for _ in range(5)] == [True] * 4 + [False]
    assert [found.take(102.0) for _ in range(5)] == [True] * 4 + [False]  # not 102.5: late calls don't move the grid


def test_never_holds_more_than_its_size() -> None:
    found = bucket(tokens=2, fill=5)
    found.fill(1000.0)
    assert found.tokens == 2


def test_time_to_the_next_fill() -> None:
    found = bucket()
    assert found.next_fill_s(100.25) == pytest.approx(0.75)
    assert found.next_fill_s(101.25) == pytest.approx(0.75)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    found = bucket(tokens=1)
    assert found.take(100.0)
    assert not found.take(90.0)
    assert found.take(101.0)


@given(
    tokens=st.integers(1, 20),
    fill=st.integers(1, 20),
    interval=st.floats(0.05, 5.0),
    steps=st.lists(st.floats(0.0, 3.0), max_size=100),
)
def test_no_span_lets_more_pass_than_its_bound(tokens: int, fill: int, interval: float, steps: list[float]) -> None:
    found = bucket(tokens, fill, interval)
    now, passed = 100.0, []
    for step in steps:
        now += step
        if found.take(now):
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            span = passed[last] - passed[first]
            assert last - first + 1 <= tokens + fill * (math.floor(span / interval + 1e-6) + 1)


@pytest.mark.parametrize(
    ("tokens", "fill", "interval"),
    [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.01)],
)
def test_bounds_are_checked(tokens: int, fill: int, interval: float) -> None:
    with pytest.raises(ResilienceConfigError, match="tokenBucket"):
        TokenBucketConfig(max_tokens=tokens, tokens_per_fill=fill, fill_interval_s=interval)
