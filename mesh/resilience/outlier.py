"""Outlier detection: which hosts of a cluster are left out for a while because they keep failing.

The detector keeps one `HostHealth` per host. The hot path only touches its counters: on success it adds one to `successes` and clears
the consecutive counters when they are not zero, on failure it calls `on_failure`. Time and chance are arguments.
Source: Envoy, "Outlier detection".
DEVIATION: in split mode Envoy counts a made connection and a later timeout of the same attempt as one success and one failure of local
origin; here an attempt counts once, by how it ended.
"""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.success_rate import Rated, failure_percentage_outliers, success_rate_outliers

Draw = Callable[[], float]
"""Uniform in [0, 1)."""


class FailureKind(enum.Enum):
    """What a host did wrong."""

    SERVER_ERROR = "5xx"
    """A 5xx other than 502, 503, 504."""
    GATEWAY_ERROR = "gateway"
    """502, 503 or 504 from the host."""
    LOCAL_ORIGIN = "local-origin"
    """No answer: connect failure, reset, timeout. Counted as a gateway error unless split."""


class EjectionKind(enum.Enum):
    """Which detector found an outlier. The values end the names of Envoy's counters."""

    CONSECUTIVE_5XX = "consecutive_5xx"
    CONSECUTIVE_GATEWAY = "consecutive_gateway_failure"
    CONSECUTIVE_LOCAL_ORIGIN = "consecutive_local_origin_failure"
    SUCCESS_RATE = "success_rate"
    LOCAL_ORIGIN_SUCCESS_RATE = "local_origin_success_rate"
    FAILURE_PERCENTAGE = "failure_percentage"
    LOCAL_ORIGIN_FAILURE_PERCENTAGE = "failure_percentage_local_origin"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierConfig:
    """When a host is ejected and for how long. A consecutive threshold of 0 switches that detector off.

    `enforcing_*` is the share of detected outliers that are really ejected, 0 to 100; at 0 they are only counted. Defaults are Envoy's.
    """

    consecutive_5xx: int = 5
    """Any 5xx (and failures without an answer, unless split) in a row."""
    enforcing_consecutive_5xx: int = 100
    consecutive_gateway: int = 5
    """502, 503, 504 in a row."""
    enforcing_consecutive_gateway: int = 0
    consecutive_local_origin: int = 5
    """Failures without an answer in a row; only when `split_local_origin`."""
    enforcing_consecutive_local_origin: int = 100
    split_local_origin: bool = False
    """Count failures without an answer apart from 5xx answers."""
    success_rate_min_hosts: int = 5
    """The success rate detector needs so many hosts with enough requests."""
    success_rate_volume: int = 100
    """Requests in an interval that make a host's rate count."""
    success_rate_stdev_factor: float = 1.9
    """A host is an outlier below mean - factor * standard deviation. Source: success_rate_stdev_factor 1900 (thousandths)."""
    enforcing_success_rate: int = 100
    enforcing_local_origin_success_rate: int = 100
    """Only when `split_local_origin`."""
    failure_percentage_threshold: int = 85
    """A host is an outlier when so many percent of its requests in an interval have failed. 0 to 100."""
    failure_percentage_min_hosts: int = 5
    failure_percentage_volume: int = 50
    enforcing_failure_percentage: int = 0
    enforcing_local_origin_failure_percentage: int = 0
    """Only when `split_local_origin`."""
    interval_s: float = 10.0
    """How often rates are looked at and ejected hosts may return. Seconds, > 0."""
    base_ejection_s: float = 30.0
    """The first ejection's length; the n-th is n times as long. Seconds, > 0."""
    max_ejection_s: float = 300.0
    """No ejection is longer, but for the jitter. Seconds; base_ejection_s counts if that is more."""
    max_ejection_jitter_s: float = 0.0
    """Up to this much is added to each ejection, so that hosts don't return all at once. Seconds, >= 0."""
    max_ejection_percent: int = 10
    """Share of the hosts that may be out at once. 0 to 100."""
    always_eject_one: bool = True
    """One host may be out whatever `max_ejection_percent` says.
    DEVIATION: Envoy did so always and since 1.31 only when told to; with 10 % and three pods nothing would ever be ejected."""
    uneject_on_active_check: bool = True
    """A passed active health check ends an ejection. Source: successful_active_health_check_uneject_host."""

    def __post_init__(self) -> None:
        if self.interval_s <= 0 or self.base_ejection_s <= 0 or self.max_ejection_jitter_s < 0:
            raise ResilienceConfigError(
                "outlierDetection: interval and baseEjectionTime must be > 0, maxEjectionTimeJitter >= 0"
            )
        if not 0 <= self.max_ejection_percent <= 100:
            raise ResilienceConfigError(
                f"outlierDetection: maxEjectionPercent is {self.max_ejection_percent}, want 0 to 100"
            )
        shares = [self.enforcing(kind) for kind in EjectionKind] + [self.failure_percentage_threshold]
        if not all(0 <= share <= 100 for share in shares):
            raise ResilienceConfigError("outlierDetection: enforcing shares and failure percentages must be 0 to 100")

    def enforcing(self, kind: EjectionKind) -> int:
        """The share of this detector's outliers that are ejected. Percent."""
        match kind:
            case EjectionKind.CONSECUTIVE_5XX:
                return self.enforcing_consecutive_5xx
            case EjectionKind.CONSECUTIVE_GATEWAY:
                return self.enforcing_consecutive_gateway
            case EjectionKind.CONSECUTIVE_LOCAL_ORIGIN:
                return self.enforcing_consecutive_local_origin
            case EjectionKind.SUCCESS_RATE:
                return self.enforcing_success_rate
            case EjectionKind.LOCAL_ORIGIN_SUCCESS_RATE:
                return self.enforcing_local_origin_success_rate
            case EjectionKind.FAILURE_PERCENTAGE:
                return self.enforcing_failure_percentage
            case EjectionKind.LOCAL_ORIGIN_FAILURE_PERCENTAGE:
                return self.enforcing_local_origin_failure_percentage

    def ejection_s(self, times: int, draw: Draw) -> float:
        """How long the `times`-th ejection lasts."""
        longest = max(self.max_ejection_s, self.base_ejection_s)
        jitter = self.max_ejection_jitter_s * draw() if self.max_ejection_jitter_s else 0.0
        return min(self.base_ejection_s * times, longest) + jitter


