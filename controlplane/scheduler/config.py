"""The scheduler's settings."""

from dataclasses import dataclass, field

from mesh.backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """One scheduler."""

    scheduler_name: str = "default-scheduler"
    """Only pods whose spec.schedulerName is this are placed."""
    backoff: Backoff = field(default_factory=lambda: Backoff(base_s=1.0, cap_s=10.0, jitter=0.2))
    """Before a pod that did not fit, or could not be bound, is tried again. Source: kube-scheduler podInitialBackoffSeconds 1,
    podMaxBackoffSeconds 10."""
    flush_unschedulable_s: float = 300.0
    """A pod that fits nowhere is tried again after this long even if nothing changed. Seconds, > 0. Source: kube-scheduler, 5 min."""
    max_bindings: int = 64
    """Bindings on their way to the API server at one time, > 0."""
    max_named_nodes: int = 10
    """Nodes named per reason in a FailedScheduling event, > 0; the rest are counted."""
