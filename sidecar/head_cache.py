"""How many ready-made heads are kept, by all listeners together.

Heads that never come again (unique ids) only fill a cache. When it has been filled, it starts over and most of the next ones are not kept.
"""

from typing import Any

MAX_CACHED_HEADS = 256
"""Of requests, and as many of responses: about 3 KB each."""
MAX_CACHED_HEAD_BYTES = 2048


class HeadCache:
    """The bound over several dictionaries, whose owners ask before they put something in."""

    __slots__ = ("_count", "_holders", "_skip")

    def __init__(self) -> None:
        self._holders: dict[int, dict[bytes, Any]] = {}
        self._count = 0
        self._skip = 0

    def may_keep(self, holder: dict[bytes, Any], size_bytes: int) -> bool:
        """Whether one more head of this size may be put into `holder`. May empty every holder first."""
        if self._skip:
            self._skip -= 1
            return False
        if size_bytes > MAX_CACHED_HEAD_BYTES:
            return False
        if self._count >= MAX_CACHED_HEADS:
            for one in self._holders.values():
                one.clear()
            self._holders.clear()
            self._count = 0
            self._skip = 16 * MAX_CACHED_HEADS
        self._holders[id(holder)] = holder
        self._count += 1
        return True


class HeadCaches:
    """Of one snapshot."""

    __slots__ = ("requests", "responses")

    def __init__(self) -> None:
        self.requests = HeadCache()
        self.responses = HeadCache()
