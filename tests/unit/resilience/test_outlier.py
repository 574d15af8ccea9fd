"""Outlier detection, with time as an argument."""

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.outlier import EjectionKind, FailureKind, HostHealth, OutlierConfig, OutlierDetector
from mesh.resilience.success_rate import Rated, success_rate_outliers

pytestmark = pytest.mark.unit

ERROR = FailureKind.SERVER_ERROR


def hosts(count: int) -> list[HostHealth]:
    return [HostHealth() for _ in range(count)]


def detector_of(**config: Any) -> OutlierDetector:
    return OutlierDetector(OutlierConfig(**config), lambda: 0.5)


def fail(detector: OutlierDetector, host: HostHealth, times: int, *, of: int = 10, now: float = 0.0,
         kind: FailureKind = ERROR) -> bool:  # fmt: skip
    return [detector.on_failure(host, kind, hosts=of, now=now) for _ in range(times)][-1]


def test_consecutive_errors_eject_and_a_success_in_between_does_not() -> None:
    detector = detector_of(consecutive_5xx=3)
    (host,) = hosts(1)
    assert not fail(detector, host, 2)
    assert host.has_failures
    host.succeed()
    assert not fail(detector, host, 2)
    assert fail(detector, host, 1)
    assert detector.ejected == 1


def test_ejected_endpoint_returns_after_base_ejection_time() -> None:
    detector = detector_of(consecutive_5xx=1, base_ejection_s=30)
    (host,) = hosts(1)
    fail(detector, host, 1, now=100.0)
    assert detector.sweep([host], 129.9) == 0
    assert detector.sweep([host], 130.0) == 1
    assert host.ejected_until is None
    assert detector.ejected == 0


def test_each_ejection_is_longer_up_to_the_maximum_and_health_forgives() -> None:
    detector = detector_of(consecutive_5xx=1, base_ejection_s=30, max_ejection_s=80)
    (host,) = hosts(1)
    lengths = []
    for now in (0.0, 1000.0, 2000.0, 3000.0):
        fail(detector, host, 1, now=now)
        assert host.ejected_until is not None
        lengths.append(host.ejected_until - now)
        detector.sweep([host], now + 500)
    assert lengths == [30, 60, 80, 80]
    for _ in range(4):
        detector.sweep([host], 5000.0)
    fail(detector, host, 1, now=6000.0)
    assert host.ejected_until == 6030.0
    assert host.ejections_total == 5


def test_only_a_share_may_be_out_but_always_one() -> None:
    detector = detector_of(consecutive_5xx=1, max_ejection_percent=40)
    group = hosts(5)
    assert [fail(detector, host, 1, of=5) for host in group] == [True, True, False, False, False]
    none = detector_of(consecutive_5xx=1, max_ejection_percent=0)
    assert fail(none, HostHealth(), 1, of=5)
    assert not fail(none, HostHealth(), 1, of=5)


def test_gateway_errors_have_their_own_count() -> None:
    detector = detector_of(consecutive_5xx=0, consecutive_gateway=2, enforcing_consecutive_gateway=100)
    host = HostHealth()
    assert not fail(detector, host, 5)
    assert not fail(detector, host, 1, kind=FailureKind.GATEWAY_ERROR)
    assert not fail(detector, host, 1)
    assert fail(detector, host, 2, kind=FailureKind.GATEWAY_ERROR)


def test_failures_without_an_answer_count_as_5xx_unless_split() -> None:
    together = detector_of(consecutive_5xx=2)
    assert fail(together, HostHealth(), 2, kind=FailureKind.LOCAL_ORIGIN)
    split = detector_of(consecutive_5xx=2, consecutive_local_origin=3, split_local_origin=True)
    host = HostHealth()
    assert not fail(split, host, 2, kind=FailureKind.LOCAL_ORIGIN)
    assert fail(split, host, 1, kind=FailureKind.LOCAL_ORIGIN)


