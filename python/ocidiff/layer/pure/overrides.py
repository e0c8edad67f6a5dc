"""Owners and modes that fuse-overlayfs keeps in an attribute, if it is mounted with `xattr_permissions`."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import replace
from typing import Final

from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.directories import show
from ocidiff.layer.pure.faults import unsupported
from ocidiff.layer.pure.tree import Node, Tree

# The attributes, in the order in which the root of a layer is asked for one.
_KEYS: Final = (b"security.fuseoverlayfs.override_stat", b"user.fuseoverlayfs.override_stat")
_FORM: Final = re.compile(rb"([0-9]+):([0-9]+):([0-7]+)")
_MAX_VALUE: Final = (1 << 32) - 1
_TIMES: Final = ("st_atime", "st_mtime", "st_ctime", "st_atime_ns", "st_mtime_ns", "st_ctime_ns")
_OTHERS: Final = ("st_blksize", "st_blocks", "st_rdev")


def key_of(tree: Tree) -> bytes | None:
    """Return the attribute that holds the owners and modes of a layer, if its root has one."""
    return next((key for key in _KEYS if tree.xattr(b"", key) is not None), None)


def overridden(tree: Tree, node: Node, key: bytes | None) -> Node:
    """Return `node` with the owner and mode in the attribute `key`; the same without one.

    Raises:
        UnsupportedError: The value is one that fuse-overlayfs refuses too.
    """
    value = None if key is None else tree.xattr(node.path, key)
    if key is None or value is None:
        return node
    form = _FORM.fullmatch(value)
    uid, gid, mode = (int(form[1]), int(form[2]), int(form[3], 8)) if form and len(value) < 64 else (_MAX_VALUE + 1, 0, 0)
    if max(uid, gid, mode) > _MAX_VALUE:
        raise unsupported(tree.full(node.path), sentences.INVALID_ATTRIBUTE.format(key=show(key)))
    info = node.stat
    told = [stat.S_IFMT(info.st_mode) | stat.S_IMODE(mode), *info[1:10]]
    return replace(
        node, stat=os.stat_result(told, {name: getattr(info, name) for name in (*_TIMES, *_OTHERS)}), uid=uid, gid=gid
    )
