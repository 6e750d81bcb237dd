"""Things that belong together, found from pairs and groups of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class UnionFind(Generic[T]):
    """Disjoint sets; what was never joined is in a set of its own."""

    def __init__(self) -> None:
        self._parent: dict[T, T] = {}

    def find(self, item: T) -> T:
        """Return the representative of the set that an item is in."""
        root = item
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while item != root:  # the next search from here takes one step
            self._parent[item], item = root, self._parent[item]
        return root

    def union(self, items: Iterable[T]) -> None:
        """Join the sets of all these into one."""
        first, *others = items
        for other in others:
            self._parent[self.find(other)] = self.find(first)


def largest_by_group(values: Mapping[T, float], groups: Iterable[Iterable[T]]) -> dict[T, float]:
    """Raise each value to the largest in its group; groups with a common member are one.

    Args:
        values: of every item. Not modified.
        groups: of items; those without a value are passed over.

    Returns:
        By item, in the order of `values`.
    """
    sets = UnionFind[T]()
    for group in groups:
        if members := [item for item in group if item in values]:
            sets.union(members)
    largest: dict[T, float] = {}
    for item, value in values.items():
        root = sets.find(item)
        largest[root] = max(value, largest.get(root, value))
    return {item: largest[sets.find(item)] for item in values}
