"""The listing of `commit --dry-run`: the changes of a commit, largest first, with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ocidiff.cli.render import as_json, columns, totals_document
from ocidiff.cli.streams import emit
from ocidiff.largest import Largest
from ocidiff.layer.layer import ChangeKind
from ocidiff.layer.totals import Totals
from ocidiff.printable import printable
from ocidiff.sizes import size

if TYPE_CHECKING:
    from ocidiff.layer.layer import Change

_SHOWN: Final = 25
_LETTERS: Final = {ChangeKind.ADD: "A", ChangeKind.MODIFY: "C", ChangeKind.DELETE: "D"}


class Listing:
    """Takes changes in layer order, and keeps those that bring most bytes; memory does not grow with their number."""

    def __init__(self) -> None:
        self._totals = Totals()
        self._largest = Largest[tuple[int, int, "Change"]](_SHOWN)

    def take(self, change: Change) -> None:
        """Count a change."""
        self._totals.add(change)
        # Of two of one size the first is kept.
        self._largest.add((change.layer_bytes, -sum(self._totals.kinds.values()), change))

    def emit(self, skipped: Mapping[str, int], *, json: bool) -> None:
        """Write what was counted to stdout."""
        changes = [change for _, _, change in sorted(self._largest.kept, reverse=True)]
        if json:
            left_out = {"skipped": dict(skipped)} if skipped else {}
            emit(as_json({**totals_document(self._totals), **left_out, "largest": [one.to_dict() for one in changes]}))
            return
        if not changes:
            emit("no change")
            return
        rows = [
            (size(one.layer_bytes), ",".join(one.reason), f"{_LETTERS[one.kind]} {printable(one.path)}") for one in changes
        ]
        # The paths come last, so that a long one makes no other line longer.
        for line in columns(("SIZE", "REASON", "CHANGE"), rows):
            emit(line)
        more = sum(self._totals.kinds.values()) - len(changes)
        if more:
            emit(f"and {more} more")
        directories = [(size(one.layer_bytes), str(one.changes), one.path) for one in self._totals.largest_directories()]
        emit("")
        for line in columns(("SIZE", "CHANGES", "DIRECTORY"), directories):
            emit(line)
        emit(f"\n{size(self._totals.layer_bytes)} of files would be added")
