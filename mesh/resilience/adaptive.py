"""Adaptive concurrency: how many requests an app bears, learned from its latency. Time and chance are arguments.

The gradient controller of Envoy's adaptive concurrency filter: now and then the limit is lowered to a minimum for a window in which the
latency without queueing (minRTT) is measured; between those windows the limit follows minRTT / sampleRTT. Source: Envoy docs,
"Adaptive Concurrency", and envoy.extensions.filters.http.adaptive_concurrency.v3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mesh.resilience.errors import ResilienceConfigError

MAX_SAMPLES = 1024
"""Latencies kept per window; later ones replace the oldest. Bounds memory and the cost of a percentile."""
_MIN_GRADIENT, _MAX_GRADIENT = 0.5, 2.0
_STUCK_WINDOWS = 5
"""Windows in a row at the minimum after which minRTT is measured again: it is probably out of date."""

Draw = Callable[[], float]
"""Uniform in [0, 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveConfig:
    """Settings of the gradient controller. Defaults are Envoy's where it has one."""

    percentile: float = 50.0
    """Which latency of a window counts. 0 to 100. Source: sample_aggregate_percentile."""
    max_limit: int = 1000
    """The limit never exceeds it, >= min_limit. Source: max_concurrency_limit."""
    update_interval_s: float = 0.1
    """A window between two changes of the limit. Seconds, > 0. Source: concurrency_update_interval, which has no default."""
    min_rtt_interval_s: float = 60.0
    """Time between two measurements of minRTT. Seconds, > 0. Source: min_rtt_calc_params.interval."""
    min_rtt_requests: int = 50
    """Requests that one measurement takes, >= 1."""
    min_rtt_jitter_percent: float = 15.0
    """The next measurement comes up to this share of the interval later, so that a fleet does not measure at once. 0 to 100."""
    min_limit: int = 3
    """The limit while minRTT is measured, and the lowest at all, >= 1."""
    buffer_percent: float = 25.0
    """How much slower than minRTT is still as good. 0 to 100."""
    fixed_min_rtt_s: float | None = None
    """Known latency without queueing; then it is never measured. Seconds, > 0."""

    def __post_init__(self) -> None:
        if min(self.update_interval_s, self.min_rtt_interval_s, self.fixed_min_rtt_s or 1.0) <= 0:
            raise ResilienceConfigError("adaptiveConcurrency: intervals and fixedValue must be > 0")
        if not 1 <= self.min_limit <= self.max_limit or self.min_rtt_requests < 1:
            raise ResilienceConfigError(
                f"adaptiveConcurrency: want 1 <= minConcurrency ({self.min_limit}) <= maxConcurrencyLimit "
                f"({self.max_limit}) and requestCount ({self.min_rtt_requests}) >= 1"
            )
        shares = (self.percentile, self.min_rtt_jitter_percent, self.buffer_percent)
        if not all(0 <= share <= 100 for share in shares):
            raise ResilienceConfigError("adaptiveConcurrency: percentages must be 0 to 100")


def next_limit(config: AdaptiveConfig, limit: int, *, min_rtt_s: float, sample_rtt_s: float) -> int:
    """The limit after a window: it shrinks as latency grows beyond minRTT, and leaves room for sqrt(limit) more to try it out."""
    wanted = min_rtt_s * (1.0 + config.buffer_percent / 100.0)
    gradient = wanted / sample_rtt_s if sample_rtt_s > 0 else _MAX_GRADIENT
    target = limit * max(_MIN_GRADIENT, min(_MAX_GRADIENT, gradient))
    return max(config.min_limit, min(config.max_limit, int(target + math.sqrt(target))))


class _Window:
    """The latencies of one window, the latest MAX_SAMPLES of them."""

    __slots__ = ("count", "samples")

    def __init__(self) -> None:
        self.samples: list[float] = []
        self.count = 0

    def add(self, sample: float) -> None:
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append(sample)
        else:
            self.samples[self.count % MAX_SAMPLES] = sample
        self.count += 1

    def take_percentile(self, percent: float) -> float:
        """The nearest-rank percentile; the window is empty afterwards."""
        ordered = sorted(self.samples)
        self.samples, self.count = [], 0
        return ordered[max(0, math.ceil(percent / 100.0 * len(ordered)) - 1)]


class AdaptiveLimit:
    """The limit of one app. Ask `try_begin` before a request; say `finish` when it was answered, `give_up` when it was not."""

    __slots__ = (
        "_draw",
        "_epoch",
        "_limit_before",
        "_next_measure",
        "_stuck",
        "_window",
        "_window_ends",
        "active",
        "config",
        "is_measuring",
        "limit",
        "min_rtt_s",
        "refused_total",
        "sample_rtt_s",
    )

    def __init__(self, config: AdaptiveConfig, draw: Draw, now: float) -> None:
        self.config = config
        self._draw = draw
        self.limit = config.min_limit
        """How many requests may be in flight now."""
        self.active = 0
        self.refused_total = 0
        self.min_rtt_s = config.fixed_min_rtt_s or 0.0
        """Seconds; 0 until the first measurement is over."""
        self.sample_rtt_s = 0.0
        """Of the last window."""
        self.is_measuring = config.fixed_min_rtt_s is None
        """minRTT is being measured: the limit stands at its minimum."""
        self._window = _Window()
        self._window_ends = now + config.update_interval_s
        self._limit_before = config.min_limit
        self._epoch = now
        self._next_measure = math.inf
        self._stuck = 0

    def try_begin(self, now: float) -> bool:
        """Whether one more request may go to the app. False: refuse it (503)."""
        self.turn(now)
        if self.active >= self.limit:
            self.refused_total += 1
            return False
        self.active += 1
        return True

    def finish(self, started: float, now: float) -> None:
        """A request that began at `started` has been answered; its latency counts."""
        self.active -= 1
        if started < self._epoch:
            return  # begun before the limit was lowered: it has waited behind others
        self._window.add(now - started)
        if self.is_measuring and self._window.count >= self.config.min_rtt_requests:
            self._end_measurement(now)
        self.turn(now)

    def give_up(self) -> None:
        """A request has ended without an answer of the app; its latency says nothing."""
        self.active -= 1

    def turn(self, now: float) -> None:
        """End windows whose time has come. Idempotent for one `now`; called by the others."""
        if self.is_measuring:
            return
        if now >= self._window_ends:
            self._window_ends = now + self.config.update_interval_s
            if self._window.samples:
                self._update_limit()
        if self.config.fixed_min_rtt_s is None and (now >= self._next_measure or self._stuck >= _STUCK_WINDOWS):
            self._begin_measurement(now)

    def _update_limit(self) -> None:
        config = self.config
        self.sample_rtt_s = sample = self._window.take_percentile(config.percentile)
        self.limit = next_limit(config, self.limit, min_rtt_s=self.min_rtt_s, sample_rtt_s=sample)
        self._stuck = self._stuck + 1 if self.limit <= config.min_limit else 0

    def _begin_measurement(self, now: float) -> None:
        self.is_measuring = True
        self._limit_before, self.limit = self.limit, self.config.min_limit
        self._epoch = now
        self._stuck = 0
        self._window = _Window()

    def _end_measurement(self, now: float) -> None:
        config = self.config
        self.is_measuring = False
        self.limit = self._limit_before
        self.min_rtt_s = self._window.take_percentile(config.percentile)
        self._window_ends = now + config.update_interval_s
        jitter = config.min_rtt_jitter_percent / 100.0 * self._draw()
        self._next_measure = now + config.min_rtt_interval_s * (1.0 + jitter)
