"""Local rate limit: a token bucket with time as an argument. Source: Envoy type.v3.TokenBucket, local_ratelimit filter."""

from dataclasses import dataclass

from mesh.resilience.errors import ResilienceConfigError

MIN_FILL_INTERVAL_S = 0.05
"""Source: Envoy's local rate limit refuses shorter intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBucketConfig:
    """How many requests may pass, and how fast their right to pass grows back."""

    max_tokens: int
    """What a full bucket holds, >= 1; also what it starts with."""
    tokens_per_fill: int = 1
    """Tokens that every fill adds, >= 1."""
    fill_interval_s: float
    """Time between fills. Seconds, >= 0.05."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.tokens_per_fill < 1:
            raise ResilienceConfigError(
                f"tokenBucket: maxTokens {self.max_tokens} and tokensPerFill {self.tokens_per_fill}: want >= 1 each"
            )
        if self.fill_interval_s < MIN_FILL_INTERVAL_S:
            raise ResilienceConfigError(
                f"tokenBucket: fillInterval is {self.fill_interval_s:g} s, want >= {MIN_FILL_INTERVAL_S:g} s"
            )


class TokenBucket:
    """Lets requests pass while it holds tokens. Fills in whole steps, as documented: `tokens_per_fill` each `fill_interval_s`.

    Bound: in any span of T seconds at most max_tokens + tokens_per_fill * (T / fill_interval_s + 1) requests pass.
    """

    __slots__ = ("_filled_at", "config", "tokens")

    def __init__(self, config: TokenBucketConfig, now: float) -> None:
        self.config = config
        self.tokens = config.max_tokens
        """Left after the last call; `fill` makes it current."""
        self._filled_at = now

    def take(self, now: float) -> bool:
        """Take a token. False: there is none, the request must be refused."""
        self.fill(now)
        if self.tokens <= 0:
            return False
        self.tokens -= 1
        return True

    def fill(self, now: float) -> None:
        """Add what is due. `now` is monotonic seconds; a time before the last fill changes nothing."""
        config = self.config
        steps = int((now - self._filled_at) / config.fill_interval_s)
        if steps > 0:
            self._filled_at += steps * config.fill_interval_s
            self.tokens = min(config.max_tokens, self.tokens + steps * config.tokens_per_fill)

    def next_fill_s(self, now: float) -> float:
        """Seconds until more tokens come, for `x-ratelimit-reset` and Retry-After. > 0."""
        self.fill(now)
        return max(0.0, self._filled_at + self.config.fill_interval_s - now)
