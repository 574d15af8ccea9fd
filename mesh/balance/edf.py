"""Earliest deadline first: taking turns by weight, at logarithmic cost, with weights that may change between turns."""

import math
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from typing import Generic, TypeVar

T = TypeVar("T")

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


class Edf(Generic[T]):
    """Every item is due again 1/weight after its last turn; who is due first is next."""

    __slots__ = ("_queue", "_weight")

    def __init__(self, items: Sequence[T], weight: Callable[[T], float], start: float = 0.0) -> None:
        """`start`, uniform in [0, 1), is where the round begins. `weight` is > 0 and asked at every turn.

        The first deadlines are spread over each item's period, so that heavy items don't come in one burst.
        """
        self._weight = weight
        self._queue = [((start + i * _GOLDEN) % 1.0 / weight(item), i, item) for i, item in enumerate(items)]
        heapify(self._queue)

    def next(self) -> T:
        """Whose turn it is. Raises IndexError when there are no items."""
        queue = self._queue
        due, order, item = queue[0]
        heapreplace(queue, (due + 1.0 / self._weight(item), order, item))
        return item
