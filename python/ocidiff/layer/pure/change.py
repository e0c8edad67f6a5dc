"""Pairing two trees and deciding what changed. Spec: layer-semantics 1 and 2.

Law: events come in walk order, a directory before its children, names of one directory in byte order; that is whole paths
compared with `/` as the lowest byte.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ocidiff.errors import SourceChangedError
from ocidiff.layer.layer import ChangeKind
from ocidiff.layer.options import LayerOptions
from ocidiff.layer.pure.index_format import Fingerprint, XattrDigests, fingerprint, stamp_of, xattr_digests
from ocidiff.layer.pure.index_tree import IndexTree
from ocidiff.layer.pure.live import ATTEMPTS, ATTEMPTS_TO_OPEN, Live
from ocidiff.layer.pure.overlay import OverlayTree
from ocidiff.layer.pure.pace import Pace
from ocidiff.layer.pure.scope import Narrowing
from ocidiff.layer.pure.tree import Node, Tree
from ocidiff.oci.timestamp import NS_PER_SECOND

RealTree = Tree | OverlayTree
AnyTree = RealTree | IndexTree


@dataclass(frozen=True, slots=True)
class Event:
    """One step of the walk.

    Attributes:
        kind: What happened; None for an unchanged name of an inode with several, which only serves hard links.
        path: Relative to the roots.
        node: The name in upper; None for a deletion.
        old: The name in lower; None for an addition.
    """

    kind: ChangeKind | None
    path: bytes
    node: Node | None
    old: Node | None


def events(
    lower: AnyTree | None, upper: AnyTree, pace: Pace, options: LayerOptions, narrowing: Narrowing, live: Live
) -> Iterator[Event]:
    """Yield the changes from `lower` to `upper` within `narrowing`, in walk order.

    Below a directory that is gone or is no directory any more nothing is reported: its own event says it all.
    """
    stack = [_pairs(lower, None, upper, None, pace, live)]
    while stack:
        pair = next(stack[-1], None)
        if pair is None:
            stack.pop()
            continue
        kind, old, new = _look(lower, pair[0], upper, pair[1], options, narrowing, live)
        if new is None:
            if old is not None:
                yield Event(ChangeKind.DELETE, old.path, None, old)
            continue
        if kind is not None or (not new.is_dir and new.stat.st_nlink > 1):
            yield Event(kind, new.path, new, old)
        if new.is_dir:
            stack.append(_pairs(lower if old is not None and old.is_dir else None, old, upper, new, pace, live))


def _look(
    lower: AnyTree | None,
    old: Node | None,
    upper: AnyTree,
    path: bytes | None,
    options: LayerOptions,
    narrowing: Narrowing,
    live: Live,
) -> tuple[ChangeKind | None, Node | None, Node | None]:
    """Return the rest of a name in both trees after its change; `path` is that of upper, if upper had it."""
    for attempt in range(ATTEMPTS):
        live.pause(attempt)
        new = None if path is None else _node(upper, path, live)
        try:
            left, new = narrowing.left(lower, old, upper, new)
            if new is None:
                return None, left, None
            upper.check_ids(new)
            if left is None or lower is None:
                return ChangeKind.ADD, None, new
            return None if same(lower, left, upper, new, options) else ChangeKind.MODIFY, left, new
        except (OSError, SourceChangedError) as error:
            if not live.allows(error) or attempt + 1 == ATTEMPTS:
                raise
        live.retried += attempt == 0
        upper.forget()
    raise AssertionError("the last attempt returns or raises")


def _node(upper: AnyTree, path: bytes, live: Live) -> Node | None:
    """Return the node at `path`; None if it is gone."""
    try:
        return upper.node(path)
    except (OSError, SourceChangedError) as error:
        if not live.allows(error):
            raise
    live.vanished += 1
    return None


def _pairs(
    lower: AnyTree | None, old: Node | None, upper: AnyTree, new: Node | None, pace: Pace, live: Live
) -> Iterator[tuple[Node | None, bytes | None]]:
    """Yield the names of two directories, with the path in upper; `lower` is None if there is no old directory."""
    before = lower.children(old) if lower is not None else {}
    after = _children(upper, new, live)
    for name in sorted(before.keys() | after.keys()):
        pace.entry()
        yield lower.node(before[name]) if lower is not None and name in before else None, after.get(name)


def _children(upper: AnyTree, directory: Node | None, live: Live) -> dict[bytes, bytes]:
    """Paths by name of what is in `directory`, or in the root for None; nothing when it is gone."""
    for attempt in range(ATTEMPTS_TO_OPEN):
        live.pause(attempt)
        try:
            return upper.children(directory)
        except (OSError, SourceChangedError) as error:
            if directory is None or not live.allows(error):
                raise
        upper.forget()
    live.vanished += 1
    return {}


def same(lower: AnyTree, old: Node, upper: AnyTree, new: Node, options: LayerOptions) -> bool:
    """Return True if an entry of both trees is unchanged; the first test that decides wins. Spec: layer-semantics 2."""
    a, b = old.stat, new.stat
    is_indexed = isinstance(lower, IndexTree) or isinstance(upper, IndexTree)
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) and not is_indexed:
        return True
    if not old.has_facts_of(new):
        return False
    seems_same = not new.is_dir and a.st_size == b.st_size and same_mtime(a, b, options)
    if seems_same and isinstance(lower, IndexTree) and lower.stamp(old) == stamp_of(b):
        return True
    if not same_xattrs(lower, old, upper, new):
        return False
    if new.is_dir:
        return True
    if not seems_same:
        return False
    # Whole seconds, as after unpacking a layer, prove nothing: the content decides.
    return not _fraction_lost(a, b, options) or same_content(lower, old, upper, new)


def same_mtime(a: os.stat_result, b: os.stat_result, options: LayerOptions) -> bool:
    """Return True if the times of two entries that are no directories are equal, as far as they can be."""
    seconds = b.st_mtime_ns // NS_PER_SECOND
    if options.lower_has_layer_times and options.source_date_epoch is not None:
        seconds = min(seconds, options.source_date_epoch)
    if a.st_mtime_ns // NS_PER_SECOND != seconds:
        return False
    return _fraction_lost(a, b, options) or a.st_mtime_ns % NS_PER_SECOND == b.st_mtime_ns % NS_PER_SECOND


def _fraction_lost(a: os.stat_result, b: os.stat_result, options: LayerOptions) -> bool:
    """True if the fractions of the times do not decide."""
    forgiven = options.lower_has_layer_times or options.lower_lacks_fractions
    return not a.st_mtime_ns % NS_PER_SECOND and (forgiven or not b.st_mtime_ns % NS_PER_SECOND)


def same_content(lower: AnyTree, old: Node, upper: AnyTree, new: Node) -> bool:
    """Return True if two entries of one type and size have the same target or bytes."""
    if stat.S_ISLNK(new.stat.st_mode):
        return lower.target(old) == upper.target(new)
    if not stat.S_ISREG(new.stat.st_mode):
        return True
    if isinstance(lower, IndexTree):
        return _is_known_content(lower.content(old), upper, new)
    if isinstance(upper, IndexTree):
        return _is_known_content(upper.content(new), lower, old)
    return all(x == y for x, y in zip(lower.blocks(old), upper.blocks(new), strict=True))


def same_xattrs(lower: AnyTree, old: Node, upper: AnyTree, new: Node) -> bool:
    """Return True if two entries have the same values of the xattrs that the profile compares."""
    is_indexed = isinstance(lower, IndexTree) or isinstance(upper, IndexTree)
    return _xattrs(lower, old, hashed=is_indexed) == _xattrs(upper, new, hashed=is_indexed)


def _xattrs(tree: AnyTree, node: Node, *, hashed: bool) -> Mapping[bytes, bytes] | XattrDigests:
    """Return the xattrs of a node that the profile compares, or hashes of them."""
    if isinstance(tree, IndexTree):
        return tree.xattr_digests(node)
    return xattr_digests(tree.xattrs(node)) if hashed else tree.xattrs(node)


def _is_known_content(known: Fingerprint | None, tree: AnyTree, node: Node) -> bool:
    """Return True if a file has the content whose hashes an index of the other tree has; None for no content."""
    if known is None or isinstance(tree, IndexTree):
        found = tree.content(node) if isinstance(tree, IndexTree) else None
        return known is found is None or (known is not None and found is not None and known.is_same(found))
    return known.is_same(fingerprint(tree.blocks(node), sha256=known.sha256 is not None))
