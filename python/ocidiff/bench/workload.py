"""Workload: the kinds of work that are measured, and one tool's part in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, Protocol

from ocidiff.bench.measure import Usage
from ocidiff.values import dataclass

SMALL_SHARE: Final = 0.01
LARGE_SHARE: Final = 0.25


class Kind(StrEnum):
    """A kind of work, in the order in which they are measured."""

    LAYER = "diff"
    APPLY = "apply"
    COMMIT = "commit"
    UNPACK = "unpack"
    SAME = "diff-same"
    SMALL = "diff-small"
    OVER = "commit-change"
    AGAIN = "commit-again"
    LARGE = "diff-large"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


TITLES: Final = {
    Kind.LAYER: "diff: the whole tree as a layer",
    Kind.APPLY: "apply: that layer onto an empty directory",
    Kind.COMMIT: "commit: the whole tree as an image",
    Kind.UNPACK: "unpack: that image into an empty directory",
    Kind.SAME: "diff: nothing changed",
    Kind.SMALL: f"diff: {_percent(SMALL_SHARE)} of the files changed",
    Kind.OVER: f"commit: {_percent(SMALL_SHARE)} of the files changed in a container over an image",
    Kind.AGAIN: f"commit again: the whole tree, {_percent(SMALL_SHARE)} of the files changed",
    Kind.LARGE: f"diff: {_percent(LARGE_SHARE)} of the files changed",
}


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Task:
    """One tool's part in a workload.

    Attributes:
        tool: Name of the row.
        run: Does the work, which is timed; returns what it took and wrote to stdout.
        finish: Checks and removes the result, untimed; takes what was written to stdout, and returns the bytes of the layer.
        prepare: Makes everything as it was before the first run, untimed.
    """

    tool: str
    run: Callable[[], tuple[Usage, str]]
    finish: Callable[[str], int | None]
    prepare: Callable[[], None] = nothing


class Tool(Protocol):
    """A tool that is measured.

    Attributes:
        name: Its name.
        version: What it says of its version.
    """

    name: str
    version: str

    def rows(self, kind: Kind) -> int:
        """Return how many tasks it has in a kind of work."""
        ...

    def begin(self, kind: Kind) -> Sequence[Task]:
        """Prepare a kind of work, untimed, and return its tasks."""
        ...
