"""The hash ring: every endpoint at many places, a key belongs to the next place clockwise. Source: Envoy ring hash, ketama."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from mesh.balance.hashing import hash64

_SLICE_PLACES = 4096
"""Places worked out between two pauses of `fill`: a millisecond or two."""


class HashRing:
    """Endpoints are indexes into the sequences that it was made from. Usable once `fill` has come to its end."""

    __slots__ = ("_hashes", "_max_size", "_min_size", "_owners", "size")

    def __init__(self, min_size: int, max_size: int) -> None:
        self._min_size = min_size
        self._max_size = max_size
        self.size = 0
        """Places on the ring."""
        self._hashes = array("Q")
        self._owners = array("I")

    def index(self, key: int, attempt: int = 0) -> int:
        """Whose `key` (64 bits) is. `attempt` n: who stands n places further. Raises IndexError on an empty ring."""
        if not self.size:
            raise IndexError("an empty ring owns no key")
        return self._owners[(bisect_left(self._hashes, key) + attempt) % self.size]

    def fill(self, names: Sequence[str], weights: Sequence[float]) -> Iterator[None]:
        """Make the ring, with a pause (a yield) every few thousand places. `weights` sum to 1. Some 1.5 us per place.

        The lightest endpoint gets a whole number of places, unless the ring would become too large. The final sort is in one piece.
        """
        hashes: list[int] = []
        owners: list[int] = []
        lightest = min(weights, default=1.0)
        scale = min(math.ceil(lightest * self._min_size) / lightest, float(self._max_size))
        target, pause_at = 0.0, _SLICE_PLACES
        for owner, name in enumerate(names):
            # The running sum makes up for fractions, so that rounding favours nobody in the long run.
            target += scale * weights[owner]
            start = f"{name}_".encode()
            first = len(hashes)
            for i in range(math.ceil(target) - first):
                hashes.append(hash64(b"%b%d" % (start, i)))
                if len(hashes) >= pause_at:
                    pause_at += _SLICE_PLACES
                    yield
            owners += [owner] * (len(hashes) - first)
        order = sorted(range(len(hashes)), key=hashes.__getitem__)
        self._hashes = array("Q", [hashes[i] for i in order])
        self._owners = array("I", [owners[i] for i in order])
        self.size = len(order)
