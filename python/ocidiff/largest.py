"""The largest of many items, in bounded memory."""

from __future__ import annotations

import heapq
from typing import Any, Generic, Protocol, TypeVar


class _Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...  # noqa: ANN401 - only items of one type are compared


_Item = TypeVar("_Item", bound=_Ordered)


class Largest(Generic[_Item]):
    """Keeps the largest items that it is given.

    Args:
        most: How many items are kept.

    Attributes:
        kept: The items that are kept, in no order.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.kept: list[_Item] = []  # a heap

    def add(self, item: _Item) -> None:
        """Keep an item if it is larger than one that is kept, or if there is room."""
        if len(self.kept) < self._most:
            heapq.heappush(self.kept, item)
        else:
            heapq.heappushpop(self.kept, item)

    @property
    def bound(self) -> _Item | None:
        """The item that the next one must exceed; None if there is room."""
        return None if len(self.kept) < self._most else self.kept[0]
