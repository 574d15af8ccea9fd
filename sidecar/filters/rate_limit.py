"""The local rate limit: 429 and flag RL when the bucket is empty. Source: Envoy local_ratelimit filter."""

import math
from typing import TYPE_CHECKING

from mesh.resilience.rate_limit import TokenBucket
from mesh.routing.rate_limit import LocalRateLimit
from mesh.routing.rewrite import mutate_lines
from sidecar import flags as flag
from sidecar.filters.counts import FilterCount
from sidecar.filters.protocol import QuietFilter

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


class RateLimitFilter(QuietFilter):
    """One limit and its bucket. Its note: when the request was counted.

    `x-envoy-ratelimited` is set only if `response_headers` say so: Envoy 1.40 does the same, whatever its documentation says.
    """

    __slots__ = ("_bucket", "_limit", "_where")

    def __init__(self, limit: LocalRateLimit, bucket: TokenBucket, where: str) -> None:
        self._limit = limit
        self._bucket = bucket
        self._where = where

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        limit = self._limit
        draw = exchange.runtime.draw
        if draw() >= limit.enabled_share:
            return True
        exchange.note(self, now)
        self._count(exchange, FilterCount.LIMIT_ENABLED)
        if self._bucket.take(now):
            self._count(exchange, FilterCount.LIMIT_OK)
            return True
        self._count(exchange, FilterCount.LIMIT_LIMITED)
        if draw() >= limit.enforced_share:
            return True
        self._count(exchange, FilterCount.LIMIT_ENFORCED)
        exchange.added_lines = mutate_lines(exchange.added_lines, (limit.response_headers,))
        config = self._bucket.config
        exchange.reply_with(
            limit.status,
            flag.RATE_LIMITED,
            f"local_rate_limited: {self._where} allows {config.tokens_per_fill} every {config.fill_interval_s:g} s",
        )
        return False

    def _count(self, exchange: "Exchange", count: FilterCount) -> None:
        exchange.plane.stats.filters.add(count, self._limit.stat_prefix)

    def on_response(self, exchange: "Exchange", status: int, lines: list[bytes]) -> list[bytes]:
        counted_at = exchange.noted(self)
        if not self._limit.tells_quota or not isinstance(counted_at, float):
            return lines
        bucket = self._bucket
        reset_s = math.ceil(bucket.next_fill_s(counted_at))
        return [
            *lines,
            b"x-ratelimit-limit: %d" % bucket.config.max_tokens,
            b"x-ratelimit-remaining: %d" % bucket.tokens,
            b"x-ratelimit-reset: %d" % reset_s,
        ]
