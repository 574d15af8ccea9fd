"""Who owns which keys: a ring or Maglev table over the hosts of one priority level, made anew only when hosts or weights change.

A new table is made in slices while the old one still answers: one slice per question. So a change of endpoints holds no request up.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from mesh.balance.config import HashingConfig
from mesh.balance.endpoint import Endpoint, LbPolicy
from mesh.balance.hashing import placing_name
from mesh.balance.maglev import MaglevTable
from mesh.balance.ring import HashRing

_DONE: Final = object()


class PlacedHost(Protocol):
    """What a placement needs to know."""

    @property
    def endpoint(self) -> Endpoint: ...


H = TypeVar("H", bound=PlacedHost)


class HashTable(Protocol):
    """Maps keys to indexes."""

    def fill(self, names: Sequence[str], weights: Sequence[float]) -> Iterator[None]: ...

    def index(self, key: int, attempt: int = 0) -> int: ...


class Placement(Generic[H]):
    """The hosts of one level, each with its share of the keys."""

    __slots__ = ("_config", "_hosts", "_next", "_next_hosts", "_policy", "_recipe", "_table", "_work")

    def __init__(self, policy: LbPolicy, config: HashingConfig) -> None:
        self._policy = policy
        self._config = config
        self._recipe: tuple[tuple[str, ...], tuple[float, ...]] = ((), ())
        """What the newest table, perhaps not ready, is made from."""
        self._hosts: Sequence[H] = ()
        self._table: HashTable | None = None
        self._next_hosts: Sequence[H] = ()
        self._next: HashTable | None = None
        self._work: Iterator[None] | None = None

    def update(self, hosts: Sequence[H], weights: Sequence[float]) -> None:
        """From now on these, with weights that sum to 1. Cheap when names and weights are what they were."""
        names = tuple(placing_name(host.endpoint, uses_hostname=self._config.uses_hostname) for host in hosts)
        recipe = (names, tuple(weights))
        if recipe == self._recipe:
            if self._next is not None:
                self._next_hosts = hosts
            else:
                self._hosts = hosts
            return
        self._recipe = recipe
        self._next_hosts = hosts
        self._next = self._make()
        self._work = self._next.fill(names, weights)

    def _make(self) -> HashTable:
        config = self._config
        if self._policy is LbPolicy.MAGLEV:
            return MaglevTable(config.table_size)
        return HashRing(config.min_ring_size, config.max_ring_size)

    def owner(self, key: int, attempt: int = 0) -> H | None:
        """Whose `key` is; `attempt` n: somebody else, perhaps. May be a host of before the last update. None: there are no hosts."""
        if self._work is not None:
            self.advance(once=self._table is not None)
        if self._table is None or not self._hosts:
            return None
        return self._hosts[self._table.index(key, attempt)]

    def advance(self, *, once: bool = True) -> None:
        """Go on with the new table, for one slice or to its end. Nothing to do: nothing is done."""
        while self._work is not None:
            if next(self._work, _DONE) is _DONE:
                self._hosts, self._table = self._next_hosts, self._next
                self._next_hosts, self._next, self._work = (), None, None
            elif once:
                return
