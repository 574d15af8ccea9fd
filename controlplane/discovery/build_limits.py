"""TrafficLimits -> filters of the inbound HTTP connection managers. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from envoy.extensions.filters.http.adaptive_concurrency.v3 import adaptive_concurrency_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2

from controlplane.discovery.messages import duration, fractional_percent, uint32
from policies.traffic_limit import Adaptive, CompiledTrafficLimit, RateLimit

LOCAL_RATE_LIMIT = "envoy.filters.http.local_ratelimit"
ADAPTIVE_CONCURRENCY = "envoy.filters.http.adaptive_concurrency"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortLimits:
    """What is let in at one container port."""

    port: int
    rate: RateLimit | None = None
    adaptive: Adaptive | None = None
    rate_name: str = ""
    """Namespace and name of the object that `rate` is from, for statistics."""


def limits_of(
    limits: Iterable[CompiledTrafficLimit], namespace: str, labels: Mapping[str, str], ports: Iterable[int]
) -> tuple[PortLimits, ...]:
    """Of each port that has a limit. Of several for one port the first counts, for each of the two kinds of limit."""
    found: list[PortLimits] = []
    mine = tuple(limits)
    for port in ports:
        covering = [limit for limit in mine if limit.covers(namespace, labels, port)]
        rated = next((limit for limit in covering if limit.rate is not None), None)
        adaptive = next((limit.adaptive for limit in covering if limit.adaptive is not None), None)
        if rated is not None or adaptive is not None:
            name = rated.key.replace("/", ".") if rated is not None else ""
            found.append(PortLimits(port=port, rate=rated.rate if rated else None, adaptive=adaptive, rate_name=name))
    return tuple(found)


def add_limits(manager: Any, limits: PortLimits) -> None:
    """Before all other filters: what is refused costs least."""
    if limits.rate is not None:
        config = _rate(limits.rate, f"local_rate_limit.{limits.rate_name}")
        manager.http_filters.add(name=LOCAL_RATE_LIMIT).typed_config.Pack(config)
    if limits.adaptive is not None:
        manager.http_filters.add(name=ADAPTIVE_CONCURRENCY).typed_config.Pack(_adaptive(limits.adaptive))


def _rate(limit: RateLimit, stat_prefix: str) -> Any:
    built = local_rate_limit_pb2.LocalRateLimit(stat_prefix=stat_prefix)
    built.status.code = limit.status
    built.token_bucket.max_tokens = limit.bucket.max_tokens
    built.token_bucket.tokens_per_fill.value = limit.bucket.tokens_per_fill
    built.token_bucket.fill_interval.CopyFrom(duration(limit.bucket.fill_interval_s))
    for share in (built.filter_enabled, built.filter_enforced):
        share.default_value.CopyFrom(fractional_percent(100.0))
    return built


def _adaptive(adaptive: Adaptive) -> Any:
    config = adaptive.config
    built = adaptive_concurrency_pb2.AdaptiveConcurrency()
    built.enabled.default_value.value = adaptive.is_enabled
    built.enabled.runtime_key = "adaptive_concurrency.enabled"
    built.concurrency_limit_exceeded_status.code = adaptive.status
    gradient = built.gradient_controller_config
    gradient.sample_aggregate_percentile.value = config.percentile
    gradient.concurrency_limit_params.max_concurrency_limit.CopyFrom(uint32(config.max_limit))
    gradient.concurrency_limit_params.concurrency_update_interval.CopyFrom(duration(config.update_interval_s))
    rtt = gradient.min_rtt_calc_params
    rtt.interval.CopyFrom(duration(config.min_rtt_interval_s))
    rtt.request_count.CopyFrom(uint32(config.min_rtt_requests))
    rtt.min_concurrency.CopyFrom(uint32(config.min_limit))
    rtt.jitter.value = config.min_rtt_jitter_percent
    rtt.buffer.value = config.buffer_percent
    return built
