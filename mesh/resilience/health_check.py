"""Active health checks: when an endpoint is probed, and when what was found changes its health. Pure.

The caller probes, tells `CheckState` how it ended, and waits `HealthCheck.delay_s`; time and chance are arguments. Source: Envoy,
"Health checking" and envoy.config.core.v3.HealthCheck.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.probe import HttpProbe, TcpProbe

Draw = Callable[[], float]
"""Chance, uniform in [0, 1)."""

NO_TRAFFIC_INTERVAL_S = 60.0
"""Source: HealthCheck.no_traffic_interval."""


class Outcome(enum.Enum):
    """How one check ended."""

    PASSED = "passed"
    REFUSED = "refused"
    """The endpoint answered, and the answer says that it is not well: counts at once."""
    RETRIABLE = "retriable"
    """It answered with one of `retriable_statuses`: counts like no answer."""
    UNREACHABLE = "unreachable"
    """No connection, or a broken one, or no proper answer."""
    TIMEOUT = "timeout"
    PASSIVE = "passive"
    """An ordinary response carried x-envoy-immediate-health-check-fail."""

    @property
    def is_network(self) -> bool:
        """Whether Envoy counts it as `network_failure`."""
        return self in (Outcome.UNREACHABLE, Outcome.TIMEOUT)


class Change(enum.Enum):
    """What an outcome meant for the endpoint's health."""

    NONE = "none"
    PENDING = "pending"
    """It speaks for the other state, but the threshold is not reached."""
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How the endpoints of one cluster are checked. Durations are seconds; None: see the field."""

    probe: HttpProbe | TcpProbe
    timeout_s: float
    """From the start of a check to its end, connecting included. > 0."""
    interval_s: float
    """Between checks of a passing endpoint. > 0."""
    unhealthy_threshold: int
    """Checks in a row without a proper answer that make an endpoint unhealthy. >= 1. A wrong answer does it alone."""
    healthy_threshold: int
    """Checks in a row that an unhealthy endpoint must pass; the very first check decides alone. >= 1."""
    initial_jitter_s: float = 0.0
    """The first check is up to this much later, by chance."""
    interval_jitter_s: float = 0.0
    """Up to this much is added to every wait, by chance."""
    interval_jitter_percent: int = 0
    """Up to this share of the wait is added to it, by chance."""
    unhealthy_interval_s: float | None = None
    """Between checks of an unhealthy endpoint; None: `interval_s`."""
    unhealthy_edge_interval_s: float | None = None
    """After a failure that has not changed anything yet; None: `unhealthy_interval_s`."""
    healthy_edge_interval_s: float | None = None
    """After a pass that has not changed anything yet; None: `interval_s`."""
    no_traffic_interval_s: float = NO_TRAFFIC_INTERVAL_S
    """Instead of all of them while the cluster has never made a connection for a request."""
    no_traffic_healthy_interval_s: float | None = None
    """The same for a passing endpoint; None: `no_traffic_interval_s`."""
    reuses_connection: bool = True
    logs_failures: bool = False
    """Log every failed check, not only changes."""
    logs_passes: bool = False
    """Log every passed check."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "interval_s", "no_traffic_interval_s"):
            if getattr(self, name) <= 0:
                raise ResilienceConfigError(f"health check: {name.removesuffix('_s')} must be > 0")
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ResilienceConfigError(f"health check: {name.removesuffix('_s')} must be > 0")
        if self.unhealthy_threshold < 1 or self.healthy_threshold < 1:
            raise ResilienceConfigError("health check: healthy_threshold and unhealthy_threshold must be >= 1")

    def first_delay_s(self, draw: Draw) -> float:
        """How long to wait before the first check."""
        return self.initial_jitter_s * draw() if self.initial_jitter_s else 0.0

    def delay_s(self, outcome: Outcome, change: Change, *, has_traffic: bool, draw: Draw) -> float:
        """How long to wait for the next check after one that ended in `outcome` and meant `change`.

        `has_traffic`: the cluster has made a connection for a request at some time.
        """
        wait_s = self._interval_s(outcome is Outcome.PASSED, change, has_traffic=has_traffic)
        if self.interval_jitter_percent:
            wait_s += wait_s * self.interval_jitter_percent / 100.0 * draw()
        if self.interval_jitter_s:
            wait_s += self.interval_jitter_s * draw()
        return wait_s

    def _interval_s(self, has_passed: bool, change: Change, *, has_traffic: bool) -> float:
        is_pending = change is Change.PENDING
        if not has_traffic:
            if has_passed and not is_pending:
                return _or(self.no_traffic_healthy_interval_s, self.no_traffic_interval_s)
            return self.no_traffic_interval_s
        if has_passed:
            return _or(self.healthy_edge_interval_s, self.interval_s) if is_pending else self.interval_s
        unhealthy_s = _or(self.unhealthy_interval_s, self.interval_s)
        return _or(self.unhealthy_edge_interval_s, unhealthy_s) if is_pending else unhealthy_s


_OPTIONAL = (
    "unhealthy_interval_s",
    "unhealthy_edge_interval_s",
    "healthy_edge_interval_s",
    "no_traffic_healthy_interval_s",
)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


class CheckState:
    """What the checks say about one endpoint."""

    __slots__ = ("_config", "_failures", "_passes", "is_failed", "is_first")

    def __init__(self, config: HealthCheck, *, is_failed: bool) -> None:
        """`is_failed` is what holds until the first check has ended, which decides at once."""
        self._config = config
        self._failures = 0
        self._passes = 0
        self.is_failed = is_failed
        self.is_first = True
        """No check has ended yet."""

    def on_outcome(self, outcome: Outcome) -> Change:
        """A check has ended."""
        change = self._on_pass() if outcome is Outcome.PASSED else self._on_failure(outcome)
        self.is_first = False
        return change

    def _on_pass(self) -> Change:
        self._failures = 0
        if not self.is_failed:
            return Change.NONE
        self._passes += 1
        if not self.is_first and self._passes < self._config.healthy_threshold:
            return Change.PENDING
        self._passes = 0
        self.is_failed = False
        return Change.CHANGED

    def _on_failure(self, outcome: Outcome) -> Change:
        self._passes = 0
        if self.is_failed:
            return Change.NONE
        self._failures += 1
        counts_alone = self.is_first or outcome in (Outcome.REFUSED, Outcome.PASSIVE)
        if not counts_alone and self._failures < self._config.unhealthy_threshold:
            return Change.PENDING
        self._failures = 0
        self.is_failed = True
        return Change.CHANGED