def test_new_detector_adopts_what_is_out() -> None:
    detector = detector_of(consecutive_5xx=1, max_ejection_percent=10)
    out, other = hosts(2)
    out.ejected_until = 50.0
    detector.adopt([out, other])
    assert detector.ejected == 1
    assert not fail(detector, other, 1, of=2)
    assert detector.sweep([out, other], 60.0) == 1


def test_bounds_are_checked() -> None:
    with pytest.raises(ResilienceConfigError, match="maxEjectionPercent is 101"):
        OutlierConfig(max_ejection_percent=101)
    with pytest.raises(ResilienceConfigError, match="interval"):
        OutlierConfig(interval_s=0)


def test_shares_decide_by_chance_what_is_enforced_and_detections_are_counted() -> None:
    draws = iter([0.49, 0.5])
    detector = OutlierDetector(
        OutlierConfig(consecutive_5xx=2, enforcing_consecutive_5xx=50, max_ejection_percent=100), lambda: next(draws)
    )
    first, second = hosts(2)
    assert fail(detector, first, 2)
    assert not fail(detector, second, 2)
    assert detector.counts.detected[EjectionKind.CONSECUTIVE_5XX] == 2
    assert detector.counts.enforced[EjectionKind.CONSECUTIVE_5XX] == 1
    assert detector.counts.total == 1


def test_not_enforced_detector_counts_once_per_run_of_failures() -> None:
    detector = detector_of(consecutive_5xx=100, consecutive_gateway=3, enforcing_consecutive_gateway=0)
    (host,) = hosts(1)
    assert not fail(detector, host, 7, kind=FailureKind.GATEWAY_ERROR)
    assert detector.counts.detected[EjectionKind.CONSECUTIVE_GATEWAY] == 2


def test_overflow_is_counted_where_too_many_are_out() -> None:
    detector = detector_of(consecutive_5xx=1, max_ejection_percent=20, always_eject_one=False)
    group = hosts(5)
    assert [fail(detector, host, 1, of=5) for host in group] == [True, False, False, False, False]
    assert detector.counts.overflow == 4


def test_nobody_is_ejected_below_the_percentage_when_one_always_may_not() -> None:
    detector = detector_of(consecutive_5xx=1, max_ejection_percent=10, always_eject_one=False)
    assert not fail(detector, HostHealth(), 1, of=3)


def serve(host: HostHealth, detector: OutlierDetector, good: int, bad: int, kind: FailureKind = ERROR) -> None:
    """Answers of one interval, in an order that no consecutive detector sees."""
    host.successes += good
    for _ in range(bad):
        detector.on_failure(host, kind, hosts=10, now=0.0)
        host.succeed()


def test_success_rate_outlier_is_ejected_at_the_interval() -> None:
    detector = detector_of(max_ejection_percent=50)
    group = hosts(6)
    for host in group[1:]:
        serve(host, detector, 100, 0)
    serve(group[0], detector, 70, 30)
    assert detector.sweep(group, 10.0) == 1
    assert group[0].ejected_until == 40.0
    assert detector.counts.enforced[EjectionKind.SUCCESS_RATE] == 1
    assert group[0].success_rate == 70.0
    # The next interval begins anew: nothing has been asked, nothing is known.
    assert detector.sweep(group, 20.0) == 0
    assert group[1].success_rate is None


@pytest.mark.parametrize(
    ("count", "volume"),
    [(4, 100), (6, 99)],
)
def test_success_rates_of_few_hosts_or_few_requests_prove_nothing(count: int, volume: int) -> None:
    detector = detector_of(max_ejection_percent=50)
    group = hosts(count)
    for host in group[1:]:
        serve(host, detector, volume, 0)
    serve(group[0], detector, 0, volume)
    assert detector.sweep(group, 10.0) == 0


def test_failure_percentage_catches_a_host_when_all_are_bad_and_is_off_by_default() -> None:
    for share, wanted in ((0, 0), (100, 1)):
        detector = detector_of(
            max_ejection_percent=10,
            enforcing_success_rate=0,
            enforcing_failure_percentage=share,
            failure_percentage_threshold=90,
        )
        group = hosts(5)
        for host in group:
            serve(host, detector, 5, 45)
        assert detector.sweep(group, 10.0) == wanted
        assert detector.counts.detected[EjectionKind.FAILURE_PERCENTAGE] == 5
        assert detector.counts.overflow == (4 if wanted else 0)


