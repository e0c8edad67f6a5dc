"""The verb squash: several layers become one. Spec: image-spec layer.md, "Applying Changesets".

Law: the new layer does to a base what the layers do to it one after another. Layers are read twice: first for the model of
the tree that they make, then for the contents that are left of each.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Self

from ocidiff.frozen import FrozenMapping
from ocidiff.layer.layer import LayerMeasure
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions
from ocidiff.layer.pure import sentences, tar, whiteout
from ocidiff.layer.pure.aside import AsideFile
from ocidiff.layer.pure.directories import join, split
from ocidiff.layer.pure.faults import malformed, unrepresentable
from ocidiff.layer.pure.pace import Pace
from ocidiff.layer.pure.sketch import Inode, Sketch
from ocidiff.layer.pure.stream import BlobReader, BlobWriter
from ocidiff.layer.pure.tar_reader import Hole, TarReader, filled
from ocidiff.layer.squash import SquashSummary
from ocidiff.oci.timestamp import NS_PER_SECOND

_MOST_OPEN: Final = 4  # layers that are decompressed at the same time; the contents of others are set aside first
_TYPES: Final = {
    stat.S_IFREG: tar.REGULAR,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFIFO: tar.FIFO,
}

_Wanted = dict[int, int]
"""Sizes of the files of a layer whose content is left, by where their entries begin."""


class PureSquash:
    """See `Squash`."""

    def __init__(self, *, onto_base: bool) -> None:
        self._sketch = Sketch(for_layer=True, onto_base=onto_base)
        self._onto_base = onto_base
        self._limits: list[Limits] = []

    def add(self, source: int, limits: Limits, monitor: Monitor) -> LayerMeasure:
        """See `Squash.add`."""
        pace = Pace(monitor)
        self._limits.append(limits)
        self._sketch.next_layer()
        blob = BlobReader(source, limits, pace)
        archive = TarReader(blob, limits)
        for entry in archive.entries():
            pace.entry()
            self._sketch.apply(entry)
        self._sketch.end_layer()
        blob.drain()
        pace.report()
        return LayerMeasure(blob.digest, blob.size, blob.diff_id, blob.plain_size, archive.holes, archive.count)

    def content_bytes(self) -> list[int]:
        """See `Squash.content_bytes`."""
        return [sum(wanted.values()) for wanted in self._wanted()]

    def write(self, sources: Sequence[int | None], sink: int, options: LayerOptions, monitor: Monitor) -> SquashSummary:
        """See `Squash.write`."""
        pace, entries, whiteouts = Pace(monitor), 0, 0
        blob = BlobWriter(sink, options.compression, options.level, pace)
        with _Contents(sources, self._wanted(), self._limits, options.spool, monitor) as contents:
            for header, inode in self._entries():
                pace.entry()
                blob.write(tar.encode(header))
                entries += 1
                whiteouts += split(header.path)[1].startswith(whiteout.PREFIX)
                if inode is not None and header.size:
                    for block in contents.of(inode):
                        blob.write(block)
                    blob.write(tar.padding(header.size))
        blob.write(tar.END)
        blob.finish()
        pace.report()
        lost = FrozenMapping(self._sketch.lost)
        return SquashSummary(blob.digest, blob.size, blob.diff_id, blob.plain_size, entries, whiteouts, lost)

    def _wanted(self) -> list[_Wanted]:
        wanted: list[_Wanted] = [{} for _ in self._limits]
        todo = [self._sketch.root]
        while todo:
            for child in todo.pop().children.values():
                inode = child.inode
                if inode.is_dir:
                    todo.append(inode)
                elif inode.kind == stat.S_IFREG and inode.size:
                    layer, offset = inode.origin
                    wanted[layer - 1][offset] = inode.size
        return wanted

    def _entries(self) -> Iterator[tuple[tar.Header, Inode | None]]:
        """The entries in walk order, each with the file whose content it has."""
        root, first = self._sketch.root, dict[int, bytes]()
        if root.is_described:
            yield _header(b".", root), None
        if self._onto_base and root.is_opaque:
            yield _mark(whiteout.OPAQUE), None
        todo = [(b"", root, _names(root))]
        while todo:
            parent, directory, names = todo[-1]
            name = next(names, None)
            if name is None:
                todo.pop()
                continue
            path = join(parent, name)
            if name in directory.hidden:
                yield _mark(whiteout.whiteout_of(path)), None
                continue
            inode = directory.children[name].inode
            if inode.is_described and name.startswith(whiteout.PREFIX):
                raise unrepresentable(path, sentences.NAME_OF_WHITEOUT)
            source = first.setdefault(id(inode), path) if inode.is_linked else path
            if source != path:
                yield _link(_header(path, inode), source), None
            elif inode.is_described:
                yield _header(path, inode), inode
            if inode.is_dir:
                if inode.is_opaque and not directory.is_opaque:
                    yield _mark(join(path, whiteout.OPAQUE)), None
                todo.append((path, inode, _names(inode)))


def _names(directory: Inode) -> Iterator[bytes]:
    """The names in a directory, and those that are gone, in walk order."""
    return iter(sorted([*directory.children, *directory.hidden]))


def _mark(path: bytes) -> tar.Header:
    return tar.Header(path, tar.REGULAR)


def _link(header: tar.Header, source: bytes) -> tar.Header:
    return replace(header, type=tar.HARD_LINK, linkname=source, size=0)


def _header(path: bytes, inode: Inode) -> tar.Header:
    """The entry of a file as if it had no other name."""
    kind = _TYPES[inode.kind]
    is_device = kind in (tar.CHARACTER, tar.BLOCK)
    return tar.Header(
        path,
        kind,
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        size=inode.size if kind == tar.REGULAR else 0,
        mtime=inode.mtime_ns // NS_PER_SECOND,
        linkname=inode.target,
        device=(os.major(inode.rdev), os.minor(inode.rdev)) if is_device else (0, 0),
        xattrs=inode.told_xattrs(),
    )


class _Contents:
    """Hands out the contents of files in any order, from layers that are read once each.

    What stands before the file that is asked for is set aside in a file without a name, if it is still wanted. Layers in
    walk order set nothing aside.

    Args:
        sources: File descriptor of each layer; None for one of which nothing is wanted.
        wanted: What is wanted of each layer.
        limits: What each layer may not pass.
        spool: Directory of the file; None for that of temporary files.
        monitor: Stops the call.
    """

    def __init__(
        self,
        sources: Sequence[int | None],
        wanted: Sequence[_Wanted],
        limits: Sequence[Limits],
        spool: str | None,
        monitor: Monitor,
    ) -> None:
        self._pace = Pace(Monitor(cancel=monitor.cancel))
        self._wanted = wanted
        self._archives = [
            None if source is None else TarReader(BlobReader(source, one, self._pace), one)
            for source, one in zip(sources, limits, strict=True)
        ]
        self._entries = [iter(()) if archive is None else archive.entries() for archive in self._archives]
        self._aside = AsideFile(spool)
        self._positions: dict[tuple[int, int], int] = {}  # of what was set aside

    def __enter__(self) -> Self:
        by_size = sorted(range(len(self._wanted)), key=lambda layer: -sum(self._wanted[layer].values()))
        for layer in by_size[_MOST_OPEN:]:
            self._read_to(layer, None)
            self._archives[layer], self._entries[layer] = None, iter(())
        return self

    def __exit__(self, *_: object) -> None:
        self._aside.close()

    def of(self, inode: Inode) -> Iterator[bytes]:
        """The content of a file in blocks; holes are zeros."""
        layer, offset = inode.origin
        position = self._positions.get((layer - 1, offset))
        if position is not None:
            return self._aside.blocks(position, inode.size)
        return filled(self._read_to(layer - 1, offset))

    def _read_to(self, layer: int, offset: int | None) -> Iterator[bytes | Hole]:
        """Read a layer up to the entry there, or to its end, and give the data of the entry."""
        archive, wanted = self._archives[layer], self._wanted[layer]
        for entry in self._entries[layer]:
            self._pace.check()
            size = wanted.get(entry.offset)
            if size is None or archive is None:
                continue
            if (entry.type, entry.size) != (tar.REGULAR, size):
                raise malformed(entry.offset, sentences.LAYER_CHANGED)
            if entry.offset == offset:
                return archive.data()
            self._positions[layer, entry.offset] = self._aside.add(filled(archive.data()))
        if offset is not None:
            raise malformed(offset, sentences.LAYER_CHANGED)
        return iter(())
