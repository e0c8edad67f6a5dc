"""Renewal: a database that is missing or damaged is made again, and the trees that the new one does not know are kept."""

from __future__ import annotations

import os
import time

from ocidiff.embedded.database import Renewed, renew
from ocidiff.embedded.files import TREES, TREES_MODE, Files
from ocidiff.embedded.names import DAMAGED
from ocidiff.log import Logger

_log = Logger(__name__)


def renew_database(files: Files, path: str) -> Renewed:
    """Set a damaged database aside, and make it again with what can still be read of it.

    Args:
        files: The layout, locked.
        path: Path of the database, which nobody in this process has open.
    """
    with files.directory(DAMAGED):
        aside = f"{files.path}/{DAMAGED}/{os.path.basename(path)}.{time.time_ns()}"
        trees: list[str] = []
        lost = renew(path, os.path.abspath(aside), lambda known: trees.extend(_keep_trees(files, known)))
        return Renewed(aside, tuple(lost), tuple(trees))


def set_trees_aside(files: Files, path: str, known: frozenset[int]) -> None:
    """Keep the trees that a database does not know which takes the place of a missing one, and warn of them.

    Args:
        files: The layout.
        path: Path of the database.
        known: Numbers of the snapshots that the database knows.
    """
    for place in _keep_trees(files, known):
        name = os.path.basename(path)
        _log.warning("%s: was missing, so that nothing is known of the trees that are now in %s", name, place)


def _keep_trees(files: Files, known: frozenset[int]) -> list[str]:
    """Move the trees that a new database does not know into `damaged/`, since what was changed in them is nowhere else.

    Returns:
        Where they are; nothing if there were none.
    """
    try:
        with files.directory(TREES, create=False) as trees:
            names = set(map(str, known))
            unknown = [name for name in os.listdir(trees) if name not in names]
            if not unknown:
                return []
            name = f"{TREES}.{time.time_ns()}"
            with files.directory(DAMAGED) as damaged:
                os.mkdir(name, TREES_MODE, dir_fd=damaged)
            with files.directory(DAMAGED, name, create=False) as kept:
                for tree in unknown:
                    os.rename(tree, tree, src_dir_fd=trees, dst_dir_fd=kept)
                os.fsync(kept)
            return [f"{files.path}/{DAMAGED}/{name}"]
    except FileNotFoundError:
        # No snapshot was ever made.
        return []
