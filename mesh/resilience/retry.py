"""When a failed attempt is tried again: conditions, proof of safety, limits. Pure; the caller waits and sends."""

import enum
from dataclasses import dataclass

from mesh.backoff import Backoff
from mesh.resilience.errors import ResilienceConfigError


class RetryOn(enum.Flag):
    """What counts as worth another try. Names and meanings are Envoy's (router filter, x-envoy-retry-on)."""

    NONE = 0
    SERVER_ERROR = enum.auto()
    """`5xx`: any 5xx status, and any attempt without a response."""
    GATEWAY_ERROR = enum.auto()
    """`gateway-error`: status 502, 503, 504."""
    RESET = enum.auto()
    """`reset`: the upstream closed or timed out before a response began."""
    RESET_BEFORE_REQUEST = enum.auto()
    """`reset-before-request`: as `reset`, but nothing of the request had been sent."""
    CONNECT_FAILURE = enum.auto()
    """`connect-failure`: no connection could be made."""
    REFUSED_STREAM = enum.auto()
    """`refused-stream`: the upstream refused the request unprocessed (HTTP/2 REFUSED_STREAM)."""
    RETRIABLE_4XX = enum.auto()
    """`retriable-4xx`: status 409."""
    RETRIABLE_STATUS_CODES = enum.auto()
    """`retriable-status-codes`: a status in `RetryPolicy.retriable_statuses`."""


RETRY_ON_NAMES = {
    "5xx": RetryOn.SERVER_ERROR,
    "gateway-error": RetryOn.GATEWAY_ERROR,
    "reset": RetryOn.RESET,
    "reset-before-request": RetryOn.RESET_BEFORE_REQUEST,
    "connect-failure": RetryOn.CONNECT_FAILURE,
    "refused-stream": RetryOn.REFUSED_STREAM,
    "retriable-4xx": RetryOn.RETRIABLE_4XX,
    "retriable-status-codes": RetryOn.RETRIABLE_STATUS_CODES,
}
"""The names as `retry_on` writes them."""

GRPC_RETRY_ON_NAMES = frozenset({"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"})
"""Known, but about gRPC status: HTTP/1.1 carries none in its header, so they never match here."""


def parse_retry_on(text: str) -> tuple[RetryOn, frozenset[int]]:
    """Read a `retry_on` list such as `"5xx,reset,503"`: the conditions and the bare status codes in it.

    Raises ResilienceConfigError for a name that is not known.
    """
    conditions = RetryOn.NONE
    statuses: set[int] = set()
    for part in text.split(","):
        name = part.strip()
        if not name or name in GRPC_RETRY_ON_NAMES:
            continue
        if name.isdecimal() and 100 <= int(name) <= 599:
            conditions |= RetryOn.RETRIABLE_STATUS_CODES
            statuses.add(int(name))
        elif name in RETRY_ON_NAMES:
            conditions |= RETRY_ON_NAMES[name]
        else:
            known = ", ".join(sorted({*RETRY_ON_NAMES, *GRPC_RETRY_ON_NAMES}))
            raise ResilienceConfigError(f'retry_on: unknown condition "{name}"; known are {known} and status codes')
    return conditions, frozenset(statuses)


class Failure(enum.Enum):
    """How an attempt ended without a complete response head."""

    CONNECT = "connect-failure"
    RESET = "reset"
    TRY_TIMEOUT = "per-try-timeout"
    PROTOCOL = "protocol-error"


class Replay(enum.Enum):
    """Which requests may be sent a second time once bytes of them have left."""

    SAFE = "safe"
    """Only what RFC 9110 s9.2.2 calls idempotent, or a request with an Idempotency-Key.
    DEVIATION: Envoy repeats any method; duplicated POSTs were the result (istio 50506)."""
    ANY = "any"
    """Every method; the owner of the route has said that repeats do no harm."""


IDEMPOTENT_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""Source: RFC 9110 s9.2.2."""

DEFAULT_BACKOFF = Backoff(base_s=0.025, cap_s=0.25, factor=2.0, jitter=1.0)
"""Source: Envoy RetryPolicy.retry_back_off: 25 ms growing to 250 ms, fully jittered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, when and how fast one route repeats a failed attempt."""

    conditions: RetryOn = RetryOn.NONE
    """What is repeated at all."""
    retriable_statuses: frozenset[int] = frozenset()
    """For RETRIABLE_STATUS_CODES."""
    max_retries: int = 1
    """Tries after the first one, >= 0. Source: Envoy RetryPolicy.num_retries, default 1."""
    per_try_timeout_s: float | None = None
    """Give one attempt up when its response has not begun by then. Seconds, > 0; None: only the route's timeout."""
    backoff: Backoff = DEFAULT_BACKOFF
    """Waits before each retry."""
    avoid_previous_hosts: bool = True
    """Pick a host that this request has not tried, while there is one."""
    replay: Replay = Replay.SAFE
    """Which requests may be repeated after bytes of them have left."""

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ResilienceConfigError(f"retries: num_retries is {self.max_retries}, want >= 0")
        if self.per_try_timeout_s is not None and self.per_try_timeout_s <= 0:
            raise ResilienceConfigError(f"retries: per_try_timeout is {self.per_try_timeout_s} s, want > 0")

    def may_replay(self, method: bytes, *, has_idempotency_key: bool) -> bool:
        """Whether a request whose bytes have left may be sent again."""
        return self.replay is Replay.ANY or method in IDEMPOTENT_METHODS or has_idempotency_key

    def wants_status(self, status: int) -> bool:
        """Whether a response with `status` is worth another try."""
        on = self.conditions
        return bool(
            (status >= 500 and RetryOn.SERVER_ERROR in on)
            or (status in (502, 503, 504) and RetryOn.GATEWAY_ERROR in on)
            or (status == 409 and RetryOn.RETRIABLE_4XX in on)
            or (status in self.retriable_statuses and RetryOn.RETRIABLE_STATUS_CODES in on)
        )

    def wants_failure(self, failure: Failure, *, bytes_sent: bool) -> bool:
        """Whether an attempt that ended in `failure` is worth another try."""
        on = self.conditions
        if RetryOn.SERVER_ERROR in on:
            return True
        if failure is Failure.CONNECT:
            return RetryOn.CONNECT_FAILURE in on or RetryOn.GATEWAY_ERROR in on
        if not bytes_sent and RetryOn.RESET_BEFORE_REQUEST in on:
            return True
        return RetryOn.RESET in on or RetryOn.GATEWAY_ERROR in on

    def statuses_worth_a_look(self) -> frozenset[int]:
        """Every status for which `wants_status` is true; a set, so that the hot path asks once per response."""
        return frozenset(status for status in range(100, 600) if self.wants_status(status))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """How many retries a cluster bears at once, so that retries never become the overload."""

    percent: float = 20.0
    """Share of the active requests that may be retries. 0 to 100. Source: Envoy RetryBudget.budget_percent."""
    min_concurrency: int = 3
    """Always allowed. Source: Envoy RetryBudget.min_retry_concurrency."""

    @property
    def is_open(self) -> bool:
        """Whether it can allow a retry at all."""
        return self.percent > 0 or self.min_concurrency > 0

    def allows(self, *, active_requests: int, active_retries: int) -> bool:
        """Whether one more retry may start now."""
        return active_retries < max(self.min_concurrency, int(active_requests * self.percent / 100.0))
