"""TrafficLimits: what is refused with which words, and what they compile to."""

from typing import Any

import pytest

from mesh.api.resources import Json
from mesh.api.traffic_limit import TrafficLimit
from mesh.resilience.adaptive import AdaptiveConfig
from mesh.resilience.rate_limit import TokenBucketConfig
from policies.errors import Problems
from policies.traffic_limit import Adaptive, CompiledTrafficLimit, RateLimit, compile_traffic_limit
from policies.validation import validate_policy

pytestmark = pytest.mark.unit

RATE: Json = {"maxTokens": 10, "fillInterval": "1s"}


def compile_limit(**spec: Any) -> CompiledTrafficLimit | Problems:
    return compile_traffic_limit(TrafficLimit.of({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}))


def compiled(**spec: Any) -> CompiledTrafficLimit:
    result = compile_limit(**spec)
    assert isinstance(result, CompiledTrafficLimit), str(result)
    return result


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "spec: give localRateLimit, adaptiveConcurrency, or both"),
        ({"localRateLimit": RATE, "selector": {"matchLabels": {"a b": "c"}}}, "is not a label"),
        ({"localRateLimit": RATE, "port": 70000}, "spec.port: 70000 is not in 1 to 65535"),
        ({"localRateLimit": {"maxTokens": 1}}, "fillInterval: say how often"),
        ({"localRateLimit": {**RATE, "maxTokens": 0}}, "maxTokens: 0 is below 1"),
        ({"localRateLimit": {**RATE, "tokensPerFill": 0}}, "tokensPerFill: 0 is below 1"),
        ({"localRateLimit": {**RATE, "fillInterval": "49ms"}}, "49ms is below 50ms"),
        ({"localRateLimit": {**RATE, "status": 200}}, "status: 200 is not in 400 to 599"),
        ({"adaptiveConcurrency": {"status": 600}}, "600 is not in 400 to 599"),
        ({"adaptiveConcurrency": {"updateInterval": "x"}}, "updateInterval"),
        ({"adaptiveConcurrency": {"minConcurrency": 9, "maxConcurrencyLimit": 8}}, "want 1 <= minConcurrency (9)"),
        ({"adaptiveConcurrency": {"percentile": 101}}, "percentages must be 0 to 100"),
    ],
)
def test_wrong_limits_are_refused_with_field_and_advice(spec: Json, words: str) -> None:
    result = compile_limit(**spec)
    assert isinstance(result, Problems)
    assert words in str(result)
    assert len(result.errors) == 1, str(result)
    assert validate_policy({"kind": "TrafficLimit", "spec": spec}) == result.errors


def test_limits() -> None:
    limit = compiled(
        selector={"matchLabels": {"app": "web"}},
        port=8080,
        localRateLimit={**RATE, "tokensPerFill": 2},
        adaptiveConcurrency={"enabled": False, "minRTTInterval": "30s", "minRTTRequests": 20, "bufferPercent": 0},
    )
    bucket = TokenBucketConfig(max_tokens=10, tokens_per_fill=2, fill_interval_s=1.0)
    assert limit.rate == RateLimit(bucket=bucket, status=429)
    config = AdaptiveConfig(min_rtt_interval_s=30.0, min_rtt_requests=20, buffer_percent=0.0)
    assert limit.adaptive == Adaptive(config=config, is_enabled=False, status=503)
    assert limit.covers("shop", {"app": "web", "x": "y"}, 8080)
    assert not limit.covers("shop", {"app": "web"}, 8081)
    assert not limit.covers("shop", {}, 8080)
    assert not limit.covers("other", {"app": "web"}, 8080)


@pytest.mark.parametrize(
    ("older", "younger", "expected"),
    [
        ({"localRateLimit": RATE}, {"localRateLimit": RATE, "selector": {"matchLabels": {"a": "b"}}}, True),
        ({"localRateLimit": RATE, "selector": {"matchLabels": {"a": "b"}}}, {"localRateLimit": RATE}, False),
        ({"localRateLimit": RATE}, {"adaptiveConcurrency": {}}, False),
        ({"localRateLimit": RATE, "adaptiveConcurrency": {}}, {"adaptiveConcurrency": {}, "port": 1}, True),
        ({"localRateLimit": RATE, "port": 1}, {"localRateLimit": RATE, "port": 2}, False),
    ],
)
def test_what_an_older_limit_hides(older: Json, younger: Json, expected: bool) -> None:
    assert compiled(**older).hides(compiled(**younger)) is expected
