"""Request ids: unique, in the form of a version 4 UUID, at the cost of one formatting."""

import random

_REFRESH = 1 << 16


class RequestIds:
    """80 random bits that change every 65,536 ids, and a 48-bit counter that starts at random. Not secret; unique."""

    __slots__ = ("_left", "_next", "_prefix", "_rng", "_trace")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._left = 0
        self._next = 0
        self._prefix = b""
        self._trace = b""

    def make(self) -> bytes:
        """The next id, 36 bytes."""
        if self._left == 0:
            self._refresh()
        self._left -= 1
        self._next += 1
        return b"%b%012x" % (self._prefix, self._next)

    def unsampled_trace(self) -> bytes:
        """A traceparent that says "not sampled": unique ids of 80 random bits and a counter, without the random flag."""
        if self._left == 0:
            self._refresh()
        self._left -= 1
        self._next += 1
        return b"00-%b%012x-%016x-00" % (self._trace, self._next, self._next)

    def _refresh(self) -> None:
        digits = b"%020x" % self._rng.getrandbits(80)
        self._prefix = b"%b-%b-4%b-a%b-" % (digits[:8], digits[8:12], digits[12:15], digits[15:18])
        self._trace = digits
        self._next = self._rng.getrandbits(47) | 1
        self._left = _REFRESH
