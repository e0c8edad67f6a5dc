"""The tree that overlayfs would show, resolved in plain Python: every name through every layer.

Law: the same names, metadata and contents as in a mount of the same directories (Linux, fs/overlayfs/namei.c).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final, Self

from ocidiff.errors import SourceChangedError, UnsupportedError
from ocidiff.layer.options import LayerOptions
from ocidiff.layer.pure import sentences, whiteout
from ocidiff.layer.pure.aside import Aside
from ocidiff.layer.pure.directories import join, split
from ocidiff.layer.pure.faults import source_changed, unreadable_overlay, unsupported
from ocidiff.layer.pure.live import is_same, what_changed
from ocidiff.layer.pure.overrides import key_of, overridden
from ocidiff.layer.pure.pace import Pace
from ocidiff.layer.pure.survey import GONE, NAMES, prefix_of
from ocidiff.layer.pure.tree import Node, Tree
from ocidiff.layer.xattrs import FUSE, OVERLAY, OVERLAY_USERXATTR
from ocidiff.mounts.layers import OverlayLayers

_OPAQUE_KEYS: Final = tuple(prefix + b"opaque" for prefix in (FUSE, OVERLAY, OVERLAY_USERXATTR))
_NAME_MAX: Final = 255  # linux/limits.h
_REMEMBERED: Final = 4096  # directories whose layers are not looked up again

_Part = tuple[int, bytes]  # number of a layer, path in it


@dataclass(frozen=True, slots=True)
class _Found:
    """The target of a name: its own place, that of its content, and for a directory all merged places."""

    top: tuple[int, Node]
    content: tuple[Tree, Node]
    parts: tuple[_Part, ...]


class OverlayTree:
    """The tree that an overlay shows of its layers, from number `first` on (0 is the upperdir).

    Raises:
        OverlayError: How the layers are marked cannot be known.
    """

    def __init__(self, layers: OverlayLayers, first: int, options: LayerOptions, pace: Pace) -> None:
        self._layers = layers
        self._first = first
        self._open = ExitStack()
        with ExitStack() as stack:
            below = options.of_lower
            trees = [stack.enter_context(Tree(layers.upperdir, options, pace))]
            trees += [stack.enter_context(Tree(root, below, pace)) for root in layers.lowerdirs]
            self._data = [stack.enter_context(Tree(root, below, pace)) for root in layers.datadirs]
            self._trees = trees
            self._prefix = prefix_of(trees, layers)
            self._overrides = [key_of(tree) if self._prefix == NAMES else None for tree in trees]
            devices = {os.stat(root).st_dev for root in (layers.upperdir, *layers.lowerdirs)}
            if not options.device_in_links and len(devices) > 1:
                raise unreadable_overlay(layers.upperdir, sentences.SEVERAL_FILE_SYSTEMS)
            self._open = stack.pop_all()
        self._stacks: dict[bytes, tuple[_Part, ...]] = {}
        self._last: tuple[bytes, _Found] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def forget(self) -> None:
        """See `Tree.forget`."""
        self._stacks.clear()
        self._last = None
        for tree in self._trees:
            tree.forget()

    def full(self, path: bytes) -> bytes:
        """The path in the upperdir, for messages."""
        return self._trees[self._first].full(path)

    def node(self, path: bytes) -> Node:
        """The name `path` as it is now."""
        found = self._find(path)
        if found is None:
            raise source_changed(self.full(path), sentences.VANISHED)
        return replace(found.top[1], path=path)

    def children(self, directory: Node | None) -> dict[bytes, bytes]:
        """Paths by name of what is in `directory`, or in the root for None."""
        path = directory.path if directory else b""
        names = set[bytes]()
        for layer, place in self._stack(path):
            names.update(filter(None, map(self._real_name, self._trees[layer].names(place))))
        paths = {name: join(path, name) for name in names}
        return {name: child for name, child in paths.items() if self._may_be(child)}

    def check_ids(self, node: Node) -> None:
        """See `Tree.check_ids`."""
        layer, place = self._found(node).top
        self._trees[layer].check_ids(place)

    def is_mount(self, node: Node) -> bool:
        """See `Tree.is_mount`."""
        layer, place = self._found(node).top
        return self._trees[layer].is_mount(place)

    def xattrs(self, node: Node) -> Mapping[bytes, bytes]:
        """See `Tree.xattrs`; those of fuse-overlayfs itself count as none in its layers."""
        layer, place = self._found(node).top
        found = self._trees[layer].xattrs(place)
        return {key: found[key] for key in found if self._prefix != NAMES or not key.startswith(FUSE)}

    def lost(self, node: Node) -> Counter[str]:
        """See `Tree.lost`."""
        layer, place = self._found(node).top
        return self._trees[layer].lost(
            place, (FUSE, OVERLAY, OVERLAY_USERXATTR) if self._prefix == NAMES else (self._prefix,)
        )

    def target(self, node: Node) -> bytes:
        """See `Tree.target`."""
        layer, place = self._found(node).top
        return self._trees[layer].target(place)

    def blocks(self, node: Node) -> Iterator[bytes]:
        """See `Tree.blocks`."""
        found = self._found(node)
        if not is_same(found.top[1].stat, node.stat):
            raise source_changed(self.full(node.path), what_changed(node.stat, found.top[1].stat))
        tree, place = found.content
        return tree.blocks(place)

    def take(self, node: Node) -> tuple[Node, Aside]:
        """See `Tree.take`."""
        found = self._found(node)
        tree, place = found.content
        now, content = tree.take(place)
        return replace(now if place is found.top[1] else found.top[1], path=node.path), content

    def _may_be(self, path: bytes) -> bool:
        """Return True if there is something at `path`. If it vanishes meanwhile, that is found when its turn comes."""
        try:
            return self._find(path) is not None
        except GONE:
            return True

    def _found(self, node: Node) -> _Found:
        found = self._find(node.path)
        if found is None:
            raise source_changed(self.full(node.path), sentences.VANISHED)
        return found

    def _find(self, path: bytes) -> _Found | None:
        if self._last is None or self._last[0] != path:
            parent, name = split(path)
            found = self._lookup(self._stack(parent), name)
            if found is None:
                return None
            self._last = (path, found)
        return self._last[1]

    def _stack(self, path: bytes) -> tuple[_Part, ...]:
        """The directories that are merged at `path`, top first."""
        if path not in self._stacks:
            if path:
                parent, name = split(path)
                found = self._lookup(self._stack(parent), name)
                parts = found.parts if found else ()
            else:
                parts = self._root()
            if len(self._stacks) >= _REMEMBERED:
                self._stacks.clear()
            self._stacks[path] = parts
        return self._stacks[path]

    def _root(self) -> tuple[_Part, ...]:
        parts = []
        for layer in range(self._first, len(self._trees)):
            parts.append((layer, b""))
            if self._prefix == NAMES and self._is_opaque(layer, b""):
                break
        return tuple(parts)

    def _lookup(self, stack: tuple[_Part, ...], name: bytes) -> _Found | None:
        """One name through its layers: whiteouts, masks, opaque directories, redirects, and files without their content."""
        search, wanted, hits = _Search(), name, list[tuple[int, Node]]()
        rest = list(stack)
        while rest and not search.stop:
            layer, parent = rest.pop(0)
            was_absolute = wanted.startswith(b"/")
            if was_absolute:
                node, wanted = self._walk(layer, wanted, search)
            else:
                path = join(parent, wanted)
                node = self._probe(layer, path, search)
                redirect = self._redirect(layer, node) if node and search.goes_on(node) else None
                wanted = redirect or wanted
            if node is not None:
                hits.append((layer, node))
            if wanted.startswith(b"/") and not was_absolute:
                rest = [(below, b"") for below in range(layer + 1, len(self._trees))]
        if not hits:
            return None
        content = self._data_of(wanted, hits[0]) if search.metacopy else (self._trees[hits[-1][0]], hits[-1][1])
        if stat.S_ISREG(hits[0][1].stat.st_mode) and content[1].stat.st_size != hits[0][1].stat.st_size:
            raise self._refused(hits[0], sentences.WRONG_CONTENT_SIZE)
        layer, top = hits[0]
        told = overridden(self._trees[layer], top, self._overrides[layer])
        return _Found((layer, told), content, tuple((layer, node.path) for layer, node in hits))

    def _walk(self, layer: int, wanted: bytes, search: _Search) -> tuple[Node | None, bytes]:
        """An absolute path in one layer, and what the path is for the layers below."""
        names = wanted[1:].split(b"/")
        for index, name in enumerate(names):
            above = b"/".join(names[:index])
            last = index + 1 == len(names)
            on_the_way = search if last else _Search()
            node = self._probe(layer, join(above, name), on_the_way)
            if node is None or not (last or node.is_dir):
                # Nothing there ends the look into this layer; anything that hides or masks ends all.
                search.stop |= on_the_way.stop or node is not None
                return None, wanted
            search.stop |= on_the_way.stop
            if on_the_way.goes_on(node) and (redirect := self._redirect(layer, node)):
                after = b"".join(b"/" + rest for rest in names[index + 1 :])
                if redirect.startswith(b"/"):
                    wanted, search.stop = redirect + after, False
                else:
                    wanted = b"/" + join(above, redirect) + after
            if last:
                return node, wanted
        return None, wanted

    def _probe(self, layer: int, path: bytes, search: _Search) -> Node | None:
        """Look one layer up at `path`; `search` learns how to go on."""
        parent, name = split(path)
        if self._prefix == NAMES:
            if name.startswith(whiteout.PREFIX):
                return None
            # It hides what the same layer has under the name, too. Long names have none.
            hiding = whiteout.PREFIX + name
            if len(hiding) <= _NAME_MAX and self._exists(layer, join(parent, hiding)) is not None:
                search.stop = True
                return None
        node = self._exists(layer, path)
        if node is None:
            return None
        mode = node.stat.st_mode
        is_regular, bottom = stat.S_ISREG(mode), layer + 1 == len(self._trees)
        hidden = stat.S_ISCHR(mode) and node.stat.st_rdev == 0
        if is_regular and self._prefix and node.stat.st_size == 0:
            hidden = self._mark(layer, node, b"whiteout") is not None
        if hidden or (search.metacopy and not is_regular) or (search.is_dir and not node.is_dir):
            search.stop = True
            return None
        if node.is_dir:
            search.is_dir = True
            search.opaque = not bottom and self._is_opaque(layer, path)
            search.bottom = bottom
            search.stop |= search.opaque
        else:
            search.metacopy = bool(is_regular and self._prefix and self._mark(layer, node, b"metacopy") is not None)
            search.stop |= not search.metacopy
        return node

    def _exists(self, layer: int, path: bytes) -> Node | None:
        try:
            return self._trees[layer].node(path)
        except (FileNotFoundError, SourceChangedError):
            return None

    def _is_opaque(self, layer: int, path: bytes) -> bool:
        tree = self._trees[layer]
        if self._prefix:
            return tree.xattr(path, self._prefix + b"opaque") == b"y"
        if self._exists(layer, join(path, whiteout.OPAQUE)) is not None:
            return True
        return any(tree.xattr(path, key) == b"y" for key in _OPAQUE_KEYS)

    def _mark(self, layer: int, node: Node, what: bytes) -> bytes | None:
        return self._trees[layer].xattr(node.path, self._prefix + what)

    def _redirect(self, layer: int, node: Node) -> bytes | None:
        value = self._mark(layer, node, b"redirect") if self._prefix else None
        if value is None:
            return None
        if node.is_dir and not (self._layers.redirects and self._prefix == OVERLAY):
            raise self._refused((layer, node), sentences.UNFOLLOWED_REDIRECT)
        value = value.removesuffix(b"\0")
        names = value.removeprefix(b"/").split(b"/")
        if {b"", b".", b".."} & set(names) or b"\0" in value or (len(names) > 1 and not value.startswith(b"/")):
            raise self._refused((layer, node), sentences.INVALID_REDIRECT)
        return value

    def _data_of(self, wanted: bytes, top: tuple[int, Node]) -> tuple[Tree, Node]:
        for tree in self._data if wanted.startswith(b"/") else ():
            try:
                node = tree.node(wanted[1:])
            except SourceChangedError:
                continue
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                continue
            if stat.S_ISREG(node.stat.st_mode):
                return tree, node
        raise unsupported(self._trees[top[0]].full(top[1].path), sentences.NO_CONTENT)

    def _refused(self, where: tuple[int, Node], cause: str) -> UnsupportedError:
        path = self._trees[where[0]].full(where[1].path)
        return unsupported(path, sentences.OVERLAY_MARK.format(cause=cause))

    def _real_name(self, name: bytes) -> bytes | None:
        """The name that an entry of a layer speaks of."""
        if self._prefix or not name.startswith(whiteout.PREFIX):
            return name
        hidden = name.removeprefix(whiteout.PREFIX)
        return None if name.startswith(whiteout.META_PREFIX) or hidden in (b"", b".", b"..") else hidden


@dataclass(slots=True)
class _Search:
    """The state of a lookup on its way down the layers."""

    is_dir: bool = False
    metacopy: bool = False
    stop: bool = False
    opaque: bool = False
    bottom: bool = False

    def goes_on(self, node: Node) -> bool:
        """Return True if the last redirect of `node` counts."""
        return not (self.opaque or self.bottom) if node.is_dir else self.metacopy
