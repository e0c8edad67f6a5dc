"""The directory driver: every snapshot is a whole tree. It needs no privileges, and is quick where blocks can be shared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from ocidiff import workspace
from ocidiff.embedded.drivers.clone import clone_tree
from ocidiff.embedded.trees import TREE
from ocidiff.mounts.mount import Mount, bind
from ocidiff.services.snapshots import Kind


class DirectoryDriver:
    """See `snapshotter.Driver`."""

    name: Final = "directory"
    max_parents: Final = None
    shares_parents: Final = False

    def fill(self, directory: str, parents: Sequence[str], kind: Kind) -> None:
        """See `Driver.fill`."""
        if kind is Kind.VIEW and parents:
            # It shows its parent, which does not change.
            return
        tree = os.path.join(directory, TREE)
        workspace.make_root(tree)
        if parents:
            clone_tree(parents[0], tree)

    def mounts(self, directory: str, parents: Sequence[str], kind: Kind) -> tuple[Mount, ...]:
        """See `Driver.mounts`."""
        tree = parents[0] if kind is Kind.VIEW and parents else os.path.join(directory, TREE)
        return (bind(tree, read_only=kind is not Kind.ACTIVE),)

    def finalize(self, directory: str) -> None:
        """See `Driver.settle`."""
