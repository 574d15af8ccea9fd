"""What filters remember and count, and its bounds."""

import random

import pytest

from mesh.resilience.adaptive import AdaptiveConfig
from mesh.resilience.rate_limit import TokenBucketConfig
from mesh.telemetry.exposition import Exposition
from sidecar.filter_metrics import render_filters
from sidecar.filters.counts import MAX_COUNTS, FilterCount, FilterCounts
from sidecar.filters.site_state import MAX_BUCKETS, SiteState

pytestmark = pytest.mark.unit

CONFIG = TokenBucketConfig(max_tokens=5, tokens_per_fill=2, fill_interval_s=1.0)


def state(worker_count: int = 1) -> SiteState:
    return SiteState(random.Random(1), worker_count)


def test_a_bucket_stays_while_its_settings_do() -> None:
    site = state()
    first = site.bucket("route a", CONFIG)
    assert site.bucket("route a", CONFIG) is first
    assert site.bucket("route b", CONFIG) is not first
    other = TokenBucketConfig(max_tokens=6, tokens_per_fill=2, fill_interval_s=1.0)
    assert site.bucket("route a", other) is not first


def test_workers_have_shares_that_sum_to_the_limit() -> None:
    bucket = state(worker_count=2).bucket("a", CONFIG)
    assert (bucket.config.max_tokens, bucket.config.tokens_per_fill, bucket.config.fill_interval_s) == (2, 2, 2.0)
    one = TokenBucketConfig(max_tokens=1, fill_interval_s=1.0)
    assert state(worker_count=4).bucket("a", one).config.max_tokens == 1


def test_buckets_are_bounded() -> None:
    site = state()
    first = site.bucket("0", CONFIG)
    for number in range(1, MAX_BUCKETS + 1):
        site.bucket(str(number), CONFIG)
    assert site.bucket("0", CONFIG) is not first
    assert site.bucket(str(MAX_BUCKETS), CONFIG) is site.bucket(str(MAX_BUCKETS), CONFIG)


def test_the_adaptive_limit_stays_while_its_settings_do() -> None:
    site = state()
    first = site.adaptive_limit(AdaptiveConfig())
    assert site.adaptive_limit(AdaptiveConfig()) is first
    assert site.adaptive_limit(AdaptiveConfig(max_limit=7)) is not first


def test_counts_are_bounded_and_lose_nothing() -> None:
    counts = FilterCounts()
    for number in range(MAX_COUNTS + 10):
        counts.add(FilterCount.MIRROR_SENT, f"c{number}")
    assert len(counts.values) <= MAX_COUNTS + 1
    assert counts.get(FilterCount.MIRROR_SENT, "") == 10
    assert sum(counts.values.values()) == MAX_COUNTS + 10


def test_metrics_carry_envoys_names() -> None:
    counts = FilterCounts()
    counts.add(FilterCount.LIMIT_ENFORCED, "rl")
    counts.add(FilterCount.FAULT_ABORTS, "in")
    site = state()
    site.faults_active = 3
    site.adaptive_limit(AdaptiveConfig(fixed_min_rtt_s=0.25))
    page = Exposition()
    render_filters(page, counts.values, [("in", site)])
    text = page.render().decode()
    for line in (
        'envoy_http_local_rate_limit_enforced{envoy_local_http_ratelimit_prefix="rl"} 1',
        'envoy_http_fault_aborts_injected{envoy_http_conn_manager_prefix="in"} 1',
        'envoy_http_fault_active_faults{envoy_http_conn_manager_prefix="in"} 3',
        'envoy_http_adaptive_concurrency_gradient_controller_min_rtt_msecs{envoy_http_conn_manager_prefix="in"} 250.0',
    ):
        assert line in text


def test_every_count_has_its_explanation() -> None:
    counts = FilterCounts()
    for count in FilterCount:
        counts.add(count, "x")
    page = Exposition()
    render_filters(page, counts.values, [])
    assert page.render().count(b"# HELP") == len(FilterCount)
