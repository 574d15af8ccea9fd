"""When a probe's result counts. Pure. Source: Kubernetes docs, "Configure Liveness, Readiness and Startup Probes"."""

from dataclasses import dataclass
from enum import Enum

from mesh.api.pod import Probe

EAGER_FIRST_S = 0.05
"""The first extra look before a probe has ever succeeded."""


class ProbeKind(Enum):
    """What a probe decides."""

    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"


@dataclass(frozen=True, slots=True)
class ProbeState:
    """Results so far for one run of a container."""

    verdict: bool | None = None
    """None until enough results in a row say the same."""
    in_a_row: int = 0
    """Equal results in a row."""
    was_success: bool = False


def observe(probe: Probe, state: ProbeState, is_success: bool) -> ProbeState:
    """The state after one more result."""
    in_a_row = state.in_a_row + 1 if state.in_a_row and state.was_success == is_success else 1
    needed = probe.success_threshold if is_success else probe.failure_threshold
    verdict = is_success if in_a_row >= max(1, needed) else state.verdict
    return ProbeState(verdict, in_a_row, is_success)


def first_wait_s(probe: Probe, kind: ProbeKind, ran_s: float) -> float:
    """Seconds until the first look at a container that has run for `ran_s`."""
    return max(0.0, probe.initial_delay_seconds - ran_s)


def eager_waits_s(probe: Probe) -> tuple[float, ...]:
    """Waits between extra looks within one period, while a startup or readiness probe has not succeeded yet.

    DEVIATION: kubelet looks once a period, so a fast program waits for the next one. Extra looks count only when they
    succeed; failures are counted once a period as in Kubernetes. The waits double and end before the period does.
    """
    if probe.success_threshold > 1:
        return ()
    waits, wait, used = [], EAGER_FIRST_S, 0.0
    while used + wait < probe.period_seconds:
        waits.append(wait)
        used += wait
        wait *= 2
    return tuple(waits)
