"""Retry decisions."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.header_condition import HeaderCondition, HeaderOf
from mesh.resilience.retry import Failure, Replay, RetryBudget, RetryOn, RetryPolicy, parse_retry_on
from mesh.resilience.retry_after import RateLimitedBackoff, ResetFormat, ResetHeader, parse_wait

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
        ("retriable-headers,envoy-ratelimited", 503, False),
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
        (RetryOn.RESET, Failure.CONNECT, False, True),
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


def reader(**headers: bytes) -> HeaderOf:
    return {name.replace("_", "-").encode(): value for name, value in headers.items()}.get


@pytest.mark.parametrize(
    ("on", "status", "headers", "wanted"),
    [
        ("5xx", 503, {}, True),
        ("5xx", 503, {"x_envoy_overloaded": b"true"}, False),
        ("5xx", 503, {"x_envoy_ratelimited": b"true"}, False),
        ("5xx,envoy-ratelimited", 429, {"x_envoy_ratelimited": b"true"}, True),
        ("envoy-ratelimited", 429, {}, False),
        ("unavailable", 200, {"grpc_status": b"14"}, True),
        ("unavailable", 200, {"grpc_status": b"13"}, False),
        ("internal", 200, {"grpc_status": b"13"}, True),
        ("cancelled", 200, {"grpc_status": b"1"}, True),
        ("deadline-exceeded", 200, {"grpc_status": b"4"}, True),
        ("resource-exhausted", 200, {"grpc_status": b"8"}, True),
        ("resource-exhausted,internal", 200, {"grpc_status": b"0"}, False),
        ("5xx", 200, {"grpc_status": b"14"}, False),
        ("retriable-headers", 200, {"x_again": b"yes"}, True),
        ("retriable-headers", 200, {"x_again": b"no"}, False),
        ("5xx", 200, {"x_again": b"yes"}, False),
    ],
)
def test_responses_by_their_headers(on: str, status: int, headers: dict[str, bytes], wanted: bool) -> None:
    policy = RetryPolicy(
        conditions=parse_retry_on(on)[0], retriable_headers=(HeaderCondition(name="x-again", pattern="yes"),)
    )
    assert policy.wants_response(status, reader(**headers)) is wanted
    if wanted and not policy.wants_status(status):
        assert policy.looks_at_headers  # else nobody would look


@pytest.mark.parametrize(
    ("condition", "value", "wanted"),
    [
        (HeaderCondition(name="x"), b"", True),
        (HeaderCondition(name="x"), None, False),
        (HeaderCondition(name="x", invert=True), None, True),
        (HeaderCondition(name="x", pattern="a.*"), b"abc", True),
        (HeaderCondition(name="x", pattern="a"), b"abc", False),
        (HeaderCondition(name="x", pattern="a", invert=True), b"abc", True),
        (HeaderCondition(name="x", pattern="a", invert=True), None, False),
        (HeaderCondition(name="x", pattern="a", invert=True, missing_as_empty=True), None, True),
    ],
)
def test_header_conditions(condition: HeaderCondition, value: bytes | None, wanted: bool) -> None:
    assert condition.holds(lambda _: value) is wanted


def test_only_requests_that_hold_a_condition_are_repeated() -> None:
    policy = RetryPolicy(retriable_request_headers=(HeaderCondition(name="x-retry", pattern="1"),))
    assert policy.wants_request(reader(x_retry=b"1"))
    assert not policy.wants_request(reader())
    assert RetryPolicy().wants_request(reader())


WALL = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [
        (b"3", ResetFormat.SECONDS, 3.0),
        (b" 0 ", ResetFormat.SECONDS, 0.0),
        (b"Tue, 14 Nov 2023 22:13:30 GMT", ResetFormat.SECONDS, 10.0),
        (b"Tue, 14 Nov 2023 22:13:10 GMT", ResetFormat.SECONDS, 0.0),
        (b"Tuesday, 14-Nov-23 22:13:30 GMT", ResetFormat.SECONDS, 10.0),
        (b"Tue Nov 14 22:13:30 2023", ResetFormat.SECONDS, 10.0),
        (b"1700000004", ResetFormat.UNIX_TIMESTAMP, 4.0),
        (b"1600000000", ResetFormat.UNIX_TIMESTAMP, 0.0),
        (b"Tue, 14 Nov 2023 22:13:30 GMT", ResetFormat.UNIX_TIMESTAMP, None),
        (b"-1", ResetFormat.SECONDS, None),
        (b"1.5", ResetFormat.SECONDS, None),
        (b"soon", ResetFormat.SECONDS, None),
        (b"", ResetFormat.SECONDS, None),
        (b"9" * 5000, ResetFormat.SECONDS, None),
        ("²".encode("latin-1"), ResetFormat.SECONDS, None),
    ],
)
def test_how_long_a_response_asks_to_wait(value: bytes, kind: ResetFormat, wanted: float | None) -> None:
    assert parse_wait(value, kind, WALL) == wanted


@given(st.binary(max_size=40), st.sampled_from(ResetFormat))
def test_any_value_is_a_wait_or_nothing(value: bytes, kind: ResetFormat) -> None:
    wait = parse_wait(value, kind, WALL)
    assert wait is None or wait >= 0


def test_first_usable_header_counts_and_long_waits_do_not() -> None:
    backoff = RateLimitedBackoff(
        headers=(
            ResetHeader(name="retry-after"),
            ResetHeader(name="x-ratelimit-reset", format=ResetFormat.UNIX_TIMESTAMP),
        ),
        max_interval_s=60.0,
    )
    policy = RetryPolicy(rate_limited=backoff)
    both = reader(retry_after=b"120", x_ratelimit_reset=b"1700000005")
    assert policy.server_wait_s(500, both, WALL) == 5.0
    assert policy.server_wait_s(500, reader(retry_after=b"60"), WALL) == 60.0
    assert policy.server_wait_s(500, reader(retry_after=b"61"), WALL) is None


def test_retry_after_counts_for_429_and_503_without_being_asked_for() -> None:
    policy = RetryPolicy()
    after = reader(retry_after=b"2")
    assert [policy.server_wait_s(status, after, WALL) for status in (429, 503, 502)] == [2.0, 2.0, None]
    assert policy.server_wait_s(503, reader(retry_after=b"6"), WALL) is None


@given(attempt=st.integers(1, 100), seed=st.integers())
def test_back_off_is_fully_jittered_and_bounded(attempt: int, seed: int) -> None:
    policy = RetryPolicy()
    wait = policy.delay_s(attempt, random.Random(seed))
    assert 0 <= wait <= min(0.25, 0.025 * (2**attempt - 1))


def test_where_somebody_else_retries_only_connecting_is_repeated() -> None:
    policy = RetryPolicy(conditions=RetryOn.SERVER_ERROR | RetryOn.RESET).only_connecting()
    assert policy.wants_failure(Failure.CONNECT, bytes_sent=False)
    assert not policy.wants_failure(Failure.RESET, bytes_sent=True)
    assert not policy.statuses_worth_a_look()
    assert not RetryPolicy(conditions=RetryOn.RETRIABLE_4XX).only_connecting().conditions
