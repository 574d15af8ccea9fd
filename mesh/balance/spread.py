"""Pickers made of pickers: over priority levels by load, over localities by weight, and one that counts panics."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

from mesh.balance.edf import Edf
from mesh.balance.hash_pick import HashedHost, HashPicker
from mesh.balance.pick import Draw, Picker

T = TypeVar("T")
H = TypeVar("H", bound=HashedHost)


class PanicCounter(Protocol):
    """Where picks among endpoints that may be unhealthy are counted."""

    panic_picks: int


class Spread(Generic[T]):
    """Sends each request to one of several pickers, by their shares in percent."""

    __slots__ = ("_cumulative", "_last", "_pickers")

    def __init__(self, shares: Sequence[tuple[int, Picker[T]]]) -> None:
        """`shares` sum to 100."""
        self._pickers = [picker for _, picker in shares]
        self._cumulative = list(accumulate(percent for percent, _ in shares))
        self._last = len(shares) - 1

    def pick(self, draw: Draw) -> T | None:
        at = bisect_right(self._cumulative, draw() * 100.0, 0, self._last)
        return self._pickers[at].pick(draw)


class ByLocality(Generic[T]):
    """Localities take turns by their weights."""

    __slots__ = ("_turns",)

    def __init__(self, localities: Sequence[tuple[float, Picker[T]]], start: float) -> None:
        """At least one; weights are > 0."""
        self._turns = Edf(localities, lambda one: one[0], start)

    def pick(self, draw: Draw) -> T | None:
        return self._turns.next()[1].pick(draw)


class Panicking(Generic[T]):
    """Counts each pick: the level has too few usable endpoints."""

    __slots__ = ("_counter", "_picker")

    def __init__(self, picker: Picker[T], counter: PanicCounter) -> None:
        self._picker = picker
        self._counter = counter

    def pick(self, draw: Draw) -> T | None:
        self._counter.panic_picks += 1
        return self._picker.pick(draw)


class HashSpread(Generic[H]):
    """As `Spread`, for requests with keys: the key decides, so equal keys go to the same level."""

    __slots__ = ("_counter", "_shares")

    def __init__(self, shares: Sequence[tuple[int, HashPicker[H], bool]], counter: PanicCounter) -> None:
        """(percent, picker, whether its level panics); the percentages sum to 100."""
        self._shares = tuple(shares)
        self._counter = counter

    def pick(self, draw: Draw) -> H | None:
        return self.pick_hash(int(draw() * 0x1_0000_0000_0000_0000))

    def pick_hash(self, key: int, tried: Sequence[H] = ()) -> H | None:
        """The host of `key` (64 bits), not one of `tried` if that is possible."""
        left = key % 100
        for percent, picker, is_panicking in self._shares:
            if left < percent:
                if is_panicking:
                    self._counter.panic_picks += 1
                return picker.pick_hash(key, tried)
            left -= percent
        return None