@dataclass(slots=True, eq=False)
class HostHealth:
    """What the detector knows about one host. Changed in place by the detector's owner."""

    successes: int = 0
    """Good answers in this interval. The hot path adds one for each."""
    errors: int = 0
    """5xx answers in this interval."""
    local_failures: int = 0
    """Attempts without an answer in this interval."""
    consecutive_5xx: int = 0
    consecutive_gateway: int = 0
    consecutive_local: int = 0
    times_ejected: int = 0
    """Multiplier of the next ejection; falls by one for every interval spent healthy."""
    ejected_until: float | None = None
    """Monotonic seconds; None while the host takes part."""
    ejections_total: int = 0
    """For metrics; never falls."""
    has_failures: bool = False
    """Whether any of the consecutive counters is above 0: one test for the hot path."""
    success_rate: float | None = None
    """Percent, of the last interval with enough requests in it. For people."""

    def succeed(self) -> None:
        """The host answered well. Call it when `has_failures`."""
        self.consecutive_5xx = self.consecutive_gateway = self.consecutive_local = 0
        self.has_failures = False

    def end_interval(self, *, is_split: bool) -> tuple[Rated, Rated]:
        """The interval's answers and its attempts as counts, and a fresh start for both."""
        answers = self.successes + self.errors
        attempts = answers + self.local_failures
        external = Rated(self.successes, answers if is_split else attempts)
        self.successes = self.errors = self.local_failures = 0
        return external, Rated(answers, attempts)


@dataclass(slots=True, eq=False)
class EjectionCounts:
    """What detectors of one cluster have found. Only grows; outlives a change of the configuration."""

    detected: dict[EjectionKind, int]
    enforced: dict[EjectionKind, int]
    overflow: int = 0
    """Outliers that stayed in because too many hosts were out already."""

    def __init__(self) -> None:
        self.detected = dict.fromkeys(EjectionKind, 0)
        self.enforced = dict.fromkeys(EjectionKind, 0)
        self.overflow = 0

    @property
    def total(self) -> int:
        """Ejections so far."""
        return sum(self.enforced.values())


