"""Injected faults: which requests are delayed or refused on purpose. Chance is an argument. Source: Envoy HTTPFault."""

from dataclasses import dataclass

from mesh.resilience.errors import ResilienceConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPolicy:
    """Delay, abort, or both (first the delay, as in Envoy)."""

    delay_percent: float = 0.0
    """Share of the requests that wait. 0 to 100."""
    delay_s: float = 0.0
    """How long they wait. Seconds, >= 0."""
    abort_percent: float = 0.0
    """Share of the requests that are answered without an upstream. 0 to 100."""
    abort_status: int = 503
    """With this status. 200 to 599."""
    max_active: int | None = None
    """Faults under way at once; beyond it requests pass unharmed. None: no limit. Source: max_active_faults."""

    def __post_init__(self) -> None:
        if not (0 <= self.delay_percent <= 100 and 0 <= self.abort_percent <= 100):
            raise ResilienceConfigError("fault: percentages must be 0 to 100")
        if self.delay_s < 0:
            raise ResilienceConfigError(f"fault.delay: fixedDelay is {self.delay_s:g} s, want >= 0")
        if not 200 <= self.abort_status <= 599:
            raise ResilienceConfigError(f"fault.abort: httpStatus is {self.abort_status}, want 200 to 599")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultDecision:
    """What happens to one request."""

    delay_s: float = 0.0
    """Flag DI when > 0."""
    abort_status: int = 0
    """Flag FI when not 0."""

    def __bool__(self) -> bool:
        return self.delay_s > 0 or self.abort_status != 0


NO_FAULT = FaultDecision()


def decide_fault(policy: FaultPolicy, *, delay_draw: float, abort_draw: float, active: int = 0) -> FaultDecision:
    """The decision for one request; the draws are uniform in [0, 1). `active`: faults under way."""
    if policy.max_active is not None and active >= policy.max_active:
        return NO_FAULT
    delays = delay_draw * 100.0 < policy.delay_percent
    aborts = abort_draw * 100.0 < policy.abort_percent
    if not delays and not aborts:
        return NO_FAULT
    return FaultDecision(delay_s=policy.delay_s if delays else 0.0, abort_status=policy.abort_status if aborts else 0)
