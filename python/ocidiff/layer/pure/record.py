"""From events to tar entries: parents first, hard links after their source, whiteouts. Spec: layer-semantics 3 to 5."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ocidiff.errors import SourceChangedError, UnsupportedError
from ocidiff.layer.layer import ChangeKind, Profile
from ocidiff.layer.pure import tar, whiteout
from ocidiff.layer.pure.change import Event, RealTree
from ocidiff.layer.pure.directories import show, split
from ocidiff.layer.pure.stream import BlobWriter
from ocidiff.layer.pure.tree import Node

_NANOSECONDS: Final = 10**9
_TYPES: Final = {
    stat.S_IFREG: tar.REGULAR,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFIFO: tar.FIFO,
}


class Recorder:
    """Writes the entries that the events ask for.

    Attributes:
        entries: Tar entries written.
        sockets: Changed sockets, which no tar can hold.
    """

    def __init__(self, upper: RealTree, blob: BlobWriter, profile: Profile, source_date_epoch: int | None) -> None:
        self._upper = upper
        self._blob = blob
        self._profile = profile
        self._latest_ns = None if source_date_epoch is None else source_date_epoch * _NANOSECONDS
        self._written: set[bytes] = set()  # directories
        self._source: dict[tuple[int, int], bytes] = {}  # inode -> the name that carried its data
        self._waiting: dict[tuple[int, int], list[bytes]] = {}  # inode -> unchanged names seen before any source
        self.entries = 0
        self.sockets = 0

    def record(self, event: Event) -> None:
        """Write what `event` asks for."""
        if event.node is not None:
            self._record(event.node, changed=event.kind is not None)
        elif event.kind is ChangeKind.DELETE:
            self._put(tar.Header(whiteout.whiteout_of(event.path), tar.REGULAR))

    def finish(self) -> None:
        """Write the end of the archive."""
        self._blob.write(tar.END)
        self._blob.finish()

    def _record(self, node: Node, *, changed: bool) -> None:
        """One name of upper. Spec: layer-semantics 5.1."""
        if stat.S_ISSOCK(node.stat.st_mode):
            self.sockets += changed
            return
        source, links = None, []
        if not node.is_dir and node.stat.st_nlink > 1:
            inode = self._inode(node.stat)
            source = self._source.get(inode)
            if source is None and not changed:
                self._waiting.setdefault(inode, []).append(node.path)
                return
            if source is None:
                self._source[inode] = node.path
                links = self._waiting.pop(inode, [])
        elif not changed:
            return
        header = self._header(node)
        if source is not None:
            header = _link(header, node.path, source)
        self._refuse_whiteout_name(node.path)
        self._put(header, node)
        for name in links:
            self._refuse_whiteout_name(name)
            self._put(_link(header, name, node.path))

    def _put(self, header: tar.Header, node: Node | None = None) -> None:
        """Write the ancestors that are not written yet, the entry, and its data. Spec: layer-semantics 4."""
        for directory in _ancestors(header.path):
            if directory not in self._written:
                self._written.add(directory)
                parent = self._upper.node(directory)
                if not parent.is_dir:
                    raise SourceChangedError(f"{show(self._upper.full(directory))}: changed while it was read")
                self._record(parent, changed=True)
        try:
            self._blob.write(tar.encode(header))
        except UnsupportedError as error:
            raise UnsupportedError(f"{show(self._upper.full(header.path))}: {error}") from error
        self.entries += 1
        if header.type == tar.DIRECTORY:
            self._written.add(header.path)
        if node is not None and header.size:
            for block in self._upper.blocks(node):
                self._blob.write(block)
            self._blob.write(tar.padding(header.size))

    def _header(self, node: Node) -> tar.Header:
        """The entry of `node` as if it had no other name."""
        facts = node.stat
        kind = _TYPES[stat.S_IFMT(facts.st_mode)]
        mtime_ns = facts.st_mtime_ns if self._latest_ns is None else min(facts.st_mtime_ns, self._latest_ns)
        is_device = kind in (tar.CHARACTER, tar.BLOCK)
        return tar.Header(
            node.path,
            kind,
            mode=stat.S_IMODE(facts.st_mode),
            uid=node.uid,
            gid=node.gid,
            size=facts.st_size if kind == tar.REGULAR else 0,
            mtime=mtime_ns // _NANOSECONDS,
            linkname=self._upper.target(node) if kind == tar.SYMLINK else b"",
            device=(os.major(facts.st_rdev), os.minor(facts.st_rdev)) if is_device else (0, 0),
            xattrs=self._upper.xattrs(node),
        )

    def _inode(self, facts: os.stat_result) -> tuple[int, int]:
        """What makes two names one file; containerd takes the number alone. Spec: layer-semantics 5, "Key"."""
        return (0 if self._profile is Profile.CONTAINERD else facts.st_dev, facts.st_ino)

    def _refuse_whiteout_name(self, path: bytes) -> None:
        if self._profile is Profile.OCI and split(path)[1].startswith(whiteout.PREFIX):
            raise UnsupportedError(f"{show(self._upper.full(path))}: a name that begins with .wh. would read as a deletion")


def _link(header: tar.Header, path: bytes, source: bytes) -> tar.Header:
    """The entry that makes `path` another name of `source`, with the metadata repeated."""
    return replace(header, path=path, type=tar.HARD_LINK, linkname=source, size=0)


def _ancestors(path: bytes) -> Iterator[bytes]:
    """The directories above `path`, top first, without the root."""
    end = path.find(b"/")
    while end >= 0:
        yield path[:end]
        end = path.find(b"/", end + 1)
