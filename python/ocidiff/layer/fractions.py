"""Tell if a parent tree has lost its fractions of a second, as a tree that was unpacked from layers has.

Decision: docs/decisions/0084-fractions-of-a-second.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from ocidiff import access
from ocidiff.errors import IndexFileError
from ocidiff.layer.engine import Lower, Upper
from ocidiff.layer.layer import IndexPath
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions, Profile
from ocidiff.log import Logger
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.oci.timestamp import NS_PER_SECOND
from ocidiff.walk import Cursor

if TYPE_CHECKING:
    from ocidiff.layer.pure.index_tree import IndexTree

# Few trees have only whole seconds by chance. If a small one does, contents are compared: slower, never wrong.
_SAMPLE_FILES: Final = 256
_SAMPLE_NAMES: Final = 1024
_log = Logger(__name__)


def with_lower_times(options: LayerOptions, lower: Lower | None, upper: Upper) -> LayerOptions:
    """Return the options with `lower_lacks_fractions`, if the profile is `oci` and the parent tree has whole seconds.

    The profile `containerd` counts fractions as containerd does. A warning then says so, if files differ in nothing else.
    """
    if options.lower_has_layer_times:
        return options
    try:
        lacks = _lacks_fractions(lower, upper)
        if lacks and options.profile is Profile.CONTAINERD:
            _warn(lower, upper)
    except (OSError, IndexFileError):
        # The comparison meets the same failure, and says which tree it is in.
        return options
    return replace(options, lower_lacks_fractions=lacks and options.profile is Profile.OCI)


def _lacks_fractions(lower: Lower | None, upper: Upper) -> bool:
    if isinstance(upper, OverlayLayers):
        return all(_all_whole(_files(tree)) for tree in upper.lowerdirs)
    if isinstance(lower, IndexPath):
        return _index_lacks_fractions(lower)
    return lower is not None and _all_whole(_files(lower))


def _index_lacks_fractions(index: IndexPath) -> bool:
    from ocidiff.layer.indexer import layers_of
    from ocidiff.layer.pure.index_tree import IndexTree
    from ocidiff.layer.pure.pace import Pace

    if layers_of(index) is not None:
        return True
    with IndexTree(index.path, Profile.OCI, Pace(Monitor())) as tree:
        return _all_whole(_indexed_files(tree))


def _indexed_files(tree: IndexTree) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield what `_files` yields of the tree that was indexed."""
    pending, left = [_first(list(tree.children(None).values()))], _SAMPLE_NAMES
    while pending and left:
        if not pending[-1]:
            pending.pop()
            continue
        left -= 1
        node = tree.node(pending[-1].pop())
        if not node.is_dir:
            yield node.path, node.stat
        elif not tree.is_mount(node):
            pending.append(_first(list(tree.children(node).values())))


def _all_whole(files: Iterator[tuple[bytes, os.stat_result]]) -> bool:
    return not any(info.st_mtime_ns % NS_PER_SECOND for _, info in islice(files, _SAMPLE_FILES))


def _files(tree: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield path and lstat of the first names of a tree that are no directories, in the order of their bytes."""
    with Cursor(tree) as cursor:
        device = os.fstat(cursor.fd).st_dev
        pending, left = [_first(cursor.listing())], _SAMPLE_NAMES
        while pending and left:
            if not pending[-1]:
                pending.pop()
                if pending:
                    cursor.leave()
                continue
            left -= 1
            name = pending[-1].pop()
            info = access.lstat(name, cursor.fd)
            if not stat.S_ISDIR(info.st_mode):
                yield cursor.path(name), info
            elif info.st_dev == device:
                cursor.enter(name)
                pending.append(_first(cursor.listing()))


def _first(names: Sequence[bytes]) -> list[bytes]:
    """Return the names that a sample can come to, the last one first."""
    return sorted(names)[:_SAMPLE_NAMES][::-1]


def _warn(lower: Lower | None, upper: Upper) -> None:
    if not isinstance(lower, bytes) or not isinstance(upper, bytes):
        return
    seen = lost = 0
    for path, old in islice(_files(lower), _SAMPLE_FILES):
        try:
            new = os.lstat(os.path.join(upper, path))
        except FileNotFoundError:
            continue
        seen += 1
        lost += _differ_in_fraction(old, new)
    if lost:
        _log.warning(
            "%d of the first %d files differ from the lower tree in a fraction of a second, which it lacks; "
            "profile containerd counts that as a change, profile oci compares the contents",
            lost,
            seen,
        )


def _differ_in_fraction(old: os.stat_result, new: os.stat_result) -> bool:
    facts = [
        (info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns // NS_PER_SECOND) for info in (old, new)
    ]
    return facts[0] == facts[1] and bool(new.st_mtime_ns % NS_PER_SECOND)
