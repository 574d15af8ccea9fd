"""Which hosts stand out by their rate of success over an interval. Pure functions over counts. Source: Envoy, "Outlier detection"."""

import math
from collections.abc import Sequence
from typing import NamedTuple

_ROUNDING = 1e-9
"""Equal rates must not look different because a mean was rounded."""


class Rated(NamedTuple):
    """One host's interval."""

    good: int
    total: int

    @property
    def percent(self) -> float:
        """Share that went well. 0 to 100; 100 when there was nothing."""
        return 100.0 * self.good / self.total if self.total else 100.0


def success_rate_outliers(
    hosts: Sequence[Rated], *, min_hosts: int, volume: int, stdev_factor: float
) -> tuple[int, ...]:
    """Positions of the hosts whose rate is below mean - `stdev_factor` * standard deviation of all that count.

    A host counts with at least `volume` requests; fewer than `min_hosts` such hosts prove nothing.
    """
    rates = {at: host.percent for at, host in enumerate(hosts) if host.total and host.total >= volume}
    if not rates or len(rates) < min_hosts:
        return ()
    mean = math.fsum(rates.values()) / len(rates)
    variance = math.fsum((rate - mean) ** 2 for rate in rates.values()) / len(rates)
    threshold = mean - stdev_factor * math.sqrt(variance) - _ROUNDING
    return tuple(at for at, rate in rates.items() if rate < threshold)


def failure_percentage_outliers(
    hosts: Sequence[Rated], *, min_hosts: int, volume: int, threshold_percent: float
) -> tuple[int, ...]:
    """Positions of the hosts of which at least `threshold_percent` of the requests have failed; `volume`, `min_hosts` as above."""
    rates = {at: host.percent for at, host in enumerate(hosts) if host.total and host.total >= volume}
    if not rates or len(rates) < min_hosts:
        return ()
    return tuple(at for at, rate in rates.items() if 100.0 - rate >= threshold_percent)
