"""Typed view of meshwork.dev/v1 TrafficLimit: what a pod's own sidecar lets in."""

from collections.abc import Mapping

import msgspec

from mesh.api.meta import ObjectView, View
from mesh.api.networking import PolicyStatus


class WorkloadSelector(View, frozen=True, kw_only=True):
    match_labels: Mapping[str, str] = {}
    """Empty: every pod of the namespace."""


class LocalRateLimit(View, frozen=True, kw_only=True):
    """A token bucket of each sidecar."""

    max_tokens: int = 0
    tokens_per_fill: int = 1
    fill_interval: str = ""
    status: int = 429


class AdaptiveConcurrency(View, frozen=True, kw_only=True):
    """Envoy's gradient controller; what is left out has Envoy's default."""

    enabled: bool = True
    percentile: float | None = None
    max_concurrency_limit: int | None = None
    update_interval: str = ""
    min_rtt_interval: str = msgspec.field(name="minRTTInterval", default="")
    min_rtt_requests: int | None = msgspec.field(name="minRTTRequests", default=None)
    min_concurrency: int | None = None
    jitter_percent: float | None = None
    buffer_percent: float | None = None
    status: int = 503


class TrafficLimitSpec(View, frozen=True, kw_only=True):
    selector: WorkloadSelector = WorkloadSelector()
    port: int = 0
    """Of the container; 0: every port that speaks HTTP."""
    local_rate_limit: LocalRateLimit | None = None
    adaptive_concurrency: AdaptiveConcurrency | None = None


class TrafficLimit(ObjectView, frozen=True, kw_only=True):
    spec: TrafficLimitSpec = TrafficLimitSpec()
    status: PolicyStatus = PolicyStatus()
