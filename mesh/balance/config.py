"""How a cluster balances, beyond the name of its policy. Defaults are Envoy's unless said."""

import enum
from dataclasses import dataclass

from mesh.balance.endpoint import Labels
from mesh.balance.errors import BalanceConfigError

MAX_RING_SIZE = 8 * 1024 * 1024
MAX_TABLE_SIZE = 5_000_011
"""Source: Envoy MaglevLbConfig.table_size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStartConfig:
    """A new endpoint's weight grows over a window, so that it can warm up. For round robin and least request."""

    window_s: float
    """Seconds, > 0."""
    aggression: float = 1.0
    """1: linear; above, the weight grows faster at first. > 0."""
    min_weight_percent: float = 10.0
    """Where it starts. 0 to 100."""

    def __post_init__(self) -> None:
        if self.window_s <= 0 or self.aggression <= 0:
            raise BalanceConfigError("slow start: the window and the aggression must be > 0")
        if not 0 <= self.min_weight_percent <= 100:
            raise BalanceConfigError(f"slow start: min_weight_percent is {self.min_weight_percent}, want 0 to 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class EwmaConfig:
    """For PEAK_EWMA."""

    decay_s: float = 10.0
    """How fast the past is forgotten: after this long a measurement counts 1/e. Source: Linkerd, finagle."""
    default_rtt_s: float = 0.03
    """What a new endpoint is thought to take. Source: Linkerd."""
    penalty_s: float = 1.0
    """What a failed request counts as, so that failing fast doesn't attract traffic."""

    def __post_init__(self) -> None:
        if min(self.decay_s, self.default_rtt_s, self.penalty_s) <= 0:
            raise BalanceConfigError("peak EWMA: decay, default RTT and penalty must be > 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class HashingConfig:
    """For RING_HASH and MAGLEV."""

    min_ring_size: int = 1024
    """Virtual nodes on the ring at least; every endpoint has one, whatever is said here."""
    max_ring_size: int = MAX_RING_SIZE
    table_size: int = 65537
    """Slots of the Maglev table; a prime, at most 5,000,011."""
    uses_hostname: bool = False
    """Endpoints are placed by their hostname instead of their address."""
    balance_factor: int = 0
    """No endpoint takes more than this percentage of the average load; a full one's requests go elsewhere.
    0: no bound, else >= 100."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_ring_size <= self.max_ring_size <= MAX_RING_SIZE:
            raise BalanceConfigError(
                f"ring hash: sizes {self.min_ring_size} to {self.max_ring_size}; want 1 <= minimum <= maximum <= {MAX_RING_SIZE}"
            )
        if not 2 <= self.table_size <= MAX_TABLE_SIZE or not is_prime(self.table_size):
            raise BalanceConfigError(f"maglev: table size {self.table_size} is not a prime up to {MAX_TABLE_SIZE}")
        if self.balance_factor and self.balance_factor < 100:
            raise BalanceConfigError(f"hash_balance_factor is {self.balance_factor}; want 0 or >= 100")


def is_prime(number: int) -> bool:
    """By trial division: for numbers of a few million."""
    if number < 4:
        return number > 1
    return number % 2 != 0 and all(number % divisor for divisor in range(3, int(number**0.5) + 1, 2))


class SubsetFallback(enum.Enum):
    """What happens to a request whose labels name no endpoints."""

    NO_FALLBACK = "no_fallback"
    """It has no endpoint."""
    ANY_ENDPOINT = "any_endpoint"
    DEFAULT_SUBSET = "default_subset"
    KEYS_SUBSET = "keys_subset"
    """Look again with fewer labels. Only for a selector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetSelector:
    """Label names by which subsets are made, one per combination of values."""

    keys: frozenset[str]
    fallback: SubsetFallback | None = None
    """None: the cluster's."""
    fallback_keys: frozenset[str] = frozenset()
    """For KEYS_SUBSET: what is left of the request's labels."""

    def __post_init__(self) -> None:
        if not self.keys:
            raise BalanceConfigError("a subset selector without keys")
        if self.fallback is SubsetFallback.KEYS_SUBSET and not self.fallback_keys < self.keys:
            raise BalanceConfigError("fallback_keys_subset: want some, but not all, of the selector's keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetConfig:
    """Endpoints are divided by their labels. Source: Envoy, "Load balancer subsets"."""

    selectors: tuple[SubsetSelector, ...] = ()
    fallback: SubsetFallback = SubsetFallback.NO_FALLBACK
    default_labels: Labels = ()
    """The default subset: endpoints that have all of these."""
    is_locality_aware: bool = False
    """Localities and their weights count within a subset too."""
    scales_locality_weight: bool = False
    """With `is_locality_aware`: a locality's weight shrinks with its share of endpoints in the subset."""
    panic_mode_any: bool = False
    """When the fallback has no endpoint, any will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceOptions:
    """Everything about balancing but the policy, the number of choices and the panic threshold."""

    active_request_bias: float = 1.0
    """LEAST_REQUEST with unequal weights: an endpoint's weight is divided by (requests in flight + 1) to this power. >= 0."""
    is_full_scan: bool = False
    """LEAST_REQUEST compares all endpoints instead of a few drawn ones."""
    slow_start: SlowStartConfig | None = None
    ewma: EwmaConfig = EwmaConfig()
    hashing: HashingConfig = HashingConfig()
    is_locality_weighted: bool = False
    """Load goes to localities by their weights first. Source: common_lb_config.locality_weighted_lb_config."""
    subsets: SubsetConfig | None = None

    def __post_init__(self) -> None:
        if self.active_request_bias < 0:
            raise BalanceConfigError(f"active_request_bias is {self.active_request_bias}, want >= 0")


DEFAULT_OPTIONS = BalanceOptions()
