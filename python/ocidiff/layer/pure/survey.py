"""The marks in an upper directory, which tell how it was written. The other engine has them in `tree/overlay/survey.rs`."""

from __future__ import annotations

import os
from typing import Final

from ocidiff.errors import OverlayError, SourceChangedError
from ocidiff.layer.pure import sentences, whiteout
from ocidiff.layer.pure.directories import join
from ocidiff.layer.pure.faults import unreadable_overlay
from ocidiff.layer.pure.tree import Tree
from ocidiff.layer.xattrs import FUSE, OVERLAY, OVERLAY_USERXATTR, class_of, mark_of
from ocidiff.mounts.layers import OverlayLayers

NAMES: Final = b""
"""fuse-overlayfs and AUFS: names that begin with .wh."""
GONE: Final = (SourceChangedError, FileNotFoundError, NotADirectoryError)

_INITIAL_USER_NAMESPACE: Final = 0xEFFFFFFD  # linux/proc_ns.h
_CAP_SYS_ADMIN: Final = 21


class _Survey:
    """The marks in the directories of a layer, or on its files.

    Attributes:
        seen: What the names of attributes begin with that overlayfs alone wrote.
        names: True for attributes `user.fuseoverlayfs.*`, or names that begin with `.wh.`.
        overridden: True if owners and modes are not those of the files.
        redirected: True if a directory has a redirect.
        indexed: True if the root is marked as only `index=on` does.
        directories: How many there are below the root.
    """

    def __init__(self, tree: Tree, *, of_files: bool = False) -> None:
        self._tree = tree
        self.seen = set[bytes]()
        self.names = self.overridden = self.redirected = self.indexed = False
        self.directories = 0
        todo = [b""]
        while todo:
            path = todo.pop()
            try:
                names = tree.names(path)
                inside = {join(path, name): _is_directory(tree, join(path, name)) for name in names}
                if of_files:
                    self.names |= any(_has_origin(tree, child) for child, is_dir in inside.items() if not is_dir)
                else:
                    self._look(path, names)
            except GONE:
                if not path:
                    raise
                continue  # gone since: whatever took its place is found, and refused, later
            below = [child for child, is_dir in inside.items() if is_dir]
            self.directories += len(below)
            todo.extend(below)

    @property
    def is_unmarked(self) -> bool:
        """True if nothing tells who wrote it."""
        return not self.seen and not self.names

    def _look(self, path: bytes, names: list[bytes]) -> None:
        """Read the marks of a directory.

        Beside the name that makes it opaque, fuse-overlayfs sets the attribute that overlayfs sets alone.
        """
        self.names |= any(name.startswith(whiteout.PREFIX) for name in names)
        for key in self._tree.keys(path):
            owner = class_of(key).owner
            self.names |= owner == "fuse-overlayfs"
            self.overridden |= owner == "ocidiff" and not self._tree.reads_notes
            for prefix in (OVERLAY, OVERLAY_USERXATTR):
                mark = mark_of(key, prefix)
                is_fuse = mark == b"opaque" and whiteout.OPAQUE in names
                if mark is not None and not is_fuse:
                    self.seen.add(prefix)
                    self.redirected |= mark == b"redirect"
                    self.indexed |= mark == b"origin" and not path


def _survey(trees: list[Tree], *, is_told: bool) -> _Survey:
    """Return the marks of the upper directory, the first of `trees`.

    If its directories have none, and the caller does not know the format, then its files tell fuse-overlayfs, which notes
    where a file was copied from. Last come the layers between it and the lowest one.
    """
    survey = _Survey(trees[0])
    if is_told:
        return survey
    if survey.is_unmarked:
        survey.names = _Survey(trees[0], of_files=True).names
    for lower in trees[1:-1]:
        if not survey.is_unmarked:
            break
        below = _Survey(lower)
        # If both kinds of marks are there, they do not tell which program wrote the upper directory.
        if not (below.seen and below.names):
            survey.seen, survey.names = below.seen, below.names
    return survey


def prefix_of(trees: list[Tree], layers: OverlayLayers) -> bytes:
    """Return what the names of the marks begin with, learned from the directories."""

    def refuse(reason: str) -> OverlayError:
        return unreadable_overlay(layers.upperdir, reason)

    found = _survey(trees, is_told=layers.userxattr is not None)
    blind = found.directories > 0 and not _may_read_trusted()
    if layers.userxattr is not None:
        prefix = OVERLAY_USERXATTR if layers.userxattr else OVERLAY
    elif found.names and found.seen:
        raise refuse(sentences.MIXED_MARKS)
    elif found.names:
        prefix = NAMES
    elif OVERLAY in found.seen:
        prefix = OVERLAY
    elif OVERLAY_USERXATTR in found.seen:
        prefix = OVERLAY_USERXATTR
    elif blind:
        raise refuse(sentences.MAY_HAVE_TRUSTED)
    else:
        prefix = OVERLAY
    if prefix == OVERLAY and blind:
        raise refuse(sentences.UNREADABLE_TRUSTED)
    if prefix == NAMES and found.overridden:
        raise refuse(sentences.OWNERS_IN_ATTRIBUTES)
    if prefix != NAMES and found.indexed:
        raise refuse(sentences.MOUNTED_WITH_INDEX)
    if found.redirected and prefix != NAMES and not (layers.redirects and prefix == OVERLAY):
        raise refuse(sentences.UNFOLLOWED_REDIRECTS)
    return prefix


def _has_origin(tree: Tree, path: bytes) -> bool:
    try:
        return any(key.startswith(FUSE) for key in tree.keys(path))
    except GONE:
        return False


def _is_directory(tree: Tree, path: bytes) -> bool:
    try:
        return tree.node(path).is_dir
    except GONE:
        return False


def _may_read_trusted() -> bool:
    try:
        with open("/proc/thread-self/status", encoding="ascii") as file:
            effective = next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)
        namespace = os.stat("/proc/thread-self/ns/user").st_ino
    except OSError:
        return False
    return bool(effective >> _CAP_SYS_ADMIN & 1) and namespace == _INITIAL_USER_NAMESPACE
