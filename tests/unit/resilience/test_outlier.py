"""Outlier detection, with time as an argument."""

import pytest

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.outlier import FailureKind, HostHealth, OutlierConfig, OutlierDetector

pytestmark = pytest.mark.unit

ERROR = FailureKind.SERVER_ERROR


def hosts(count: int) -> list[HostHealth]:
    return [HostHealth() for _ in range(count)]


def fail(detector: OutlierDetector, host: HostHealth, times: int, *, of: int = 10, now: float = 0.0,
         kind: FailureKind = ERROR) -> bool:  # fmt: skip
    return [detector.on_failure(host, kind, hosts=of, now=now) for _ in range(times)][-1]


def test_consecutive_errors_eject_and_a_success_in_between_does_not() -> None:
    detector = OutlierDetector(OutlierConfig(consecutive_5xx=3))
    (host,) = hosts(1)
    assert not fail(detector, host, 2)
    assert host.has_failures
    host.succeed()
    assert not fail(detector, host, 2)
    assert fail(detector, host, 1)
    assert detector.ejected == 1


def test_ejected_endpoint_returns_after_base_ejection_time() -> None:
    detector = OutlierDetector(OutlierConfig(consecutive_5xx=1, base_ejection_s=30))
    (host,) = hosts(1)
    fail(detector, host, 1, now=100.0)
    assert detector.sweep([host], 129.9) == 0
    assert detector.sweep([host], 130.0) == 1
    assert host.ejected_until is None
    assert detector.ejected == 0


def test_each_ejection_is_longer_up_to_the_maximum_and_health_forgives() -> None:
    detector = OutlierDetector(OutlierConfig(consecutive_5xx=1, base_ejection_s=30, max_ejection_s=80))
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
    detector = OutlierDetector(OutlierConfig(consecutive_5xx=1, max_ejection_percent=40))
    group = hosts(5)
    assert [fail(detector, host, 1, of=5) for host in group] == [True, True, False, False, False]
    none = OutlierDetector(OutlierConfig(consecutive_5xx=1, max_ejection_percent=0))
    assert fail(none, HostHealth(), 1, of=5)
    assert not fail(none, HostHealth(), 1, of=5)


def test_gateway_errors_have_their_own_count() -> None:
    detector = OutlierDetector(OutlierConfig(consecutive_5xx=0, consecutive_gateway=2))
    host = HostHealth()
    assert not fail(detector, host, 5)
    assert not fail(detector, host, 1, kind=FailureKind.GATEWAY_ERROR)
    assert not fail(detector, host, 1)
    assert fail(detector, host, 2, kind=FailureKind.GATEWAY_ERROR)


def test_failures_without_an_answer_count_as_5xx_unless_split() -> None:
    together = OutlierDetector(OutlierConfig(consecutive_5xx=2))
    assert fail(together, HostHealth(), 2, kind=FailureKind.LOCAL_ORIGIN)
    split = OutlierDetector(OutlierConfig(consecutive_5xx=2, consecutive_local_origin=3, split_local_origin=True))
    host = HostHealth()
    assert not fail(split, host, 2, kind=FailureKind.LOCAL_ORIGIN)
    assert fail(split, host, 1, kind=FailureKind.LOCAL_ORIGIN)


def test_new_detector_adopts_what_is_out() -> None:
    detector = OutlierDetector(OutlierConfig(consecutive_5xx=1, max_ejection_percent=10))
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
