"""Active health checks: thresholds, edges and intervals are Envoy's."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.health_check import Change, CheckState, HealthCheck, Outcome
from mesh.resilience.probe import HttpProbe, TcpProbe, holds_in_order, is_in

pytestmark = pytest.mark.unit

PASSED, REFUSED, RETRIABLE = Outcome.PASSED, Outcome.REFUSED, Outcome.RETRIABLE
UNREACHABLE, TIMEOUT, PASSIVE = Outcome.UNREACHABLE, Outcome.TIMEOUT, Outcome.PASSIVE
NONE, PENDING, CHANGED = Change.NONE, Change.PENDING, Change.CHANGED


def check(**changes: Any) -> HealthCheck:
    values: dict[str, Any] = {
        "probe": TcpProbe(),
        "timeout_s": 1.0,
        "interval_s": 10.0,
        "unhealthy_threshold": 3,
        "healthy_threshold": 2,
        **changes,
    }
    return HealthCheck(**values)


@pytest.mark.parametrize(
    ("starts_failed", "steps"),
    [
        (True, [(PASSED, CHANGED, False)]),
        (True, [(TIMEOUT, NONE, True), (PASSED, PENDING, True), (PASSED, CHANGED, False)]),
        (True, [(TIMEOUT, NONE, True), (PASSED, PENDING, True), (TIMEOUT, NONE, True), (PASSED, PENDING, True)]),
        (False, [(PASSED, NONE, False)]),
        (False, [(UNREACHABLE, CHANGED, True)]),
        (False, [(PASSED, NONE, False), (TIMEOUT, PENDING, False), (UNREACHABLE, PENDING, False), (RETRIABLE, CHANGED, True)]),
        (False, [(PASSED, NONE, False), (TIMEOUT, PENDING, False), (TIMEOUT, PENDING, False), (PASSED, NONE, False),
                 (TIMEOUT, PENDING, False), (TIMEOUT, PENDING, False), (TIMEOUT, CHANGED, True)]),
        (False, [(PASSED, NONE, False), (REFUSED, CHANGED, True), (REFUSED, NONE, True)]),
        (False, [(PASSED, NONE, False), (PASSIVE, CHANGED, True), (PASSED, PENDING, True), (PASSED, CHANGED, False)]),
    ],
)  # fmt: skip
def test_health_follows_the_thresholds(starts_failed: bool, steps: list[tuple[Outcome, Change, bool]]) -> None:
    state = CheckState(check(), is_failed=starts_failed)
    for outcome, change, is_failed in steps:
        assert state.on_outcome(outcome) is change
        assert state.is_failed is is_failed


@pytest.mark.parametrize(
    ("outcome", "change", "has_traffic", "wanted"),
    [
        (PASSED, NONE, True, 10.0),
        (PASSED, CHANGED, True, 10.0),
        (PASSED, PENDING, True, 2.0),
        (TIMEOUT, NONE, True, 5.0),
        (TIMEOUT, CHANGED, True, 5.0),
        (TIMEOUT, PENDING, True, 1.0),
        (PASSED, NONE, False, 90.0),
        (PASSED, PENDING, False, 60.0),
        (TIMEOUT, NONE, False, 60.0),
    ],
)
def test_interval_depends_on_health_edge_and_traffic(
    outcome: Outcome, change: Change, has_traffic: bool, wanted: float
) -> None:
    config = check(
        unhealthy_interval_s=5.0,
        unhealthy_edge_interval_s=1.0,
        healthy_edge_interval_s=2.0,
        no_traffic_healthy_interval_s=90.0,
    )
    assert config.delay_s(outcome, change, has_traffic=has_traffic, draw=lambda: 0.5) == wanted


@pytest.mark.parametrize("outcome", [PASSED, REFUSED])
@pytest.mark.parametrize("change", list(Change))
def test_intervals_that_are_not_set_fall_back_to_the_interval(outcome: Outcome, change: Change) -> None:
    assert check().delay_s(outcome, change, has_traffic=True, draw=lambda: 0.0) == 10.0


def test_unhealthy_edge_falls_back_to_the_unhealthy_interval() -> None:
    assert check(unhealthy_interval_s=4.0).delay_s(TIMEOUT, PENDING, has_traffic=True, draw=lambda: 0.0) == 4.0


@given(draw=st.floats(min_value=0.0, max_value=0.999), percent=st.integers(0, 100), jitter=st.floats(0.0, 10.0))
def test_jitter_only_adds_and_is_bounded(draw: float, percent: int, jitter: float) -> None:
    config = check(interval_jitter_percent=percent, interval_jitter_s=jitter, initial_jitter_s=jitter)
    found = config.delay_s(PASSED, NONE, has_traffic=True, draw=lambda: draw)
    assert 10.0 <= found <= 10.0 * (1 + percent / 100) + jitter
    assert 0.0 <= config.first_delay_s(lambda: draw) <= jitter


@given(st.lists(st.sampled_from(list(Outcome)), max_size=40), st.booleans(), st.integers(1, 4), st.integers(1, 4))
def test_health_changes_exactly_when_it_says_so(outcomes: list[Outcome], failed: bool, up: int, down: int) -> None:
    state = CheckState(check(healthy_threshold=up, unhealthy_threshold=down), is_failed=failed)
    for outcome in outcomes:
        before = state.is_failed
        change = state.on_outcome(outcome)
        assert (change is CHANGED) == (state.is_failed is not before)
        if outcome is PASSED:
            assert not state.is_failed or up > 1
        if outcome in (REFUSED, PASSIVE):
            assert state.is_failed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timeout_s": 0.0}, "timeout must be > 0"),
        ({"interval_s": -1.0}, "interval must be > 0"),
        ({"unhealthy_interval_s": 0.0}, "unhealthy_interval must be > 0"),
        ({"healthy_threshold": 0}, "must be >= 1"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ResilienceConfigError, match=message):
        check(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"path": "x"}, {"path": "/a b"}, {"path": "/\r\nevil: 1"}, {"path": "/", "method": b"CONNECT"},
     {"path": "/", "expected": ((200, 200),)}, {"path": "/", "retriable": ((99, 200),)}],
)  # fmt: skip
def test_probes_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ResilienceConfigError):
        HttpProbe(**changes)


def test_request_is_complete() -> None:
    assert HttpProbe(path="/live").request("web") == b"GET /live HTTP/1.1\r\nhost: web\r\nuser-agent: Envoy/HC\r\n\r\n"
    found = HttpProbe(path="/", method=b"POST", lines=(b"a: b",)).request("h")
    assert found == b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\na: b\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "wanted", "is_found"),
    [
        (b"", (), True),
        (b"+PONG\r\n", (b"PONG",), True),
        (b"a..b", (b"a", b"b"), True),
        (b"b..a", (b"a", b"b"), False),
        (b"aba", (b"ab", b"ba"), False),
        (b"", (b"x",), False),
    ],
)
def test_payloads_must_come_in_order_without_overlap(data: bytes, wanted: tuple[bytes, ...], is_found: bool) -> None:
    assert holds_in_order(data, wanted) is is_found


def test_status_ranges_are_half_open() -> None:
    assert [status for status in (199, 200, 204, 205, 300) if is_in(((200, 205), (300, 301)), status)] == [
        200,
        204,
        300,
    ]
