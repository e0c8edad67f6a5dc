"""From events to tar entries: parents first, hard links after their source, whiteouts. Spec: layer-semantics 3 to 5."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Final

from ocidiff.errors import SourceChangedError
from ocidiff.layer.layer import ChangeKind
from ocidiff.layer.options import LayerOptions, Profile
from ocidiff.layer.pure import sentences, tar, whiteout
from ocidiff.layer.pure.aside import Aside
from ocidiff.layer.pure.change import Event, RealTree
from ocidiff.layer.pure.directories import split
from ocidiff.layer.pure.faults import source_changed, unrepresentable
from ocidiff.layer.pure.live import ATTEMPTS, Live, has_grown, is_same
from ocidiff.layer.pure.partition import Partition
from ocidiff.layer.pure.stream import BlobWriter
from ocidiff.layer.pure.tree import Node
from ocidiff.oci.timestamp import NS_PER_SECOND

_TYPES: Final = {
    stat.S_IFREG: tar.REGULAR,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFIFO: tar.FIFO,
}

_Taken = tuple[Node, tar.Header, Counter[str], Aside | None]


class Recorder:
    """Writes the entries that the events ask for, to one layer or to several; a layer without a blob is left out.

    Attributes:
        at: Number of the layer of the current event.
        entries: Tar entries written to each layer.
        placement: Hash of which names are one file, and which files are large, if there are several layers.
        sockets: Changed sockets, which no tar can hold.
        lost: Attributes of the entries that the profile does not store, those of a file once, by namespace.
    """

    def __init__(self, upper: RealTree, blobs: Sequence[BlobWriter | None], options: LayerOptions, live: Live) -> None:
        self._upper = upper
        self._blobs = blobs
        self._partition = Partition(len(blobs))
        self._profile = options.profile
        self._device_in_links = options.device_in_links
        latest = options.source_date_epoch
        self._latest_ns = None if latest is None else latest * NS_PER_SECOND
        self._live = live
        self._written: list[set[bytes]] = [set() for _ in blobs]  # directories of each layer
        # inode -> the name that carried its data, its layer, and its entry where it is not as the walk saw it
        self._source: dict[tuple[int, int], tuple[bytes, int, tar.Header | None]] = {}
        self._waiting: dict[tuple[int, int], list[bytes]] = {}  # inode -> unchanged names seen before any source
        self.at = 0
        self.entries = [0] * len(blobs)
        self.placement = hashlib.sha256()
        self.sockets = 0
        self.lost: Counter[str] = Counter()

    def record(self, event: Event) -> ChangeKind | None:
        """Write what `event` asks for; what happened in the end, as a name may have vanished. Spec: layer-semantics 5.1."""
        node, kind = event.node, event.kind
        self.at = self._layer_of(event)
        if node is None:
            return kind if self._put(tar.Header(whiteout.whiteout_of(event.path), tar.REGULAR)) else None
        if stat.S_ISSOCK(node.stat.st_mode):
            self.sockets += kind is not None
            return kind
        has_links = not node.is_dir and node.stat.st_nlink > 1
        inode = self._inode(node.stat)
        source = self._source.get(inode) if has_links else None
        if has_links:
            self._check_linked_name(node.path)
            if source is not None:
                # All names of a file are in one layer.
                self.at = source[1]
            if len(self._blobs) > 1:
                self.placement.update(node.path + b"\0" + (b"" if source is None else source[0]) + b"\0")
        if kind is None and source is None:
            if has_links:
                self._waiting.setdefault(inode, []).append(node.path)
            return None
        taken = self._take(node, with_content=source is None and self._blobs[self.at] is not None)
        if taken is None:
            return self._gone(event)
        now, header, lost, content = taken
        with nullcontext() if content is None else content:
            if stat.S_ISSOCK(now.stat.st_mode):
                self.sockets += 1
                return kind
            if source is not None:
                header = _link(source[2] or header, node.path, source[0])
            self._check_name(node.path)
            if not self._put(header, now, content):
                return None
            if source is None:
                self.lost.update(lost)
        if has_links and source is None and self._inode(now.stat) == inode:
            self._source[inode] = (node.path, self.at, None if is_same(now.stat, node.stat) else header)
            for name in self._waiting.pop(inode, []):
                self._check_name(name)
                self._put(_link(header, name, node.path))
        return kind

    def _layer_of(self, event: Event) -> int:
        """Return the layer of an event. The path of a large file is hashed too."""
        node = event.node
        if node is not None and node.is_dir:
            return self._partition.of_directories
        size = node.stat.st_size if node is not None and stat.S_ISREG(node.stat.st_mode) else 0
        if event.kind is not None and self._partition.is_large(size):
            self.placement.update(event.path + bytes(3))
        return self._partition.of(event.path, size)

    def finish(self) -> None:
        """Write the ends of the archives."""
        for blob in self._blobs:
            if blob is not None:
                blob.write(tar.END)
                blob.finish()

    def _take(self, node: Node, *, with_content: bool) -> _Taken | None:
        """Return the file that has the name of `node` now; None if it is gone.

        With its entry, the attributes that are left out, and its content where it may change.

        Raises:
            SourceChangedError: It never rests.
        Spec: layer-semantics 7.
        """
        if not self._live.retries:
            return node, self._header(node), self._upper.lost(node), None
        now = node
        for attempt in range(ATTEMPTS):
            self._live.pause(attempt)
            content = None
            with ExitStack() as stack:
                try:
                    if attempt:
                        self._upper.forget()
                        now = self._upper.node(node.path)
                        self._upper.check_ids(now)
                    if now.is_dir != node.is_dir:
                        return None
                    if with_content and stat.S_ISREG(now.stat.st_mode) and now.stat.st_size:
                        now, content = self._upper.take(now)
                        stack.enter_context(content)
                    header, lost = self._header(now), self._upper.lost(now)
                    if is_same(now.stat, node.stat) or self._is_still(now):
                        self._live.retried += attempt == 0 and not is_same(now.stat, node.stat)
                        stack.pop_all()
                        return now, header, lost, content
                except (OSError, SourceChangedError) as error:
                    if not self._live.allows(error):
                        raise
                    if self._is_gone(node.path):
                        return None
            self._live.retried += attempt == 0
        raise source_changed(self._upper.full(node.path), sentences.NEVER_RESTED)

    def _is_still(self, node: Node) -> bool:
        """Return True if a name still has the file whose attributes were read, except for bytes appended to it."""
        self._upper.forget()
        found = self._upper.node(node.path).stat
        return is_same(found, node.stat) or has_grown(node.stat, found)

    def _is_gone(self, path: bytes) -> bool:
        self._upper.forget()
        try:
            self._upper.node(path)
        except (OSError, SourceChangedError) as error:
            if self._live.allows(error):
                return True
            raise
        return False

    def _gone(self, event: Event) -> ChangeKind | None:
        """Say of a name that was seen that it is gone."""
        self._live.vanished += 1
        if event.kind is not ChangeKind.MODIFY:
            return None
        return ChangeKind.DELETE if self._put(tar.Header(whiteout.whiteout_of(event.path), tar.REGULAR)) else None

    def _put(self, header: tar.Header, node: Node | None = None, content: Aside | None = None) -> bool:
        """Write the ancestors that are not written yet, the entry, and its data; whether all were there.

        Spec: layer-semantics 4.
        """
        for directory in self._unwritten(header.path):
            if not self._parent(directory):
                return False
        if header.type == tar.CHARACTER and header.device == (0, 0):
            raise unrepresentable(header.path, sentences.UNWRITABLE_DEVICE)
        if header.type == tar.DIRECTORY:
            self._put_directory(header)
            return True
        blob = self._blobs[self.at]
        if blob is None:
            return True
        blob.write(tar.encode(header))
        self.entries[self.at] += 1
        if node is not None and header.size:
            for block in self._upper.blocks(node) if content is None else content.blocks():
                blob.write(block)
            blob.write(tar.padding(header.size))
        return True

    def _put_directory(self, header: tar.Header) -> None:
        """Write a directory to the current layer, and to that of all directories."""
        encoded = tar.encode(header)
        of_all = self._partition.of_directories
        for number in {self.at, of_all}:
            if header.path in self._written[number]:
                continue
            self._written[number].add(header.path)
            blob = self._blobs[number]
            if blob is not None:
                blob.write(encoded if number == of_all else tar.encode(replace(header, mtime=0)))
                self.entries[number] += 1

    def _unwritten(self, path: bytes) -> list[bytes]:
        """The directories above `path` that are not written yet, top first; those above a written one are."""
        found = []
        above = split(path)[0]
        while above and above not in self._written[self.at]:
            found.append(above)
            above = split(above)[0]
        return found[::-1]

    def _parent(self, path: bytes) -> bool:
        """Write a directory above an entry; false when it is gone, and so is what was in it."""
        try:
            directory = self._upper.node(path)
            if not directory.is_dir:
                raise source_changed(self._upper.full(path), sentences.REPLACED)
            header, lost = self._header(directory), self._upper.lost(directory)
        except (OSError, SourceChangedError) as error:
            if not self._live.allows(error):
                raise
            self._live.vanished += 1
            return False
        self._check_name(path)
        if path not in self._written[self._partition.of_directories]:
            self.lost.update(lost)
        return self._put(header)

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
            mtime=mtime_ns // NS_PER_SECOND,
            linkname=self._upper.target(node) if kind == tar.SYMLINK else b"",
            device=(os.major(facts.st_rdev), os.minor(facts.st_rdev)) if is_device else (0, 0),
            xattrs=self._upper.xattrs(node),
        )

    def _inode(self, facts: os.stat_result) -> tuple[int, int]:
        """Return the key that the names of one file share; containerd takes the inode. Spec: layer-semantics 5, "Key"."""
        return (facts.st_dev if self._device_in_links else 0, facts.st_ino)

    def _check_name(self, path: bytes) -> None:
        """Refuse a name that a reader of the layer would take for something else."""
        name = split(path)[1]
        if not name.startswith(whiteout.PREFIX):
            return
        if name.removeprefix(whiteout.PREFIX) in (b"", b".", b".."):
            raise unrepresentable(path, sentences.NAME_OF_WHITEOUT_OF_NOTHING)
        if self._profile is Profile.OCI:
            raise unrepresentable(path, sentences.NAME_OF_WHITEOUT)

    def _check_linked_name(self, path: bytes) -> None:
        """Refuse a name of a file with several names that no hard link can lead to, since a reader leaves it out."""
        *above, name = path.split(b"/")
        is_below_mark = any(part.startswith(whiteout.META_PREFIX) and part != whiteout.OPAQUE for part in above)
        if name.startswith(whiteout.PREFIX) or is_below_mark:
            raise unrepresentable(path, sentences.NAME_OF_WHITEOUT)


def _link(header: tar.Header, path: bytes, source: bytes) -> tar.Header:
    """The entry that makes `path` another name of `source`, with the metadata repeated."""
    return replace(header, path=path, type=tar.HARD_LINK, linkname=source, size=0)
