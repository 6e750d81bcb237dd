"""Things that belong together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdpose_edge.common.union_find import UnionFind, largest_by_group

ITEMS = st.integers(0, 12)
GROUPS = st.lists(st.lists(ITEMS, min_size=1, max_size=4), max_size=8)


@given(GROUPS)
def test_two_are_together_where_groups_lead_from_one_to_the_other(groups: list[list[int]]) -> None:
    sets = UnionFind[int]()
    for group in groups:
        sets.union(group)
    reached = {item: {item} for item in range(13)}
    for _ in range(13):
        for group in groups:
            together = set().union(*(reached[item] for item in group))
            for item in together:
                reached[item] = together
    for one in range(13):
        assert {other for other in range(13) if sets.find(other) == sets.find(one)} == reached[one]


def test_members_take_their_largest_value_and_others_keep_theirs() -> None:
    values = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.5, "e": 4.0}
    shared = largest_by_group(values, [("a", "b"), ("c", "a"), ("d", "unknown"), ("unknown", "unseen")])
    assert list(shared.items()) == [("a", 3.0), ("b", 3.0), ("c", 3.0), ("d", 0.5), ("e", 4.0)]
