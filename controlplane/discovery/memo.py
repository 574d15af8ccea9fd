"""Built parts, kept with the inputs they were built from."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Memo:
    """Values with the inputs they were made from. Entries not asked for in a round are dropped by `sweep`."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[object, Any]] = {}
        self._used: set[Hashable] = set()
        self.builds = 0
        """How often something was built."""

    def get(self, key: Hashable, inputs: object, build: Callable[[], T]) -> T:
        """What `build` made when `key` was last asked for, if `inputs` are equal to those of then; else built now."""
        self._used.add(key)
        entry = self._entries.get(key)
        if entry is not None and entry[0] == inputs:
            value: T = entry[1]
            return value
        value = build()
        self.builds += 1
        self._entries[key] = (inputs, value)
        return value

    def sweep(self) -> None:
        """Forget what nobody asked for since the last time."""
        for key in self._entries.keys() - self._used:
            del self._entries[key]
        self._used.clear()