class OutlierDetector:
    """Ejects hosts of one cluster and lets them return."""

    __slots__ = ("_draw", "_ejected", "config", "counts")

    def __init__(self, config: OutlierConfig, draw: Draw, counts: EjectionCounts | None = None) -> None:
        """`draw` decides where a share below 100 % is enforced."""
        self.config = config
        self.counts = counts if counts is not None else EjectionCounts()
        self._draw = draw
        self._ejected = 0

    @property
    def ejected(self) -> int:
        """Hosts that are out now."""
        return self._ejected

    def adopt(self, hosts: Iterable[HostHealth]) -> None:
        """Take over hosts that may be out already (the endpoint set changed)."""
        self._ejected = sum(1 for host in hosts if host.ejected_until is not None)

    def on_failure(self, host: HostHealth, kind: FailureKind, *, hosts: int, now: float) -> bool:
        """Count a failure of `host`, one of `hosts` in its cluster. True when that has just ejected it."""
        config = self.config
        host.has_failures = True
        if kind is FailureKind.LOCAL_ORIGIN:
            host.local_failures += 1
        else:
            host.errors += 1
            host.consecutive_local = 0
        if kind is FailureKind.LOCAL_ORIGIN and config.split_local_origin:
            host.consecutive_local += 1
            if host.consecutive_local == config.consecutive_local_origin:
                host.consecutive_local = 0
                return self._found(host, EjectionKind.CONSECUTIVE_LOCAL_ORIGIN, hosts, now)
            return False
        return self._count_answer(host, kind, hosts, now)

    def _count_answer(self, host: HostHealth, kind: FailureKind, hosts: int, now: float) -> bool:
        config = self.config
        is_ejected = False
        host.consecutive_5xx += 1
        host.consecutive_gateway = 0 if kind is FailureKind.SERVER_ERROR else host.consecutive_gateway + 1
        if host.consecutive_gateway == config.consecutive_gateway > 0:
            host.consecutive_gateway = 0
            is_ejected = self._found(host, EjectionKind.CONSECUTIVE_GATEWAY, hosts, now)
        if host.consecutive_5xx == config.consecutive_5xx > 0:
            host.consecutive_5xx = 0
            is_ejected = self._found(host, EjectionKind.CONSECUTIVE_5XX, hosts, now) or is_ejected
        return is_ejected

    def _found(self, host: HostHealth, kind: EjectionKind, hosts: int, now: float) -> bool:
        """An outlier: eject it if it may be. True when it has just been."""
        if host.ejected_until is not None:
            return False
        self.counts.detected[kind] += 1
        if not self._may_eject(hosts):
            self.counts.overflow += 1
            return False
        share = self.config.enforcing(kind)
        if share < 100 and self._draw() * 100.0 >= share:
            return False
        self.counts.enforced[kind] += 1
        self._eject(host, now)
        return True

    def _may_eject(self, hosts: int) -> bool:
        if self.config.always_eject_one and self._ejected == 0:
            return True
        return (self._ejected + 1) * 100 <= hosts * self.config.max_ejection_percent

    def _eject(self, host: HostHealth, now: float) -> None:
        config = self.config
        # The multiplier stops growing where the maximum is reached, so that health is forgiven in bounded time.
        if host.times_ejected * config.base_ejection_s < max(config.max_ejection_s, config.base_ejection_s):
            host.times_ejected += 1
        host.ejections_total += 1
        host.ejected_until = now + config.ejection_s(host.times_ejected, self._draw)
        host.succeed()
        self._ejected += 1

    def sweep(self, hosts: Iterable[HostHealth], now: float) -> int:
        """End an interval: hosts return whose time is over, and rates are compared. Call it every `interval_s`.

        Returns how many hosts came back or were ejected. A host that has been healthy for the whole interval has its ejection
        multiplier lowered by one.
        """
        everyone = list(hosts)
        changed = 0
        for host in everyone:
            if host.ejected_until is None:
                if host.times_ejected > 0:
                    host.times_ejected -= 1
            elif host.ejected_until <= now:
                self._return(host)
                changed += 1
        return changed + self._compare_rates(everyone, now)

    def on_active_check_passed(self, host: HostHealth) -> bool:
        """An active health check of `host` has passed. True when that has ended its ejection."""
        if host.ejected_until is None or not self.config.uneject_on_active_check:
            return False
        self._return(host)
        return True

    def _return(self, host: HostHealth) -> None:
        host.ejected_until = None
        host.succeed()  # few new errors should not eject it again
        self._ejected -= 1

    def _compare_rates(self, everyone: list[HostHealth], now: float) -> int:
        config = self.config
        external: list[tuple[HostHealth, Rated]] = []
        local: list[tuple[HostHealth, Rated]] = []
        for host in everyone:
            answered, attempted = host.end_interval(is_split=config.split_local_origin)
            host.success_rate = answered.percent if answered.total >= config.success_rate_volume else None
            if host.ejected_until is None:
                external.append((host, answered))
                local.append((host, attempted))
        size = len(everyone)
        count = self._eject_outliers(external, size, now, EjectionKind.SUCCESS_RATE, EjectionKind.FAILURE_PERCENTAGE)
        if config.split_local_origin:
            kinds = EjectionKind.LOCAL_ORIGIN_SUCCESS_RATE, EjectionKind.LOCAL_ORIGIN_FAILURE_PERCENTAGE
            count += self._eject_outliers(local, size, now, *kinds)
        return count

    def _eject_outliers(
        self,
        rated: list[tuple[HostHealth, Rated]],
        size: int,
        now: float,
        by_rate: EjectionKind,
        by_share: EjectionKind,
    ) -> int:
        config = self.config
        rates = [rate for _, rate in rated]
        below = success_rate_outliers(
            rates,
            min_hosts=config.success_rate_min_hosts,
            volume=config.success_rate_volume,
            stdev_factor=config.success_rate_stdev_factor,
        )
        failing = failure_percentage_outliers(
            rates,
            min_hosts=config.failure_percentage_min_hosts,
            volume=config.failure_percentage_volume,
            threshold_percent=config.failure_percentage_threshold,
        )
        count = sum(self._found(rated[at][0], by_rate, size, now) for at in below)
        return count + sum(self._found(rated[at][0], by_share, size, now) for at in failing)
