"""Picking one host out of a set: round robin, least request, random. Chance comes in as a function.

The hosts are the caller's own objects; a picker only reads `active` and `weight`. A picker belongs to one fixed sequence of hosts:
when the set or a weight changes (an endpoint comes, goes, is ejected, warms up) the caller makes a new one.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, permutations
from typing import Generic, Protocol, TypeVar

from mesh.balance.edf import Edf

_MAX_PAIRED = 16

Draw = Callable[[], float]
"""Uniform in [0, 1)."""


class Host(Protocol):
    """What a picker needs to know."""

    @property
    def active(self) -> int:
        """Requests in flight."""
        ...

    @property
    def weight(self) -> float:
        """Relative to the others, > 0."""
        ...


H = TypeVar("H", bound=Host)
H_co = TypeVar("H_co", covariant=True)


class Picker(Protocol[H_co]):
    """Picks a host; None when there is none."""

    def pick(self, draw: Draw) -> H_co | None: ...


class WeightedDraw(Generic[H]):
    """Draws hosts by weight."""

    __slots__ = ("_cumulative", "_hosts", "_last", "_total", "is_uniform")

    def __init__(self, hosts: Sequence[H]) -> None:
        self._hosts = hosts
        self._last = len(hosts) - 1
        self.is_uniform = has_equal_weights(hosts)
        self._cumulative = [] if self.is_uniform else list(accumulate(host.weight for host in hosts))
        self._total = self._cumulative[-1] if self._cumulative else 0.0

    def draw(self, draw: Draw) -> H:
        """One of at least one."""
        if self.is_uniform:
            return self._hosts[int(draw() * len(self._hosts))]
        return self._hosts[bisect_right(self._cumulative, draw() * self._total, 0, self._last)]


class LeastRequest(Generic[H]):
    """Power of two choices: draw hosts at random, take the one with the fewest requests in flight. For equal weights."""

    __slots__ = ("_choices", "_count", "_hosts", "_pairs")

    def __init__(self, hosts: Sequence[H], choices: int = 2) -> None:
        self._hosts = tuple(hosts)
        self._count = len(self._hosts)
        self._choices = max(2, choices)
        self._pairs: tuple[tuple[H, H], ...] = ()
        """Every ordered pair, for few hosts: then two choices cost one draw."""
        if self._choices == 2 and 1 < self._count <= _MAX_PAIRED:
            self._pairs = tuple(permutations(self._hosts, 2))

    def pick(self, draw: Draw) -> H | None:
        pairs = self._pairs
        if pairs:
            best, other = pairs[int(draw() * len(pairs))]
            return other if other.active < best.active else best
        count = self._count
        hosts = self._hosts
        if count < 2:
            return hosts[0] if count else None
        first = int(draw() * count)
        best = hosts[first]
        if self._choices == 2:
            # The second draw is among the others, so it never repeats the first.
            second = int(draw() * (count - 1))
            other = hosts[second + 1 if second >= first else second]
            return other if other.active < best.active else best
        for _ in range(self._choices - 1):
            other = hosts[int(draw() * count)]
            if other.active < best.active:
                best = other
        return best


class WeightedLeastRequest(Generic[H]):
    """Turns by weight / (requests in flight + 1) ** bias, looked at when a host has its turn. Source: Envoy, least request."""

    __slots__ = ("_turns",)

    def __init__(self, hosts: Sequence[H], bias: float = 1.0, start: float = 0.0) -> None:
        self._turns: Edf[H] | None = (
            Edf(hosts, lambda host: host.weight / (host.active + 1) ** bias, start) if hosts else None
        )

    def pick(self, draw: Draw) -> H | None:
        return self._turns.next() if self._turns is not None else None


class FullScan(Generic[H]):
    """The host with the fewest requests in flight of all; ties are broken by chance. For equal weights; costs a look at each."""

    __slots__ = ("_hosts",)

    def __init__(self, hosts: Sequence[H]) -> None:
        self._hosts = tuple(hosts)

    def pick(self, draw: Draw) -> H | None:
        if not self._hosts:
            return None
        least = min(host.active for host in self._hosts)
        best = [host for host in self._hosts if host.active == least]
        return best[int(draw() * len(best))]


class Random(Generic[H]):
    """By weight."""

    __slots__ = ("_hosts", "_one")

    def __init__(self, hosts: Sequence[H]) -> None:
        self._hosts = tuple(hosts)
        self._one = WeightedDraw(self._hosts)

    def pick(self, draw: Draw) -> H | None:
        return self._one.draw(draw) if self._hosts else None


class RoundRobin(Generic[H]):
    """One after the other; with unequal weights in turns without bursts on the heavy ones."""

    __slots__ = ("_hosts", "_next", "_turns")

    def __init__(self, hosts: Sequence[H], start: float = 0.0) -> None:
        """`start`, uniform in [0, 1), is where the round begins: proxies that start together should not all begin alike."""
        self._hosts = tuple(hosts)
        self._turns = None if has_equal_weights(hosts) else Edf(hosts, lambda host: host.weight, start)
        self._next = int(start * len(self._hosts))

    def pick(self, draw: Draw) -> H | None:
        if self._turns is not None:
            return self._turns.next()
        hosts = self._hosts
        if not hosts:
            return None
        at = self._next
        self._next = at + 1 if at + 1 < len(hosts) else 0
        return hosts[at]


def has_equal_weights(hosts: Sequence[Host]) -> bool:
    """Also of one host, or none."""
    return not hosts or all(host.weight == hosts[0].weight for host in hosts)
