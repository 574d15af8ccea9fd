"""Retry decisions."""

import pytest

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.retry import Failure, Replay, RetryBudget, RetryOn, RetryPolicy, parse_retry_on

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("on", "status", "wanted"),
    [
        ("5xx", 500, True),
        ("5xx", 499, False),
        ("gateway-error", 503, True),
        ("gateway-error", 500, False),
        ("retriable-4xx", 409, True),
        ("retriable-4xx", 404, False),
        ("retriable-status-codes,429", 429, True),
        ("reset, connect-failure,503", 503, True),
        ("reset", 503, False),
        ("unavailable,cancelled", 503, False),
    ],
)
def test_statuses(on: str, status: int, wanted: bool) -> None:
    conditions, statuses = parse_retry_on(on)
    policy = RetryPolicy(conditions=conditions, retriable_statuses=statuses)
    assert policy.wants_status(status) is wanted
    assert (status in policy.statuses_worth_a_look()) is wanted


@pytest.mark.parametrize(
    ("on", "failure", "sent", "wanted"),
    [
        (RetryOn.CONNECT_FAILURE, Failure.CONNECT, False, True),
        (RetryOn.CONNECT_FAILURE, Failure.RESET, True, False),
        (RetryOn.RESET, Failure.RESET, True, True),
        (RetryOn.RESET, Failure.CONNECT, False, False),
        (RetryOn.RESET, Failure.TRY_TIMEOUT, True, True),
        (RetryOn.RESET_BEFORE_REQUEST, Failure.RESET, True, False),
        (RetryOn.RESET_BEFORE_REQUEST, Failure.RESET, False, True),
        (RetryOn.GATEWAY_ERROR, Failure.CONNECT, False, True),
        (RetryOn.SERVER_ERROR, Failure.TRY_TIMEOUT, True, True),
        (RetryOn.NONE, Failure.RESET, True, False),
    ],
)
def test_failures(on: RetryOn, failure: Failure, sent: bool, wanted: bool) -> None:
    assert RetryPolicy(conditions=on).wants_failure(failure, bytes_sent=sent) is wanted


@pytest.mark.parametrize(
    ("method", "key", "replay", "may"),
    [
        (b"GET", False, Replay.SAFE, True),
        (b"DELETE", False, Replay.SAFE, True),
        (b"POST", False, Replay.SAFE, False),
        (b"PATCH", False, Replay.SAFE, False),
        (b"POST", True, Replay.SAFE, True),
        (b"POST", False, Replay.ANY, True),
    ],
)
def test_only_proven_requests_are_replayed(method: bytes, key: bool, replay: Replay, may: bool) -> None:
    assert RetryPolicy(replay=replay).may_replay(method, has_idempotency_key=key) is may


def test_budget_is_a_share_with_a_floor() -> None:
    budget = RetryBudget()
    assert budget.allows(active_requests=1, active_retries=2)
    assert not budget.allows(active_requests=1, active_retries=3)
    assert budget.allows(active_requests=100, active_retries=19)
    assert not budget.allows(active_requests=100, active_retries=20)


def test_mistakes_are_named() -> None:
    with pytest.raises(ResilienceConfigError, match='unknown condition "5xxx"'):
        parse_retry_on("5xxx")
    with pytest.raises(ResilienceConfigError, match="num_retries is -1"):
        RetryPolicy(max_retries=-1)
    with pytest.raises(ResilienceConfigError, match="per_try_timeout"):
        RetryPolicy(per_try_timeout_s=0)
