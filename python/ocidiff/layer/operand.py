"""Operands: the trees and names that callers and command lines give, told apart by their text."""

from __future__ import annotations

import os
from typing import Final

Tree = str | os.PathLike[str]

SCRATCH: Final = "scratch"
INDEX: Final = "index:"


def is_path(text: str) -> bool:
    """Return True if the text begins with a dot or a slash, as the name of no image does."""
    return text.startswith((".", "/"))


def is_tree(operand: Tree) -> bool:
    """Return True for path objects, `scratch`, `index:FILE`, and texts that begin with a dot or a slash."""
    return not isinstance(operand, str) or operand == SCRATCH or operand.startswith(INDEX) or is_path(operand)


def may_be_container(text: str) -> bool:
    """Return True if the text may be the name of a container: it has no slash, and is not `.` or `..`."""
    return "/" not in text and text not in {".", ".."}