def test_split_rates_of_local_origin_have_their_own_detectors() -> None:
    detector = detector_of(split_local_origin=True, max_ejection_percent=50, consecutive_local_origin=0)
    group = hosts(6)
    for host in group[1:]:
        serve(host, detector, 100, 0)
    serve(group[0], detector, 100, 40, FailureKind.LOCAL_ORIGIN)
    assert detector.sweep(group, 10.0) == 1
    assert detector.counts.enforced[EjectionKind.LOCAL_ORIGIN_SUCCESS_RATE] == 1
    assert detector.counts.detected[EjectionKind.SUCCESS_RATE] == 0


def test_any_answer_ends_a_run_of_local_failures() -> None:
    detector = detector_of(split_local_origin=True, consecutive_local_origin=3)
    (host,) = hosts(1)
    fail(detector, host, 2, kind=FailureKind.LOCAL_ORIGIN)
    fail(detector, host, 1)
    assert not fail(detector, host, 2, kind=FailureKind.LOCAL_ORIGIN)
    assert fail(detector, host, 1, kind=FailureKind.LOCAL_ORIGIN)


def test_passed_active_check_ends_an_ejection_unless_told_not_to() -> None:
    for allowed in (True, False):
        detector = detector_of(consecutive_5xx=1, uneject_on_active_check=allowed)
        (host,) = hosts(1)
        fail(detector, host, 1)
        assert detector.on_active_check_passed(host) is allowed
        assert (host.ejected_until is None) is allowed
        assert not detector.on_active_check_passed(HostHealth())


def test_jitter_lengthens_an_ejection() -> None:
    detector = detector_of(consecutive_5xx=1, max_ejection_jitter_s=10.0)
    (host,) = hosts(1)
    fail(detector, host, 1, now=0.0)
    assert host.ejected_until == 35.0


def test_counts_survive_a_new_configuration() -> None:
    old = detector_of(consecutive_5xx=1)
    fail(old, HostHealth(), 1)
    assert OutlierDetector(OutlierConfig(), lambda: 0.0, old.counts).counts.total == 1


@given(
    percent=st.integers(0, 100),
    one=st.booleans(),
    steps=st.lists(st.tuples(st.integers(0, 7), st.sampled_from(FailureKind), st.floats(0, 60)), max_size=200),
)
def test_never_more_out_than_allowed_and_everybody_returns(
    percent: int, one: bool, steps: list[tuple[int, FailureKind, float]]
) -> None:
    detector = OutlierDetector(
        OutlierConfig(consecutive_5xx=2, max_ejection_percent=percent, always_eject_one=one), lambda: 0.5
    )
    group = hosts(8)
    now = 0.0
    for at, kind, wait in steps:
        detector.on_failure(group[at], kind, hosts=8, now=now)
        out = sum(host.ejected_until is not None for host in group)
        assert out == detector.ejected
        assert out <= max(1 if one else 0, 8 * percent // 100)
        now += wait
        detector.sweep(group, now)
    detector.sweep(group, now + 1000.0)
    assert detector.ejected == 0


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=12))
def test_success_rate_outliers_are_a_minority_below_the_mean(counts: list[tuple[int, int]]) -> None:
    rated = [Rated(good, good + bad) for good, bad in counts]
    found = success_rate_outliers(rated, min_hosts=1, volume=1, stdev_factor=1.9)
    rates = [host.percent for host in rated if host.total]
    for at in found:
        assert rated[at].percent < statistics.fmean(rates)
        assert rated[at].percent < statistics.fmean(rates) - 1.9 * statistics.pstdev(rates) + 1e-6
    assert len(found) * 2 < max(len(rates), 1) or not found


def test_equal_rates_have_no_outliers() -> None:
    rated = [Rated(1, 3)] * 7
    assert success_rate_outliers(rated, min_hosts=1, volume=1, stdev_factor=0.0) == ()
