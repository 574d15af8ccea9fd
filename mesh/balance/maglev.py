"""Maglev: a table of slots that endpoints fill in turns, each in its own order, so that shares are even and changes move little.

Source: Eisenbud et al., "Maglev", s3.4; Envoy's offsets, skips and treatment of weights, so that the tables are the same.
"""

from array import array
from collections.abc import Iterator, Sequence

from mesh.balance.hashing import hash64

_FEW = 200
"""Free slots left when looking through all of them is cheaper than trying one slot after the other."""
_SLICE_PROBES = 8192
"""Slots tried, on average, between two pauses of `fill`: about a millisecond."""
_FEW_OWNERS = 0xFFFF
"""Fewer endpoints than this fit into two bytes per slot."""


class MaglevTable:
    """Endpoints are indexes into the sequences that it was made from. Usable once `fill` has come to its end."""

    __slots__ = ("_slots", "size")

    def __init__(self, size: int) -> None:
        """`size` is a prime."""
        self.size = size
        self._slots = array("H")

    def index(self, key: int, attempt: int = 0) -> int:
        """Whose `key` (64 bits) is. `attempt` n: the owner of another slot. Raises IndexError on an empty table."""
        if attempt:
            key ^= 0x1_0000_0000_0000_0000 - attempt
        return self._slots[key % self.size]

    def fill(self, names: Sequence[str], weights: Sequence[float]) -> Iterator[None]:
        """Fill the table, with a pause (a yield) about every millisecond. 65537 slots take some 40 ms.

        The order of the names makes no difference. Each endpoint's own order visits all slots, as the size is a prime.
        """
        if not names:
            return
        size = self.size
        order = sorted(range(len(names)), key=names.__getitem__)
        at = [hash64(names[i].encode()) % size for i in order]
        skips = [hash64(names[i].encode(), 1) % (size - 1) + 1 for i in order]
        turns = _turns([weights[i] for i in order])
        slots, none = _free_slots(size, len(names))
        free = size
        while free > _FEW:
            pause_at = max(free - max(_SLICE_PROBES * free // size, 1), _FEW)
            while free > pause_at:
                turn = next(turns)
                slot, skip = at[turn], skips[turn]
                while slots[slot] != none:
                    slot += skip
                    if slot >= size:
                        slot -= size
                slots[slot] = order[turn]
                at[turn] = slot
                free -= 1
            yield
        left = [slot for slot, owner in enumerate(slots) if owner == none]
        for slot, turn in _last_turns(left, size, at, skips, turns):
            slots[slot] = order[turn]
        self._slots = slots


def _turns(weights: Sequence[float]) -> Iterator[int]:
    """Whose turn it is, for ever. The heaviest takes one in every round, one of half its weight every other."""
    heaviest = max(weights)
    if min(weights) == heaviest:
        while True:
            yield from range(len(weights))
    due = [0.0] * len(weights)
    rounds = 0
    while True:
        rounds += 1
        for i, weight in enumerate(weights):
            if rounds * weight >= due[i]:
                due[i] += heaviest
                yield i


def _last_turns(
    free: list[int], size: int, at: Sequence[int], skips: Sequence[int], turns: Iterator[int]
) -> Iterator[tuple[int, int]]:
    """Who gets the last free slots: of whoever's turn it is, work out which one comes first in its order."""
    while free:
        turn = next(turns)
        start, steps = at[turn], pow(skips[turn], -1, size)
        first = min(free, key=lambda slot: (slot - start) * steps % size)
        free.remove(first)
        yield first, turn


def _free_slots(size: int, owners: int) -> tuple["array[int]", int]:
    """A table of free slots, and what stands in a free one. Two bytes per slot are enough for most."""
    none = _FEW_OWNERS if owners < _FEW_OWNERS else 0xFFFF_FFFF
    return array("H" if none == _FEW_OWNERS else "I", [none]) * size, none
