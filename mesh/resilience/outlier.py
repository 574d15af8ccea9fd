"""Outlier detection: which hosts of a cluster are left out for a while because they keep failing.

The detector keeps one `HostHealth` per host. The hot path only touches its counters: on success it clears them when
they are not zero, on failure it calls `on_failure`. Time is an argument. Source: Envoy, "Outlier detection".
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from mesh.resilience.errors import ResilienceConfigError


class FailureKind(enum.Enum):
    """What a host did wrong."""

    SERVER_ERROR = "5xx"
    """A 5xx other than 502, 503, 504."""
    GATEWAY_ERROR = "gateway"
    """502, 503 or 504 from the host."""
    LOCAL_ORIGIN = "local-origin"
    """No answer: connect failure, reset, timeout. Counted as a gateway error unless split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierConfig:
    """When a host is ejected and for how long. A threshold of 0 switches that detector off."""

    consecutive_5xx: int = 5
    """Any 5xx (and failures without an answer, unless split) in a row. Enforced 100 %."""
    consecutive_gateway: int = 0
    """502, 503, 504 in a row. Source: Envoy's threshold is 5, but enforced 0 %; hence off."""
    consecutive_local_origin: int = 5
    """Failures without an answer in a row; only when `split_local_origin`."""
    split_local_origin: bool = False
    """Count failures without an answer apart from 5xx answers."""
    interval_s: float = 10.0
    """How often ejected hosts are looked at for their return. Seconds, > 0."""
    base_ejection_s: float = 30.0
    """The first ejection's length; the n-th is n times as long. Seconds, > 0."""
    max_ejection_s: float = 300.0
    """No ejection is longer. Seconds, >= base_ejection_s."""
    max_ejection_percent: int = 10
    """Share of the hosts that may be out at once; one always may. 0 to 100."""

    def __post_init__(self) -> None:
        if self.interval_s <= 0 or self.base_ejection_s <= 0:
            raise ResilienceConfigError("outlierDetection: interval and baseEjectionTime must be > 0")
        if not 0 <= self.max_ejection_percent <= 100:
            raise ResilienceConfigError(
                f"outlierDetection: maxEjectionPercent is {self.max_ejection_percent}, want 0 to 100"
            )


@dataclass(slots=True, eq=False)
class HostHealth:
    """What the detector knows about one host. Changed in place by the detector's owner."""

    consecutive_5xx: int = 0
    consecutive_gateway: int = 0
    consecutive_local: int = 0
    times_ejected: int = 0
    """Ejections so far; falls by one for every interval spent healthy."""
    ejected_until: float | None = None
    """Monotonic seconds; None while the host takes part."""
    ejections_total: int = 0
    """For metrics; never falls."""
    has_failures: bool = False
    """Whether any of the consecutive counters is above 0: one test for the hot path."""

    def succeed(self) -> None:
        """The host answered well. Call it when `has_failures`."""
        self.consecutive_5xx = self.consecutive_gateway = self.consecutive_local = 0
        self.has_failures = False


class OutlierDetector:
    """Ejects hosts of one cluster and lets them return."""

    __slots__ = ("_ejected", "config")

    def __init__(self, config: OutlierConfig) -> None:
        self.config = config
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
        if kind is FailureKind.LOCAL_ORIGIN and config.split_local_origin:
            host.consecutive_local += 1
            tripped = 0 < config.consecutive_local_origin <= host.consecutive_local
        else:
            host.consecutive_5xx += 1
            tripped = 0 < config.consecutive_5xx <= host.consecutive_5xx
            if kind is FailureKind.SERVER_ERROR:
                host.consecutive_gateway = 0
            else:
                host.consecutive_gateway += 1
                tripped = tripped or 0 < config.consecutive_gateway <= host.consecutive_gateway
        if not tripped or host.ejected_until is not None or not self._may_eject(hosts):
            return False
        self._eject(host, now)
        return True

    def _may_eject(self, hosts: int) -> bool:
        """At least one host may always be out. Source: Envoy max_ejection_percent."""
        return self._ejected == 0 or (self._ejected + 1) * 100 <= hosts * self.config.max_ejection_percent

    def _eject(self, host: HostHealth, now: float) -> None:
        config = self.config
        host.times_ejected += 1
        host.ejections_total += 1
        host.ejected_until = now + min(
            config.base_ejection_s * host.times_ejected, max(config.max_ejection_s, config.base_ejection_s)
        )
        host.succeed()
        self._ejected += 1

    def sweep(self, hosts: Iterable[HostHealth], now: float) -> int:
        """Let hosts return whose time is over. Call it every `interval_s`; returns how many came back.

        A host that has been healthy for the whole interval has its ejection multiplier lowered by one.
        """
        returned = 0
        for host in hosts:
            if host.ejected_until is None:
                if host.times_ejected > 0:
                    host.times_ejected -= 1
            elif host.ejected_until <= now:
                host.ejected_until = None
                self._ejected -= 1
                returned += 1
        return returned
