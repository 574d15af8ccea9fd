"""How long a response asks to be left alone before it is tried again. Pure; the wall clock is an argument."""

import enum
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.header_condition import HeaderOf


class ResetFormat(enum.Enum):
    """What a header's number means. Source: envoy.config.route.v3.RetryPolicy.ResetHeaderFormat."""

    SECONDS = "seconds"
    """From now. An HTTP date is understood as well (RFC 9110 s10.2.3); Envoy takes numbers only."""
    UNIX_TIMESTAMP = "unix-timestamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetHeader:
    """One header to look at."""

    name: str
    """Lower case."""
    format: ResetFormat = ResetFormat.SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitedBackoff:
    """Headers that set the wait before a retry. Source: RetryPolicy.rate_limited_retry_back_off."""

    headers: tuple[ResetHeader, ...]
    """In order; the first with a usable value counts. At least one."""
    max_interval_s: float = 300.0
    """A longer wait is not usable: the next header, or the exponential back-off, counts. Seconds, > 0."""

    def __post_init__(self) -> None:
        if not self.headers or self.max_interval_s <= 0:
            raise ResilienceConfigError("rate_limited_retry_back_off: want at least one header and max_interval > 0")

    def wait_s(self, header: HeaderOf, wall: float) -> float | None:
        """Seconds to wait, 0 to max_interval_s; None when no header says anything usable. `wall`: seconds since the Unix epoch."""
        for reset in self.headers:
            value = header(reset.name.encode())
            wait = None if value is None else parse_wait(value, reset.format, wall)
            if wait is not None and wait <= self.max_interval_s:
                return wait
        return None


DEFAULT_RETRY_AFTER = RateLimitedBackoff(headers=(ResetHeader(name="retry-after"),), max_interval_s=5.0)
"""What counts for 429 and 503 when a policy says nothing. DEVIATION: Envoy ignores Retry-After then. A server that asks for more than
5 s is not waited for: the request's other host, or the client, should decide."""
RETRY_AFTER_STATUSES = frozenset({429, 503})
JITTER = 0.5
"""Up to this share of a wait is added, so that clients told the same time don't return all at once. Source: Envoy, 50 %."""


def parse_wait(value: bytes, kind: ResetFormat, wall: float) -> float | None:
    """Seconds to wait from a header's value; a moment in the past is 0; None when it cannot be read."""
    text = value.decode("latin-1").strip()
    if text.isdecimal() and text.isascii() and len(text) <= 12:
        return float(text) if kind is ResetFormat.SECONDS else max(0.0, float(text) - wall)
    if kind is ResetFormat.UNIX_TIMESTAMP:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() - wall)
