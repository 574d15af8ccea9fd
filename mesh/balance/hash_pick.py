"""Picking by a key: the same key goes to the same host while it can be used.

DEVIATION: Envoy makes its tables over healthy hosts only, so an ejection moves keys of healthy hosts too. Here the table holds all
hosts of the level, and a key whose owner is out goes on to the next one: only those keys move, they come back with their owner, and
an ejection costs no new table. While all hosts are healthy the owners are Envoy's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from mesh.balance.endpoint import Endpoint
from mesh.balance.pick import Draw
from mesh.balance.placement import Placement

_MAX_PROBES = 32
"""Tries at the table before all hosts are looked through."""


class HashedHost(Protocol):
    """What this picker needs to know."""

    @property
    def active(self) -> int: ...

    @property
    def endpoint(self) -> Endpoint: ...


H = TypeVar("H", bound=HashedHost)


class HashPicker(Generic[H]):
    """Picks among `usable` hosts of a placement."""

    __slots__ = ("_balance_factor", "_in_flight", "_placement", "_usable", "_usable_list", "_weight")

    def __init__(
        self, placement: Placement[H], usable: Sequence[H], *, balance_factor: int, in_flight: Callable[[], int]
    ) -> None:
        """`in_flight` counts the cluster's requests; asked only when loads are bounded (`balance_factor` > 0)."""
        self._placement = placement
        self._usable_list = tuple(usable)
        self._usable = frozenset(usable)
        self._balance_factor = balance_factor
        self._in_flight = in_flight
        self._weight = sum(host.endpoint.weight for host in usable)

    def pick(self, draw: Draw) -> H | None:
        """For a request without a key."""
        return self.pick_hash(int(draw() * 0x1_0000_0000_0000_0000))

    def pick_hash(self, key: int, tried: Sequence[H] = ()) -> H | None:
        """The host of `key` (64 bits), not one of `tried` if that is possible."""
        host = self._owner(key, tried)
        if host is not None and self._balance_factor and self._load(host) > 1.0:
            return self._less_loaded(host, key, tried)
        return host

    def _owner(self, key: int, tried: Sequence[H]) -> H | None:
        usable, placement = self._usable, self._placement
        if not usable:
            return None
        for attempt in range(_MAX_PROBES):
            host = placement.owner(key, attempt)
            if host in usable and host not in tried:
                return host
        order = self._shuffled(key)
        return next((one for one in order if one not in tried), order[0])

    def _shuffled(self, key: int) -> list[H]:
        """All usable hosts in an order that depends on the key only: steps of a fixed length around the list."""
        hosts = self._usable_list
        count = len(hosts)
        step = (key >> 32) % count + 1
        while math.gcd(step, count) > 1:
            step += 1
        return [hosts[(key + i * step) % count] for i in range(count)]

    def _load(self, host: H) -> float:
        """Requests in flight by what the host may have: its share of all of them, times the factor. Source: Envoy."""
        slots = ((self._in_flight() + 1) * self._balance_factor + 99) // 100
        return host.active / max(math.ceil(slots * host.endpoint.weight / self._weight), 1)

    def _less_loaded(self, owner: H, key: int, tried: Sequence[H]) -> H:
        """The first host with room, in an order of the key's own; if none has any, the least loaded one."""
        best, least = owner, self._load(owner)
        for host in self._shuffled(key):
            load = self._load(host)
            if host in tried:
                continue
            if load <= 1.0:
                return host
            if load < least:
                best, least = host, load
        return best
