"""When a failed attempt is tried again: conditions, proof of safety, limits. Pure; the caller waits and sends."""

import enum
import random
from dataclasses import dataclass, replace

from mesh.backoff import Backoff
from mesh.resilience.errors import ResilienceConfigError
from mesh.resilience.header_condition import HeaderCondition, HeaderOf
from mesh.resilience.retry_after import DEFAULT_RETRY_AFTER, RETRY_AFTER_STATUSES, RateLimitedBackoff


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
    RETRIABLE_HEADERS = enum.auto()
    """`retriable-headers`: a response for which one of `RetryPolicy.retriable_headers` holds."""
    ENVOY_RATELIMITED = enum.auto()
    """`envoy-ratelimited`: a response with x-envoy-ratelimited, which is never retried otherwise."""
    GRPC_CANCELLED = enum.auto()
    """`cancelled` and the next four: the `grpc-status` in the response's header block (not in its trailers)."""
    GRPC_DEADLINE_EXCEEDED = enum.auto()
    GRPC_INTERNAL = enum.auto()
    GRPC_RESOURCE_EXHAUSTED = enum.auto()
    GRPC_UNAVAILABLE = enum.auto()


_GRPC = {
    "cancelled": (RetryOn.GRPC_CANCELLED, b"1"),
    "deadline-exceeded": (RetryOn.GRPC_DEADLINE_EXCEEDED, b"4"),
    "resource-exhausted": (RetryOn.GRPC_RESOURCE_EXHAUSTED, b"8"),
    "internal": (RetryOn.GRPC_INTERNAL, b"13"),
    "unavailable": (RetryOn.GRPC_UNAVAILABLE, b"14"),
}
"""Name -> (condition, its number in grpc-status)."""
_GRPC_BY_NUMBER = {number: condition for condition, number in _GRPC.values()}
_ANY_GRPC = (
    RetryOn.GRPC_CANCELLED
    | RetryOn.GRPC_DEADLINE_EXCEEDED
    | RetryOn.GRPC_INTERNAL
    | RetryOn.GRPC_RESOURCE_EXHAUSTED
    | RetryOn.GRPC_UNAVAILABLE
)

RETRY_ON_NAMES = {
    "5xx": RetryOn.SERVER_ERROR,
    "gateway-error": RetryOn.GATEWAY_ERROR,
    "reset": RetryOn.RESET,
    "reset-before-request": RetryOn.RESET_BEFORE_REQUEST,
    "connect-failure": RetryOn.CONNECT_FAILURE,
    "refused-stream": RetryOn.REFUSED_STREAM,
    "retriable-4xx": RetryOn.RETRIABLE_4XX,
    "retriable-status-codes": RetryOn.RETRIABLE_STATUS_CODES,
    "retriable-headers": RetryOn.RETRIABLE_HEADERS,
    "envoy-ratelimited": RetryOn.ENVOY_RATELIMITED,
    "http3-post-connect-failure": RetryOn.NONE,  # HTTP/3 is not spoken here, so it never happens
}
"""The names as `retry_on` writes them."""

GRPC_RETRY_ON_NAMES = frozenset(_GRPC)
"""The names about gRPC's status."""


def parse_retry_on(text: str) -> tuple[RetryOn, frozenset[int]]:
    """Read a `retry_on` list such as `"5xx,reset,503"`: the conditions and the bare status codes in it.

    Raises ResilienceConfigError for a name that is not known.
    """
    conditions, statuses, unknown = parse_retry_names(text)
    if unknown:
        known = ", ".join(sorted({*RETRY_ON_NAMES, *GRPC_RETRY_ON_NAMES}))
        raise ResilienceConfigError(f'retry_on: unknown condition "{unknown[0]}"; known are {known} and status codes')
    return conditions, statuses


