"""Sizes of the directories of an image, from the model of its tree. Memory is bounded, whatever the tree."""

from __future__ import annotations

import stat
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ocidiff.image.rootfs import Stored
from ocidiff.largest import Largest
from ocidiff.layer.pure.sketch import Inode

GROUPS: Final = 8
"""Layers are told apart by so many colours: the largest have their own, all others share the last."""
_DEEPEST: Final = 12
_PARTS: Final = 1000
_LARGEST: Final = 50


@dataclass(slots=True)
class Node:
    """A directory or a file that is large enough to be shown, or what is left of a directory.

    Attributes:
        name: Its name, or several with slashes if nothing else is in the upper ones; empty for the rest of a directory.
        files: Files with content in it.
        groups: Bytes of content, by group of layers.
        is_directory: True for a directory.
        children: What is in it, largest first.
    """

    name: bytes
    files: int
    groups: list[int]
    is_directory: bool
    children: list[Node] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(self.groups)


@dataclass(slots=True)
class _Open:
    """A directory that is being read."""

    name: bytes
    children: Iterator[tuple[bytes, Inode]]
    node: Node


class Contents:
    """The files of a tree with content, each once, however many names it has.

    Attributes:
        sizes: Bytes of content, by layer.
    """

    def __init__(self, root: Inode) -> None:
        self.sizes = Counter[int]()
        self._root = root
        self._offsets: dict[int, array[int]] = {}
        todo, linked = [root], set[int]()
        while todo:
            for child in todo.pop().children.values():
                inode = child.inode
                if inode.is_dir:
                    todo.append(inode)
                    continue
                stored = _first(inode, linked)
                if stored is not None:
                    self.sizes[stored.layer] += inode.size
                    self._offsets.setdefault(stored.layer, array("Q")).append(inode.origin[1])

    def offsets(self, layer: int) -> frozenset[int]:
        """Return where the entries of these files begin in the tar of a layer."""
        return frozenset(self._offsets.get(layer, ()))

    def tree(self, group_of: Sequence[int]) -> tuple[Node, list[tuple[int, bytes, int]]]:
        """Return the large directories and files, and the largest files: size, path and layer.

        Args:
            group_of: The group of each layer, from layer 1 on.
        """
        least = max(1, sum(self.sizes.values()) // _PARTS)
        largest = Largest[tuple[int, bytes, int]](_LARGEST)
        top, linked = _open(b"", self._root), set[int]()
        way = [top]
        while way:
            here = way[-1]
            name, inode = next(here.children, (b"", None))
            if inode is None:
                way.pop()
                if way:
                    _close(way[-1].node, here.node, least, is_shown=len(way) <= _DEEPEST)
            elif inode.is_dir:
                way.append(_open(name, inode))
            elif (stored := _first(inode, linked)) is not None:
                group = group_of[stored.layer - 1]
                here.node.files += 1
                here.node.groups[group] += inode.size
                if inode.size >= least and len(way) <= _DEEPEST:
                    file = Node(name, 1, [0] * GROUPS, is_directory=False)
                    file.groups[group] = inode.size
                    here.node.children.append(file)
                # Most files are too small, so their paths are not joined.
                if (bound := largest.bound) is None or inode.size >= bound[0]:
                    largest.add((inode.size, b"/".join([*(one.name for one in way), name]), stored.layer))
        _settle(top.node)
        return top.node, sorted(largest.kept, key=lambda one: (-one[0], one[1]))


def _first(inode: Inode, linked: set[int]) -> Stored | None:
    """Return where the content of a file is; None if it has none, or was met under another name."""
    if inode.kind != stat.S_IFREG or not isinstance(inode.stored, Stored):
        return None
    if inode.is_linked:
        if id(inode) in linked:
            return None
        linked.add(id(inode))
    return inode.stored


def _open(name: bytes, directory: Inode) -> _Open:
    children = ((key, child.inode) for key, child in sorted(directory.children.items()))
    return _Open(name, children, Node(name, 0, [0] * GROUPS, is_directory=True))


def _close(parent: Node, node: Node, least: int, *, is_shown: bool) -> None:
    """Add what is in a directory to the one above."""
    parent.files += node.files
    parent.groups = [sum(both) for both in zip(parent.groups, node.groups, strict=True)]
    if is_shown and node.size >= least:
        _settle(node)
        parent.children.append(node)


def _settle(node: Node) -> None:
    """Put the children of a directory in order, and add the rest as one more."""
    node.children.sort(key=lambda child: (-child.size, child.name))
    if len(node.children) == 1 and node.children[0].size == node.size and node.name and node.children[0].is_directory:
        only = node.children[0]
        node.name, node.children = node.name + b"/" + only.name, only.children
        return
    groups = [size - sum(child.groups[group] for child in node.children) for group, size in enumerate(node.groups)]
    if node.children and any(groups):
        files = node.files - sum(child.files for child in node.children)
        node.children.append(Node(b"", files, groups, is_directory=False))
