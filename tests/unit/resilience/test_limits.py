"""A worker's share of a cluster's limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.resilience.limits import DEFAULT_LIMITS, CircuitLimits, share_of
from mesh.resilience.retry import RetryBudget

pytestmark = pytest.mark.unit


def test_one_worker_has_the_very_limits() -> None:
    assert share_of(DEFAULT_LIMITS, 1) is DEFAULT_LIMITS


def test_zero_stays_zero_and_none_stays_none() -> None:
    whole = CircuitLimits(max_pending=0, retry_budget=RetryBudget(percent=0, min_concurrency=0))
    share = share_of(whole, 4)
    assert (share.max_pending, share.retry_budget.is_open, share.max_connections_per_host) == (0, False, None)


@given(st.integers(1, 5000), st.integers(1, 64))
def test_shares_are_enough_and_hardly_more(limit: int, workers: int) -> None:
    whole = CircuitLimits(
        max_connections=limit, max_pending=limit, max_requests=limit, max_connections_per_host=limit,
        retry_budget=RetryBudget(min_concurrency=limit),
    )  # fmt: skip
    share = share_of(whole, workers)
    for one in (
        share.max_connections, share.max_pending, share.max_requests, share.max_connections_per_host,
        share.retry_budget.min_concurrency,
    ):  # fmt: skip
        assert one is not None
        assert one >= 1
        assert limit <= one * workers < limit + workers
