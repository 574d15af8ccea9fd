"""Priority levels: the tables of Envoy's documentation, and what always holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.balance.config import SlowStartConfig
from mesh.balance.priority import LevelHealth, effective_weight, share_load
from mesh.balance.slow_start import slow_start_factor

pytestmark = pytest.mark.unit


def healthy_shares(
    *healthy: int, degraded: tuple[int, ...] = (), threshold: float = 50.0
) -> list[tuple[int, int, bool]]:
    """(healthy %, degraded %, panics) of levels with a hundred hosts each, so many of them healthy."""
    degraded = degraded or (0,) * len(healthy)
    levels = [LevelHealth(100, good, so_so) for good, so_so in zip(healthy, degraded, strict=True)]
    found = share_load(levels, overprovisioning_percent=140, panic_threshold_percent=threshold)
    return [(share.healthy_percent, share.degraded_percent, share.is_panicking) for share in found]


@pytest.mark.parametrize(
    ("first", "expected"),
    [(100, (100, 0)), (72, (100, 0)), (71, (99, 1)), (50, (70, 30)), (25, (35, 65)), (0, (0, 100))],
)
def test_load_moves_to_the_next_level_as_the_first_fails(first: int, expected: tuple[int, int]) -> None:
    assert healthy_shares(first, 100) == [(expected[0], 0, False), (expected[1], 0, False)]


@pytest.mark.parametrize(
    ("healthy", "expected"),
    [
        ((72, 72), [(100, 0, False), (0, 0, False)]),
        ((50, 60), [(70, 0, False), (30, 0, False)]),
        ((25, 25), [(50, 0, True), (50, 0, True)]),
        ((5, 65), [(8, 0, True), (92, 0, False)]),
        ((20, 20, 10), [(34, 0, True), (33, 0, True), (33, 0, True)]),
        ((0, 0), [(50, 0, True), (50, 0, True)]),
    ],
)
def test_levels_panic_when_together_they_are_too_weak(
    healthy: tuple[int, ...], expected: list[tuple[int, int, bool]]
) -> None:
    assert healthy_shares(*healthy) == expected


def test_degraded_hosts_take_what_healthy_ones_cannot() -> None:
    assert healthy_shares(50, degraded=(50,)) == [(70, 30, False)]
    # Source: the example in Envoy's load balancer: 10/20/10 % health, 20/10/0 % degraded.
    found = share_load(
        [LevelHealth(100, 10, 20), LevelHealth(100, 20, 10), LevelHealth(100, 10, 0)],
        overprovisioning_percent=100,
        panic_threshold_percent=0,
    )
    assert [(one.healthy_percent, one.degraded_percent) for one in found] == [(16, 28), (28, 14), (14, 0)]


def test_no_threshold_no_panic() -> None:
    assert healthy_shares(1, threshold=0) == [(100, 0, False)]
    assert healthy_shares(0, 0, threshold=0) == [(100, 0, False), (0, 0, False)]


def test_all_load_goes_by_size_when_all_panic() -> None:
    found = share_load(
        [LevelHealth(0, 0), LevelHealth(1, 0), LevelHealth(3, 1)],
        overprovisioning_percent=140,
        panic_threshold_percent=50,
    )
    assert [one.healthy_percent for one in found] == [0, 25, 75]
    assert share_load([], overprovisioning_percent=140, panic_threshold_percent=50) == ()


levels = st.builds(
    lambda healthy, degraded, rest: LevelHealth(healthy + degraded + rest, healthy, degraded),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 50),
)


@given(st.lists(levels, min_size=1, max_size=6), st.integers(100, 300), st.floats(0, 100))
def test_shares_always_sum_to_all_and_go_where_somebody_is(
    found: list[LevelHealth], overprovisioning: int, threshold: float
) -> None:
    shares = share_load(found, overprovisioning_percent=overprovisioning, panic_threshold_percent=threshold)
    assert sum(share.healthy_percent + share.degraded_percent for share in shares) == 100
    usable = any(level.healthy + level.degraded for level in found)
    for level, share in zip(found, shares, strict=True):
        if usable and not share.is_panicking:
            assert not share.healthy_percent or level.healthy
            assert not share.degraded_percent or level.degraded
        assert not share.is_panicking or threshold > 0


def test_a_weak_locality_loses_weight_only_beyond_the_overprovisioning() -> None:
    weights = [effective_weight(10, usable=n, total=10, overprovisioning_percent=140) for n in (10, 8, 7, 5, 0)]
    assert weights == pytest.approx([10, 10, 9.8, 7, 0])
    assert effective_weight(10, usable=0, total=0, overprovisioning_percent=140) == 0


@pytest.mark.parametrize(
    ("age_s", "aggression", "expected"),
    [
        (0.0, 1.0, 0.1),
        (0.5, 1.0, 0.1),
        (5.0, 1.0, 0.5),
        (10.0, 1.0, 1.0),
        (2.5, 2.0, 0.5),
        (5.0, 0.5, 0.25),
        (99.0, 2.0, 1.0),
    ],
)
def test_slow_start_grows_with_time_and_aggression(age_s: float, aggression: float, expected: float) -> None:
    config = SlowStartConfig(window_s=10.0, aggression=aggression, min_weight_percent=10.0)
    assert slow_start_factor(config, age_s) == pytest.approx(expected)


@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(0.1, 10), st.floats(0, 100))
def test_slow_start_never_falls(age_s: float, later_s: float, aggression: float, minimum: float) -> None:
    config = SlowStartConfig(window_s=100.0, aggression=aggression, min_weight_percent=minimum)
    assert slow_start_factor(config, age_s) <= slow_start_factor(config, age_s + later_s) + 1e-12
    assert minimum / 100 <= slow_start_factor(config, age_s) <= 1.0