def parse_retry_names(text: str) -> tuple[RetryOn, frozenset[int], tuple[str, ...]]:
    """As `parse_retry_on`, with the names that are not known instead of an error."""
    conditions = RetryOn.NONE
    statuses: set[int] = set()
    unknown: list[str] = []
    for part in text.split(","):
        name = part.strip()
        if not name:
            continue
        if name in _GRPC:
            conditions |= _GRPC[name][0]
        elif name.isascii() and name.isdecimal() and len(name) == 3 and 100 <= int(name) <= 599:
            conditions |= RetryOn.RETRIABLE_STATUS_CODES
            statuses.add(int(name))
        elif name in RETRY_ON_NAMES:
            conditions |= RETRY_ON_NAMES[name]
        else:
            unknown.append(name)
    return conditions, frozenset(statuses), tuple(unknown)


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
"""Safe methods, and PUT and DELETE, whose intended effect of several identical requests is that of one; RFC 9110 s9.2.2 lets them be
repeated automatically after a failure. So they count as proof; POST and PATCH never do by themselves."""

DEFAULT_BACKOFF = Backoff(base_s=0.025, cap_s=0.25, factor=2.0, jitter=1.0)
"""Source: Envoy RetryPolicy.retry_back_off: 25 ms growing to 250 ms, fully jittered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, when and how fast one route repeats a failed attempt."""

    conditions: RetryOn = RetryOn.NONE
    """What is repeated at all."""
    retriable_statuses: frozenset[int] = frozenset()
    """For RETRIABLE_STATUS_CODES."""
    retriable_headers: tuple[HeaderCondition, ...] = ()
    """For RETRIABLE_HEADERS: one that holds for the response is enough."""
    retriable_request_headers: tuple[HeaderCondition, ...] = ()
    """Only requests for which one of them holds are repeated. Empty: all."""
    max_retries: int = 1
    """Tries after the first one, >= 0. Source: Envoy RetryPolicy.num_retries, default 1."""
    per_try_timeout_s: float | None = None
    """Give one attempt up when its response has not begun by then. Seconds, > 0; None: only the route's timeout."""
    per_try_idle_timeout_s: float | None = None
    """Give one attempt up when nothing has moved on it for so long, also in the middle of its response. Seconds, > 0; None: never."""
    backoff: Backoff = DEFAULT_BACKOFF
    """Waits before each retry."""
    rate_limited: RateLimitedBackoff | None = None
    """Response headers that say how long to wait. None: Retry-After counts for 429 and 503, see DEFAULT_RETRY_AFTER."""
    avoid_previous_hosts: bool = True
    """Pick a host that this request has not tried, while there is one."""
    avoid_labels: tuple[tuple[str, str], ...] = ()
    """Don't retry on hosts that carry all of these labels, while there are others. Source: the omit_host_metadata predicate."""
    replay: Replay = Replay.SAFE
    """Which requests may be repeated after bytes of them have left."""

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ResilienceConfigError(f"retries: num_retries is {self.max_retries}, want >= 0")
        for name in ("per_try_timeout", "per_try_idle_timeout"):
            limit = getattr(self, f"{name}_s")
            if limit is not None and limit <= 0:
                raise ResilienceConfigError(f"retries: {name} is {limit} s, want > 0")

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """The wait before retry `attempt` (1 is the first): uniform in [0, (2^n - 1) * base), capped. Source: Envoy docs."""
        backoff = self.backoff
        ceiling = min(backoff.cap_s, backoff.base_s * ((1 << min(attempt, 30)) - 1))
        return ceiling * (1.0 - backoff.jitter * rng.random())

    def may_replay(self, method: bytes, *, has_idempotency_key: bool) -> bool:
        """Whether a request whose bytes have left may be sent again."""
        return self.replay is Replay.ANY or method in IDEMPOTENT_METHODS or has_idempotency_key

    def wants_request(self, header: HeaderOf) -> bool:
        """Whether a request with this header block may be repeated at all."""
        conditions = self.retriable_request_headers
        return not conditions or any(condition.holds(header) for condition in conditions)

    def wants_status(self, status: int) -> bool:
        """Whether a response with `status` is worth another try, as far as its status tells."""
        on = self.conditions
        return bool(
            (status >= 500 and RetryOn.SERVER_ERROR in on)
            or (status in (502, 503, 504) and RetryOn.GATEWAY_ERROR in on)
            or (status == 409 and RetryOn.RETRIABLE_4XX in on)
            or (status in self.retriable_statuses and RetryOn.RETRIABLE_STATUS_CODES in on)
        )

    def wants_response(self, status: int, header: HeaderOf) -> bool:
        """Whether a response is worth another try: by its status, its headers, or its gRPC status.

        x-envoy-overloaded forbids it, and x-envoy-ratelimited unless the policy asks for it. Source: Envoy's retry state.
        """
        if header(b"x-envoy-overloaded") is not None:
            return False
        if header(b"x-envoy-ratelimited") is not None:
            return RetryOn.ENVOY_RATELIMITED in self.conditions
        if self.wants_status(status):
            return True
        if RetryOn.RETRIABLE_HEADERS in self.conditions and any(one.holds(header) for one in self.retriable_headers):
            return True
        wanted = _GRPC_BY_NUMBER.get(header(b"grpc-status") or b"") if self.conditions & _ANY_GRPC else None
        return wanted is not None and wanted in self.conditions

    @property
    def looks_at_headers(self) -> bool:
        """Whether responses can be worth another try whose status alone does not say so."""
        on = self.conditions
        return bool(
            on & (_ANY_GRPC | RetryOn.ENVOY_RATELIMITED) or (RetryOn.RETRIABLE_HEADERS in on and self.retriable_headers)
        )

    def wants_failure(self, failure: Failure, *, bytes_sent: bool) -> bool:
        """Whether an attempt that ended in `failure` is worth another try."""
        on = self.conditions
        if on & (RetryOn.SERVER_ERROR | RetryOn.GATEWAY_ERROR | RetryOn.RESET):
            return True
        if failure is Failure.CONNECT and RetryOn.CONNECT_FAILURE in on:
            return True
        return not bytes_sent and RetryOn.RESET_BEFORE_REQUEST in on

    def server_wait_s(self, status: int, header: HeaderOf, wall: float) -> float | None:
        """How long the response asks to wait before the next try; None: it does not say."""
        backoff = self.rate_limited
        if backoff is None and status in RETRY_AFTER_STATUSES:
            backoff = DEFAULT_RETRY_AFTER
        return None if backoff is None else backoff.wait_s(header, wall)

    def only_connecting(self) -> "RetryPolicy":
        """What is left when somebody closer to the client retries too: attempts of which no byte was sent."""
        safe = RetryOn.CONNECT_FAILURE | RetryOn.RESET_BEFORE_REQUEST | RetryOn.REFUSED_STREAM
        kept = self.conditions & safe
        if self.conditions & (RetryOn.SERVER_ERROR | RetryOn.GATEWAY_ERROR | RetryOn.RESET):
            kept |= RetryOn.CONNECT_FAILURE
        return replace(self, conditions=kept)

    def statuses_worth_a_look(self) -> frozenset[int]:
        """Every status for which `wants_status` is true; a set, so that the hot path asks once per response."""
        key = (self.conditions, self.retriable_statuses)
        known = _STATUSES.get(key)
        if known is None:
            if len(_STATUSES) >= _MAX_STATUSES:
                _STATUSES.clear()
            known = frozenset(status for status in range(100, 600) if self.wants_status(status))
            _STATUSES[key] = known
        return known


_MAX_STATUSES = 64
_STATUSES: dict[tuple[RetryOn, frozenset[int]], frozenset[int]] = {}
"""Routes mostly have the same policy: they share the set."""


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

    def limit(self, active_requests: int) -> int:
        """Retries that may be under way."""
        return max(self.min_concurrency, int(active_requests * self.percent / 100.0))

    def allows(self, *, active_requests: int, active_retries: int) -> bool:
        """Whether one more retry may start now."""
        return active_retries < self.limit(active_requests)
