"""Picking one host out of a set: round robin, least request, random. Chance comes in as a function.

The hosts are the caller's own objects; a picker only reads `active` and `weight`. A picker belongs to one fixed sequence of hosts:
when the set changes (an endpoint comes, goes, is ejected) the caller makes a new one.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

from mesh.balance.endpoint import LbPolicy

Draw = Callable[[], float]
"""Uniform in [0, 1)."""


class Host(Protocol):
    """What a picker needs to know."""

    @property
    def active(self) -> int:
        """Requests in flight."""
        ...

    @property
    def weight(self) -> int: ...


H = TypeVar("H", bound=Host)
H_co = TypeVar("H_co", bound=Host, covariant=True)


class Picker(Protocol[H_co]):
    """Picks a host; None when there is none."""

    def pick(self, draw: Draw) -> H_co | None: ...


class LeastRequest(Generic[H]):
    """Power of two choices: draw hosts at random by weight, take the one with the fewest requests in flight per weight.

    DEVIATION: with unequal weights Envoy scans all hosts by weight/(active+1); drawing by weight and comparing active/weight gives the
    same shares without a scan.
    """

    __slots__ = ("_choices", "_count", "_cumulative", "_hosts", "_total")

    def __init__(self, hosts: Sequence[H], choices: int = 2) -> None:
        self._hosts = tuple(hosts)
        self._count = len(self._hosts)
        self._choices = max(2, choices)
        self._cumulative = _cumulative_weights(self._hosts)
        self._total = self._cumulative[-1] if self._cumulative else 0

    def pick(self, draw: Draw) -> H | None:
        count = self._count
        hosts = self._hosts
        if count < 2:
            return hosts[0] if count else None
        if self._cumulative:
            return self._pick_weighted(draw)
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

    def _pick_weighted(self, draw: Draw) -> H:
        hosts, cumulative, total = self._hosts, self._cumulative, self._total
        best = hosts[bisect_right(cumulative, draw() * total)]
        for _ in range(self._choices - 1):
            other = hosts[bisect_right(cumulative, draw() * total)]
            if other.active * best.weight < best.active * other.weight:
                best = other
        return best


class Random(Generic[H]):
    """Uniform by weight."""

    __slots__ = ("_cumulative", "_hosts", "_total")

    def __init__(self, hosts: Sequence[H]) -> None:
        self._hosts = tuple(hosts)
        self._cumulative = _cumulative_weights(self._hosts)
        self._total = self._cumulative[-1] if self._cumulative else 0

    def pick(self, draw: Draw) -> H | None:
        if not self._hosts:
            return None
        if self._cumulative:
            return self._hosts[bisect_right(self._cumulative, draw() * self._total)]
        return self._hosts[int(draw() * len(self._hosts))]


class RoundRobin(Generic[H]):
    """One after the other; with unequal weights the smooth weighted order (nginx's): no bursts on the heavy ones."""

    __slots__ = ("_credit", "_hosts", "_is_weighted", "_next", "_total")

    def __init__(self, hosts: Sequence[H], start: float = 0.0) -> None:
        """`start`, uniform in [0, 1), is where the round begins: proxies that start together should not all begin alike."""
        self._hosts = tuple(hosts)
        self._is_weighted = bool(_cumulative_weights(self._hosts))
        self._credit = [0] * len(self._hosts)
        self._total = sum(host.weight for host in self._hosts)
        self._next = int(start * len(self._hosts))

    def pick(self, draw: Draw) -> H | None:
        hosts = self._hosts
        if not hosts:
            return None
        if self._is_weighted:
            credit = self._credit
            for at, host in enumerate(hosts):
                credit[at] += host.weight
            best = max(range(len(hosts)), key=credit.__getitem__)
            credit[best] -= self._total
            return hosts[best]
        at = self._next
        self._next = at + 1 if at + 1 < len(hosts) else 0
        return hosts[at]


def _cumulative_weights(hosts: Sequence[Host]) -> list[int]:
    """Empty when all weights are equal."""
    if len({host.weight for host in hosts}) <= 1:
        return []
    return list(accumulate(host.weight for host in hosts))


def make_picker(policy: LbPolicy, hosts: Sequence[H], *, choices: int = 2, start: float = 0.0) -> Picker[H]:
    """The picker for a policy over `hosts`."""
    if policy is LbPolicy.LEAST_REQUEST:
        return LeastRequest(hosts, choices)
    if policy is LbPolicy.RANDOM:
        return Random(hosts)
    return RoundRobin(hosts, start)
