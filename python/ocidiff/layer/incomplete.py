"""The mark of a tree that is not whole: what `unpack` writes first and removes last."""

from __future__ import annotations

import os
import stat
from typing import Final

from ocidiff.errors import UnrepresentableError

INCOMPLETE: Final = ".ocidiff-incomplete"


def refuse_incomplete(*layers: bytes) -> None:
    """Refuse a tree that is not whole: its layer, its index and what is applied onto it would lack files without a word.

    Args:
        layers: The directory of the tree, or the directories of an overlay, top first.

    Raises:
        UnrepresentableError: The mark is at the top of the tree.
    """
    for layer in layers:
        try:
            found = os.lstat(os.path.join(layer, os.fsencode(INCOMPLETE)))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            # A directory that its own mode closes; whoever reads it opens it, or says that it cannot be read.
            continue
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            return  # deleted in this layer
        raise UnrepresentableError(
            f"{os.fsdecode(layer)}: is not whole: it has {INCOMPLETE}, by which unpack marks a tree that it has not "
            "finished; run unpack again"
        )
