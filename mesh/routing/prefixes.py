"""Prefixes of a text, found among many: one binary search, then only prefixes that contain each other."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

V = TypeVar("V")


class PrefixNode(Generic[V]):
    """One prefix; `parent` is the next shorter one that it begins with."""

    __slots__ = ("key", "parent", "value")

    def __init__(self, key: bytes, value: V, parent: "PrefixNode[V] | None") -> None:
        self.key = key
        self.value = value
        self.parent = parent


class PrefixIndex(Generic[V]):
    """Values by prefix. A look-up costs O(log n) comparisons, whatever the lengths, plus one step per prefix in the chain."""

    __slots__ = ("_keys", "_nodes")

    def __init__(self, values: Mapping[bytes, V]) -> None:
        self._keys = sorted(values)
        self._nodes: list[PrefixNode[V]] = []
        node: PrefixNode[V] | None = None
        for key in self._keys:
            while node is not None and not key.startswith(node.key):
                node = node.parent
            node = PrefixNode(key, values[key], node)
            self._nodes.append(node)

    def nodes(self) -> Sequence[PrefixNode[V]]:
        """All prefixes, each after its parent."""
        return self._nodes

    def deepest(self, text: bytes) -> PrefixNode[V] | None:
        """The longest prefix of `text`; its parents are all the others.

        What sorts just before `text` begins with every prefix of `text` that there is, so it or one of its parents is the answer.
        """
        at = bisect_right(self._keys, text) - 1
        if at < 0:
            return None
        node: PrefixNode[V] | None = self._nodes[at]
        while node is not None and not text.startswith(node.key):
            node = node.parent
        return node
