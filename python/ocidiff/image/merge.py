"""Merge: which layers of an image become one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from ocidiff.errors import UsageError
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Merge:
    """The rule for which layers of an image become one: always the newest ones.

    Attributes:
        last: How many; None for all.
        max_layers: Merge only if the image has more layers than this; `last` is None then. As many are merged as are needed,
            and older ones as long as they are no larger than those together.
    """

    last: int | None = None
    max_layers: int | None = None

    @classmethod
    def of(cls, *, squash: bool, squash_last: int | None, max_layers: int | None) -> Self:
        """Return what the arguments of a commit say; at least one asks for a merge.

        Raises:
            UsageError: A number is too small, or two arguments contradict each other.
        """
        if squash_last is not None and squash_last < 2:
            raise UsageError(f"squash_last {squash_last}: must be 2 or more")
        if max_layers is not None and max_layers < 1:
            raise UsageError(f"max_layers {max_layers}: must be 1 or more")
        if squash + (squash_last is not None) + (max_layers is not None) > 1:
            raise UsageError("squash: takes one of squash, squash_last and max_layers")
        return cls(squash_last, max_layers)

    def count(self, sizes: Sequence[int]) -> int:
        """Return how many of the newest layers become one, of layers with these sizes, base first; 0 for none."""
        if self.max_layers is None:
            count = len(sizes) if self.last is None else min(self.last, len(sizes))
            return count if count > 1 else 0
        if len(sizes) <= self.max_layers:
            return 0
        count = len(sizes) - self.max_layers + 1
        while count < len(sizes) and sizes[-count - 1] <= sum(sizes[-count:]):
            count += 1
        return count

    def takes_all(self, base_count: int, new_count: int) -> bool:
        """Return true if new layers, as many or fewer, are merged with others whatever their sizes are."""
        if self.max_layers is not None:
            return base_count >= self.max_layers
        return base_count > 0 and (self.last is None or self.last >= new_count)
