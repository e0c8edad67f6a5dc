"""Whiteouts: deletions as data. Spec: image-spec layer.md, "Whiteouts"; layer-semantics 11.2, step 5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.directories import join, show, split
from ocidiff.layer.pure.faults import malformed

PREFIX: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
META_PREFIX: Final = b".wh..wh."
PSEUDO_LINKS: Final = b".wh..wh.plnk"
"""The directory at the root in which AUFS keeps a name of each file that has several; theirs are hard links to it."""


@dataclass(frozen=True, slots=True)
class Removal:
    """The sibling `name` is gone."""

    name: bytes


class Opaque:
    """All that lower layers had in the directory is gone."""


class Aufs:
    """Bookkeeping of AUFS (`.wh..wh.plnk`, `.wh..wh.aufs`, `.wh..wh.orph`), which is in no tree."""


def is_pseudo_link(path: bytes) -> bool:
    """Return true if a clean path is that of a file in `PSEUDO_LINKS`."""
    return path.startswith(PSEUDO_LINKS + b"/") and path.count(b"/") == 1


def whiteout_of(path: bytes) -> bytes:
    """The path of the whiteout that hides `path`."""
    parent, name = split(path)
    return join(parent, PREFIX + name)


def read_whiteout(path: bytes, offset: int) -> Removal | Opaque | Aufs | None:
    """Return the whiteout that the clean path of an entry names; None for an ordinary entry.

    Args:
        path: Of the entry.
        offset: Where its header begins, for messages.

    Raises:
        MalformedLayerError: A whiteout of nothing, of the directory itself or of its parent.
    """
    name = split(path)[1]
    if any(part.startswith(META_PREFIX) and part != OPAQUE for part in path.split(b"/")):
        return Aufs()
    if name == OPAQUE:
        return Opaque()
    if not name.startswith(PREFIX):
        return None
    hidden = name.removeprefix(PREFIX)
    if hidden in (b"", b".", b".."):
        raise malformed(offset, sentences.INVALID_WHITEOUT.format(name=show(name)))
    return Removal(hidden)
