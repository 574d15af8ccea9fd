"""TrafficLimit -> what the sidecars of a namespace's pods let in."""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.api.selectors import is_label_key, is_label_value
from mesh.api.traffic_limit import AdaptiveConcurrency, LocalRateLimit, TrafficLimit
from mesh.resilience.adaptive import AdaptiveConfig
from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.rate_limit import MIN_FILL_INTERVAL_S, TokenBucketConfig
from mesh.routing.table import Provenance
from policies.checks import Findings
from policies.errors import Problems
from policies.provenance import provenance_of

KIND = "TrafficLimit"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket of one sidecar."""

    bucket: TokenBucketConfig
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """A limit of the requests in flight that follows latency."""

    config: AdaptiveConfig
    is_enabled: bool
    """False: measured only."""
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTrafficLimit:
    """One object. At least one of the two limits is there."""

    key: str
    generation: int
    created: str
    namespace: str
    labels: tuple[tuple[str, str], ...]
    """Sorted; a pod must have all."""
    port: int = 0
    """Of the container; 0: every HTTP port."""
    rate: RateLimit | None = None
    adaptive: Adaptive | None = None
    provenance: Provenance

    def covers(self, namespace: str, labels: Mapping[str, str], port: int) -> bool:
        """Whether it is about this port of a pod with these labels."""
        if self.namespace != namespace or self.port not in (0, port):
            return False
        return all(labels.get(key) == value for key, value in self.labels)

    def hides(self, other: "CompiledTrafficLimit") -> bool:
        """Whether this one, being older, leaves nothing for `other` to say anywhere."""
        covers = self.port in (0, other.port) and set(self.labels) <= set(other.labels)
        says_both = (self.rate is not None or other.rate is None) and (
            self.adaptive is not None or other.adaptive is None
        )
        return self.namespace == other.namespace and covers and says_both


def compile_traffic_limit(limit: TrafficLimit) -> CompiledTrafficLimit | Problems:
    """The limits, or everything that is wrong with them."""
    findings, spec, meta = Findings(), limit.spec, limit.metadata
    for key, value in spec.selector.match_labels.items():
        if not is_label_key(key) or not is_label_value(value):
            findings.invalid("spec.selector.matchLabels", f'"{key}: {value}" is not a label: no pod can carry it')
    if spec.port:
        findings.port("spec.port", spec.port)
    if spec.local_rate_limit is None and spec.adaptive_concurrency is None:
        findings.required("spec", "give localRateLimit, adaptiveConcurrency, or both")
    rate = _rate("spec.localRateLimit", spec.local_rate_limit, findings) if spec.local_rate_limit else None
    wanted = spec.adaptive_concurrency
    adaptive = _adaptive("spec.adaptiveConcurrency", wanted, findings) if wanted else None
    if findings.errors:
        return Problems(provenance_of(KIND, meta), tuple(findings.errors))
    return CompiledTrafficLimit(
        key=limit.key,
        generation=meta.generation,
        created=meta.creation_timestamp,
        namespace=meta.namespace,
        labels=tuple(sorted(spec.selector.match_labels.items())),
        port=spec.port,
        rate=rate,
        adaptive=adaptive,
        provenance=provenance_of(KIND, meta, "spec"),
    )


def _rate(path: str, limit: LocalRateLimit, findings: Findings) -> RateLimit | None:
    findings.between(f"{path}.status", limit.status, 400, 599)
    findings.at_least(f"{path}.maxTokens", limit.max_tokens, 1)
    findings.at_least(f"{path}.tokensPerFill", limit.tokens_per_fill, 1)
    if not limit.fill_interval:
        findings.required(f"{path}.fillInterval", "say how often tokens are added, such as 1s")
        return None
    interval = findings.duration(f"{path}.fillInterval", limit.fill_interval)
    if interval is not None and interval < MIN_FILL_INTERVAL_S:
        findings.invalid(f"{path}.fillInterval", f"{limit.fill_interval} is below {MIN_FILL_INTERVAL_S * 1000:g}ms")
    if findings.errors or interval is None:
        return None
    bucket = TokenBucketConfig(
        max_tokens=limit.max_tokens, tokens_per_fill=limit.tokens_per_fill, fill_interval_s=interval
    )
    return RateLimit(bucket=bucket, status=limit.status)


def _adaptive(path: str, wanted: AdaptiveConcurrency, findings: Findings) -> Adaptive | None:
    findings.between(f"{path}.status", wanted.status, 400, 599)
    default = AdaptiveConfig()
    update = findings.duration(f"{path}.updateInterval", wanted.update_interval)
    measure = findings.duration(f"{path}.minRTTInterval", wanted.min_rtt_interval)
    try:
        config = AdaptiveConfig(
            percentile=_or(wanted.percentile, default.percentile),
            max_limit=int(_or(wanted.max_concurrency_limit, default.max_limit)),
            update_interval_s=update or default.update_interval_s,
            min_rtt_interval_s=measure or default.min_rtt_interval_s,
            min_rtt_requests=int(_or(wanted.min_rtt_requests, default.min_rtt_requests)),
            min_rtt_jitter_percent=_or(wanted.jitter_percent, default.min_rtt_jitter_percent),
            min_limit=int(_or(wanted.min_concurrency, default.min_limit)),
            buffer_percent=_or(wanted.buffer_percent, default.buffer_percent),
        )
    except ResilienceConfigError as exc:
        findings.invalid(path, str(exc).removeprefix("adaptiveConcurrency: "))
        return None
    return Adaptive(config=config, is_enabled=wanted.enabled, status=wanted.status)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
