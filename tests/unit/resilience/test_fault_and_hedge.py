"""Injected faults and hedging decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.fault import NO_FAULT, FaultDecision, FaultPolicy, decide_fault
from mesh.resilience.hedge import HedgePolicy, Verdict, judge

pytestmark = pytest.mark.unit

BOTH = FaultPolicy(delay_percent=50, delay_s=2.0, abort_percent=10, abort_status=418)


@pytest.mark.parametrize(
    ("delay_draw", "abort_draw", "wanted"),
    [
        (0.49, 0.09, FaultDecision(delay_s=2.0, abort_status=418)),
        (0.49, 0.10, FaultDecision(delay_s=2.0)),
        (0.50, 0.09, FaultDecision(abort_status=418)),
        (0.50, 0.10, NO_FAULT),
    ],
)
def test_delay_and_abort_are_drawn_apart(delay_draw: float, abort_draw: float, wanted: FaultDecision) -> None:
    assert decide_fault(BOTH, delay_draw=delay_draw, abort_draw=abort_draw) == wanted


def test_limit_of_faults_under_way() -> None:
    policy = FaultPolicy(abort_percent=100, max_active=2)
    assert decide_fault(policy, delay_draw=0, abort_draw=0, active=1)
    assert not decide_fault(policy, delay_draw=0, abort_draw=0, active=2)


@given(percent=st.floats(0, 100), draw=st.floats(0, 1, exclude_max=True))
def test_0_percent_never_and_100_percent_always(percent: float, draw: float) -> None:
    always, never = FaultPolicy(abort_percent=100), FaultPolicy(abort_percent=0)
    assert decide_fault(always, delay_draw=draw, abort_draw=draw)
    assert not decide_fault(never, delay_draw=draw, abort_draw=draw)
    some = FaultPolicy(abort_percent=percent)
    assert bool(decide_fault(some, delay_draw=draw, abort_draw=draw)) == (draw * 100 < percent)


@pytest.mark.parametrize(
    "wrong",
    [{"delay_percent": 101}, {"abort_percent": -1}, {"delay_s": -1}, {"abort_status": 99}],
)
def test_bounds_of_faults(wrong: dict[str, float]) -> None:
    with pytest.raises(ResilienceConfigError, match="fault"):
        FaultPolicy(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("is_good", "others", "wanted"),
    [(True, 0, Verdict.WIN), (True, 3, Verdict.WIN), (False, 1, Verdict.LOSE), (False, 0, Verdict.DECIDE)],
)
def test_first_good_response_wins_and_bad_ones_wait_for_the_others(is_good: bool, others: int, wanted: Verdict) -> None:
    assert judge(is_good=is_good, others_in_flight=others) is wanted


def test_several_initial_requests_are_refused() -> None:
    with pytest.raises(ResilienceConfigError, match="initialRequests is 2"):
        HedgePolicy(initial_requests=2)
