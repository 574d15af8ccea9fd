"""Exponential back-off with full jitter, as a pure function of attempt and chance."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits between tries.

    The wait before try `n` (1 = first retry) is uniform in [floor, min(cap_s, base_s * factor**(n-1))], where floor is
    `1 - jitter` of the upper bound. Source: AWS architecture blog, "Exponential Backoff And Jitter" (full jitter is 1.0).
    """

    base_s: float = 0.1
    """Upper bound of the first wait. Seconds, > 0."""
    cap_s: float = 30.0
    """No wait is longer. Seconds, >= base_s."""
    factor: float = 2.0
    """Growth per try, >= 1."""
    jitter: float = 1.0
    """0 = none, 1 = full."""

    def ceiling_s(self, attempt: int) -> float:
        """The longest wait before try `attempt` (>= 1)."""
        exponent = min(attempt - 1, 64)
        return float(min(self.cap_s, self.base_s * self.factor**exponent))

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """A wait before try `attempt` (>= 1), drawn with `rng`."""
        top = self.ceiling_s(attempt)
        return top * (1.0 - self.jitter * rng.random())
