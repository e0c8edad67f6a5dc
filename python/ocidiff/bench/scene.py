"""Scene: the trees that all tools work on, and the diff IDs that all results must come to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from ocidiff.bench.measure import Usage, launch
from ocidiff.bench.trees import change_tree, make_tree, measure_tree
from ocidiff.bench.workload import LARGE_SHARE, SMALL_SHARE, Kind
from ocidiff.errors import DigestMismatchError
from ocidiff.layer.applier import apply
from ocidiff.layer.differ import diff
from ocidiff.layer.options import EngineName
from ocidiff.oci.digest import DiffID
from ocidiff.workspace import make_root

# They would change what is measured, or where it is written.
_FOREIGN: Final = (
    "OCIDIFF_",
    "SOURCE_DATE_EPOCH",
    "XDG_DATA_HOME",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "GZIP",
    "TAR_OPTIONS",
)


class Scene:
    """Two equal trees, of which one is changed step by step.

    Args:
        root: A private directory, which holds everything.

    Attributes:
        lower, upper: The two trees.
        tree: The tar of both at first.
        change, undo: Tars that turn `lower` into `upper` and back, after a share of the files has changed.
        names: Number of names in the tree.
        size: Bytes of its files.
        environment: That of every command.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.lower, self.upper = self.path("lower"), self.path("upper")
        self.tree, self.change, self.undo = self.path("tree.tar"), self.path("change.tar"), self.path("undo.tar")
        self.names = self.size = 0
        places = {"HOME": self.path("home"), "TMPDIR": self.path("tmp")}
        for place in places.values():
            os.mkdir(place)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self.environment: Mapping[str, str] = {**kept, **places, "LC_ALL": "C.UTF-8"}
        self._known: dict[str, tuple[str, DiffID]] = {}

    def path(self, name: str) -> str:
        """Return a path in the private directory."""
        return os.path.join(self.root, name)

    def fill(self, source: str | None, *, files: int, size: int, seed: int) -> None:
        """Make both trees: as a copy of `source`, or by `make_tree`."""
        for tree in (self.lower, self.upper):
            make_root(tree)
        if source is None:
            make_tree(self.lower, files, size, seed)
        else:
            diff(None, os.path.abspath(source), self.tree, compression="none", ignore_file=False)
            apply(self.tree, self.lower)
        diff(None, self.lower, self.tree, compression="none", ignore_file=False)
        self.copy_to(self.upper)
        self.names, self.size = measure_tree(self.lower)

    def copy_to(self, directory: str) -> None:
        """Write the tree as it was at first onto an empty directory."""
        apply(self.tree, directory)

    def change_little(self, seed: int) -> None:
        """Change a small share of `upper`, and write `change` and `undo`."""
        change_tree(self.upper, SMALL_SHARE, seed)
        diff(self.lower, self.upper, self.change, compression="none", ignore_file=False)
        diff(self.upper, self.lower, self.undo, compression="none", ignore_file=False)

    def change_much(self, seed: int) -> None:
        """Change a large share of `upper`."""
        change_tree(self.upper, LARGE_SHARE, seed)

    def check_engines(self, kind: Kind) -> None:
        """Compare what the pure engine and one thread of the other make of a diff."""
        lower = None if kind is Kind.LAYER else self.lower
        upper = self.lower if kind is Kind.LAYER else self.upper
        names: tuple[EngineName | None, ...] = ("pure", None)
        for engine in names:
            made = diff(lower, upper, os.devnull, compression="none", ignore_file=False, engine=engine, threads=1)
            self.agree(kind, made.diff_id, "the pure engine" if engine else "one thread")

    def agree(self, what: str, diff_id: str, who: str) -> None:
        """Compare a diff ID with the first one of this name.

        Raises:
            DigestMismatchError: They differ.
        """
        first, known = self._known.setdefault(what, (who, DiffID(diff_id)))
        if diff_id != known:
            raise DigestMismatchError(f"{what}: results disagree: {who} made {diff_id}, and {first} {known}")

    def agree_tree(self, what: str, tree: str, who: str) -> None:
        """Compare a tree, by the diff ID of all it holds, with that of the first one of this name; errors as in `agree`."""
        self.agree(what, diff(None, tree, os.devnull, compression="none", ignore_file=False).diff_id, who)

    def run(self, *command: str) -> tuple[Usage, str]:
        """Run a command; see `launch`."""
        return launch(command, self.environment)

    def output(self, command: Sequence[str]) -> str:
        """Run a command, and return what it wrote to stdout."""
        return self.run(*command)[1].strip()
