"""A local rate limit as a value; the token bucket itself is `mesh.resilience.rate_limit`."""

from dataclasses import dataclass

from mesh.resilience.rate_limit import TokenBucketConfig
from mesh.routing.headers import NO_MUTATION, HeaderMutation


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRateLimit:
    """How many requests this proxy lets through. Source: Envoy filters.http.local_ratelimit.v3.LocalRateLimit."""

    stat_prefix: str = "http_local_rate_limiter"
    bucket: TokenBucketConfig | None = None
    """None: no limit here (it only switches an outer one off)."""
    status: int = 429
    """400 to 599; Envoy takes anything below 400 as 429."""
    enabled_share: float = 0.0
    """Of the requests that are counted at all, by chance. Source: filter_enabled, 0 by default."""
    enforced_share: float = 0.0
    """Of the requests without a token, the part that is refused. Source: filter_enforced, 0 by default."""
    response_headers: HeaderMutation = NO_MUTATION
    """On refusals."""
    tells_quota: bool = False
    """Add x-ratelimit-limit, -remaining and -reset to responses. Source: enable_x_ratelimit_headers."""
