"""The largest of many items."""

from __future__ import annotations

from ocidiff.largest import Largest


def test_the_largest_are_kept_in_any_order_of_arrival() -> None:
    largest = Largest[int](3)
    for item in (4, 9, 1, 7, 8, 2):
        largest.add(item)
        assert len(largest.kept) <= 3
    assert sorted(largest.kept) == [7, 8, 9]


def test_the_bound_is_the_least_item_once_there_is_no_room() -> None:
    largest = Largest[int](2)
    largest.add(5)
    assert largest.bound is None
    largest.add(3)
    assert largest.bound == 3
    largest.add(4)
    assert largest.bound == 4
