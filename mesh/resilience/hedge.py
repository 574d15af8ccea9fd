"""Hedging: a second attempt beside a slow first one. What it is allowed to do, and which answer wins. Pure."""

import enum
from dataclasses import dataclass

from mesh.resilience.errors import ResilienceConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgePolicy:
    """Source: envoy.config.route.v3.HedgePolicy.

    Only requests that may be repeated are hedged, and every extra attempt is a retry: it counts in num_retries and in the budget.
    """

    on_per_try_timeout: bool = False
    """At the per-try timeout the attempt stays in flight and another begins elsewhere; the first good response wins.
    Needs a retry policy with per_try_timeout; without one nothing is hedged."""
    initial_requests: int = 1
    """Attempts sent at once. Source: initial_requests, which Envoy does not implement either; only 1 is accepted."""

    def __post_init__(self) -> None:
        if self.initial_requests != 1:
            raise ResilienceConfigError(
                f"hedgePolicy: initialRequests is {self.initial_requests}; only 1 is supported (as in Envoy)"
            )


class Verdict(enum.Enum):
    """What becomes of one attempt's end."""

    WIN = "win"
    """Its response goes to the client; all others are cancelled."""
    LOSE = "lose"
    """It is thrown away, because another attempt may still do better."""
    DECIDE = "decide"
    """It was the last one: the usual rules of retries apply."""


def judge(*, is_good: bool, others_in_flight: int) -> Verdict:
    """`is_good`: a response that would not be retried. `others_in_flight` includes retries that wait for their turn."""
    if is_good:
        return Verdict.WIN
    return Verdict.LOSE if others_in_flight > 0 else Verdict.DECIDE
