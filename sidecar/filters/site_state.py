"""What filters remember beyond one snapshot: token buckets, the adaptive limit, faults under way."""

import random
import time

from mesh.resilience.adaptive import AdaptiveConfig, AdaptiveLimit
from mesh.resilience.rate_limit import TokenBucket, TokenBucketConfig

MAX_BUCKETS = 4096


class SiteState:
    """The filters' memory of one HTTP connection manager. It stays while its listener and chain do."""

    __slots__ = ("_buckets", "_draw", "adaptive", "faults_active", "worker_count")

    def __init__(self, rng: random.Random, worker_count: int = 1) -> None:
        self._draw = rng.random
        self.worker_count = worker_count
        self.faults_active = 0
        """Requests that are being delayed or were aborted and have not ended."""
        self.adaptive: AdaptiveLimit | None = None
        self._buckets: dict[str, tuple[TokenBucketConfig, TokenBucket]] = {}

    def bucket(self, level: str, config: TokenBucketConfig) -> TokenBucket:
        """The bucket of a level (the listener, a virtual host, a route, a branch); a new one only when its settings changed.

        With several workers each has its share of the tokens. DEVIATION: Envoy's workers share one bucket.
        """
        known = self._buckets.get(level)
        if known is not None and known[0] == config:
            return known[1]
        if level not in self._buckets and len(self._buckets) >= MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        own = TokenBucketConfig(
            max_tokens=max(1, config.max_tokens // self.worker_count),
            tokens_per_fill=config.tokens_per_fill,
            fill_interval_s=config.fill_interval_s * self.worker_count,
        )
        bucket = TokenBucket(config if self.worker_count == 1 else own, time.monotonic())
        self._buckets[level] = (config, bucket)
        return bucket

    def adaptive_limit(self, config: AdaptiveConfig) -> AdaptiveLimit:
        """The limit, with what it has learned so far unless its settings changed."""
        if self.adaptive is None or self.adaptive.config != config:
            self.adaptive = AdaptiveLimit(config, self._draw, time.monotonic())
        return self.adaptive
