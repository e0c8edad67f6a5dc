"""Why an event is one, and how many bytes it is about. Nothing here has a part in what a layer says."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from ocidiff.layer.layer import ChangeKind, Reason
from ocidiff.layer.options import LayerOptions, Profile
from ocidiff.layer.pure.change import AnyTree, Event, same_content, same_mtime, same_xattrs
from ocidiff.layer.pure.pace import Pace
from ocidiff.layer.pure.tree import Node


def reasons(event: Event, lower: AnyTree | None, upper: AnyTree, options: LayerOptions) -> Iterator[Reason]:
    """All that makes it a change, in the order of `Reason`; see there."""
    old, new = event.old, event.node
    if lower is None or old is None or new is None:
        yield Reason.NEW if event.kind is ChangeKind.ADD else Reason.DELETED
        return
    a, b = old.stat, new.stat
    if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
        yield Reason.TYPE
        return
    if a.st_rdev != b.st_rdev:
        yield Reason.DEVICE
    if not old.has_mode_of(new):
        yield Reason.MODE
    if not old.has_owner_of(new):
        yield Reason.OWNER
    if not new.is_dir and not same_mtime(a, b, options):
        yield Reason.MTIME
    if not same_xattrs(lower, old, upper, new):
        yield Reason.XATTR
    if stat.S_ISREG(b.st_mode) and a.st_size != b.st_size:
        yield Reason.SIZE
        yield Reason.CONTENT
    elif not same_content(lower, old, upper, new):
        yield Reason.LINK if stat.S_ISLNK(b.st_mode) else Reason.CONTENT


def sizes(event: Event, lower: AnyTree | None, pace: Pace) -> tuple[int | None, int | None]:
    """`Change.upper_bytes` and `Change.lower_bytes`."""
    upper_bytes = None if event.node is None else _bytes_of(event.node)
    if lower is None or event.old is None:
        return upper_bytes, None
    if event.node is not None and event.node.is_dir:
        return upper_bytes, _bytes_of(event.old)
    return upper_bytes, _bytes_at(lower, event.old, pace)


def _bytes_of(node: Node) -> int:
    return node.stat.st_size if stat.S_ISREG(node.stat.st_mode) else 0


def _bytes_at(tree: AnyTree, node: Node, pace: Pace) -> int:
    """The bytes of a file, or of all files below a directory."""
    total, todo = 0, [node]
    while todo:
        pace.check()
        found = todo.pop()
        total += _bytes_of(found)
        if found.is_dir:
            todo += map(tree.node, tree.children(found).values())
    return total


class Carried:
    """Counts the content that each change puts into a layer: that of a file once, however many names it has."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._counted: set[tuple[int, int]] = set()  # inodes with several names

    def next(self, node: Node | None) -> tuple[int, bool]:
        """Return the content of the next change, and True if it is the first name of its file. Takes all, in order."""
        if node is None or node.is_dir:
            return 0, node is not None
        if node.stat.st_nlink > 1:
            # The key that makes two names one file. Spec: layer-semantics 5, "Key".
            inode = (0 if self._profile is Profile.CONTAINERD else node.stat.st_dev, node.stat.st_ino)
            if inode in self._counted:
                return 0, False
            self._counted.add(inode)
        return _bytes_of(node), True
