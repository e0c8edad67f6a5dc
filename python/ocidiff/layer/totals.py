"""Totals of a list of changes, and its largest directories."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from ocidiff.largest import Largest
from ocidiff.layer.layer import Change, ChangeKind

_LARGEST: Final = 10


@dataclass(frozen=True, slots=True, order=True)
class DirectoryTotal:
    """Totals of the changes below a directory.

    Attributes:
        layer_bytes: Content of files that a layer gets for it.
        changes: How many paths changed.
        path: Absolute path within the tree.
    """

    layer_bytes: int
    changes: int
    path: str


@dataclass(slots=True)
class _Open:
    """A directory that changes are still told of."""

    name: str
    layer_bytes: int = 0
    changes: int = 0
    largest_child_bytes: int = 0


class Totals:
    """Adds up changes, which have to come in layer order; memory does not grow with their number.

    Attributes:
        kinds: How many changes there are of each kind.
        layer_bytes: Content of files that a layer gets for all of them.
    """

    def __init__(self) -> None:
        self.kinds: Counter[ChangeKind] = Counter()
        self.layer_bytes = 0
        self._open: list[_Open] = []
        self._largest = Largest[DirectoryTotal](_LARGEST)

    def add(self, change: Change) -> None:
        """Count the next change."""
        self.kinds[change.kind] += 1
        self.layer_bytes += change.layer_bytes
        names = change.path.split("/")[1:-1]
        depth = 0
        while depth < min(len(names), len(self._open)) and names[depth] == self._open[depth].name:
            depth += 1
        self._close(depth)
        self._open += map(_Open, names[depth:])
        for directory in self._open:
            directory.layer_bytes += change.layer_bytes
            directory.changes += 1

    def largest_directories(self) -> list[DirectoryTotal]:
        """The directories with most content below them, largest first; no change can be counted after this.

        A directory that has all of it in one directory below is left out in favour of that one.
        """
        self._close(0)
        return sorted(self._largest.kept, key=lambda total: (-total.layer_bytes, -total.changes, total.path))

    def _close(self, depth: int) -> None:
        """Account for the open directories from `depth` on: they are behind."""
        while len(self._open) > depth:
            path = "/" + "/".join(directory.name for directory in self._open)
            done = self._open.pop()
            if self._open:
                parent = self._open[-1]
                parent.largest_child_bytes = max(parent.largest_child_bytes, done.layer_bytes)
            if done.layer_bytes and done.layer_bytes == done.largest_child_bytes:
                continue
            self._largest.add(DirectoryTotal(done.layer_bytes, done.changes, path))
