"""Paths of the trees that callers name, checked."""

from __future__ import annotations

import errno
import os
import stat

from ocidiff.errors import UsageError
from ocidiff.layer.engine import Lower
from ocidiff.layer.incomplete import refuse_incomplete
from ocidiff.layer.layer import IndexPath
from ocidiff.layer.operand import INDEX, SCRATCH, Tree
from ocidiff.layer.unseen import refuse_unseen


def lower_path(lower: Tree | None) -> Lower | None:
    """The path of the parent tree, or of its index; None for no parent. A path object is always a directory."""
    if lower is None or (isinstance(lower, str) and lower == SCRATCH):
        return None
    return index_path(lower) or tree_path(lower)


def index_path(tree: Tree) -> IndexPath | None:
    """The index that `index:FILE` names.

    Raises:
        UsageError: It names none.
        FileNotFoundError: It is missing.
    """
    if not isinstance(tree, str) or not tree.startswith(INDEX):
        return None
    path = tree.removeprefix(INDEX)
    if not path:
        raise UsageError(f"{INDEX} takes the path of an index after it")
    os.stat(path)
    return IndexPath(os.fsencode(path))


def tree_path(tree: Tree) -> bytes:
    """The path of a tree.

    Raises:
        FileNotFoundError, NotADirectoryError: It is missing, or is no directory.
        UnrepresentableError: It is not whole.
    """
    path = os.fspath(tree)
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    directory = os.fsencode(path)
    refuse_incomplete(directory)
    return directory


def changed_tree_path(tree: Tree) -> bytes:
    """The path of a changed tree.

    Raises:
        FileNotFoundError, NotADirectoryError: It is missing, or is no directory.
        UnrepresentableError: It is not whole.
        UnsupportedError: Its changes are where the host does not see them.
    """
    path = tree_path(tree)
    refuse_unseen(path)
    return path
