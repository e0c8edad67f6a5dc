"""Reading an index as if it were the tree, a directory at a time.

Law: whatever the bytes are, an index reads as a tree or fails with `IndexFileError`. The checksum is proved before anything
is told; what it cannot prove, since anybody can make one, is checked where it is read.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Self

import xxhash

from ocidiff.errors import IndexFileError
from ocidiff.layer.options import Profile
from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.directories import join, show, split
from ocidiff.layer.pure.index_format import (
    CHECKSUM_BYTES,
    COUNT,
    HEADER,
    LEAST_RECORD_BYTES,
    TRAILER,
    BrokenIndex,
    Fields,
    Fingerprint,
    Header,
    Record,
    Stamp,
    XattrDigests,
    decode_header,
)
from ocidiff.layer.pure.pace import Pace
from ocidiff.layer.pure.tree import Node
from ocidiff.oci.timestamp import NS_PER_SECOND

_PIECE_BYTES: Final = 1 << 20
_UNKNOWN: Final = -1  # inode and device of what is not there


@dataclass(frozen=True, slots=True)
class Known(Node):
    """A name in an index.

    Attributes:
        record: What is known of it.
    """

    record: Record = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class _Folder:
    path: bytes
    data: bytes
    places: dict[bytes, int]  # where the record of each name goes on after the name
    limit: int  # directories in it lie before


class IndexTree:
    """The tree that an index tells of.

    Raises:
        IndexFileError: The file is no index, or a broken one.
        OSError: It cannot be read.
    """

    def __init__(self, path: bytes, profile: Profile, pace: Pace) -> None:
        self._path = path
        self._profile = profile
        # A FIFO must not hold the call up.
        self._file = os.open(os.fsdecode(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._left = 0  # names that are not read yet
        try:
            self._header, root = self._check(pace)
            self._folders = [self._folder(b"", *root)]  # the way to the last directory
        except BrokenIndex as broken:
            os.close(self._file)
            raise self._error(broken) from broken
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def forget(self) -> None:
        """Nothing: an index does not change."""

    def node(self, path: bytes) -> Known:
        """The name `path`."""
        parent, name = split(path)
        try:
            folder = self._at(parent)
            record = self._record(folder, name)
        except BrokenIndex as broken:
            raise self._error(broken) from broken
        return Known(path, _stat(record), record.uid, record.gid, record.lacks_owner, record=record)

    def children(self, directory: Node | None) -> dict[bytes, bytes]:
        """Paths by name of what is in `directory`, or in the root for None."""
        path = directory.path if directory else b""
        try:
            return {name: join(path, name) for name in self._at(path).places}
        except BrokenIndex as broken:
            raise self._error(broken) from broken

    def is_mount(self, node: Node) -> bool:
        """Return True if something was mounted at `node`."""
        return self._record_of(node).is_mount

    def check_ids(self, node: Node) -> None:
        """Nothing: they were checked when the index was made."""

    def lost(self, node: Node) -> Counter[str]:  # noqa: ARG002 - as `Tree.lost`
        """Nothing: it was told when the index was made."""
        return Counter()

    def xattr_digests(self, node: Node) -> XattrDigests:
        """The hashes of the attributes that the profile compares."""
        found = self._record_of(node).xattrs
        return XattrDigests(found.capability) if self._profile is Profile.CONTAINERD else found

    def stamp(self, node: Node) -> Stamp | None:
        """The stamp: which state of which inode it was."""
        return self._record_of(node).stamp

    def content(self, node: Node) -> Fingerprint | None:
        """The hashes of a file that is not empty."""
        return self._record_of(node).content

    def target(self, node: Node) -> bytes:
        """Return the target of the symbolic link `node`, as written."""
        return self._record_of(node).target

    def _record_of(self, node: Node) -> Record:
        return node.record if isinstance(node, Known) else self.node(node.path).record

    def _at(self, path: bytes) -> _Folder:
        """The directory `path`."""
        while not (self._folders[-1].path == path or _is_above(self._folders[-1].path, path)):
            self._folders.pop()
        while (here := self._folders[-1]).path != path:
            rest = path[len(here.path) :].lstrip(b"/")
            name = rest.split(b"/", 1)[0]
            self._folders.append(self._folder(join(here.path, name), *self._record(here, name).children))
        return self._folders[-1]

    def _record(self, folder: _Folder, name: bytes) -> Record:
        return Fields(folder.data, folder.places[name]).record(self._header, folder.limit)

    def _folder(self, path: bytes, offset: int, length: int) -> _Folder:
        if not length:
            return _Folder(path, b"", {}, 0)
        data = self._read(offset, length)
        if len(data) < max(length, COUNT.size):
            raise BrokenIndex(sentences.TRUNCATED_MEANWHILE if len(data) < length else sentences.END_IN_RECORD)
        fields, places, before = Fields(data, COUNT.size), dict[bytes, int](), b""
        count = COUNT.unpack_from(data)[0]
        # A walk reads each directory once; directories that share their blocks could make it endless.
        self._left -= count
        if self._left < 0:
            raise BrokenIndex(sentences.MORE_NAMES)
        for _ in range(count):
            name = fields.name()
            if name <= before:
                raise BrokenIndex(sentences.NAMES_OUT_OF_ORDER)
            places[name], before = fields.position, name
            fields.record(self._header, offset)
        if fields.position != len(data):
            raise BrokenIndex(sentences.BYTES_AFTER_RECORDS)
        return _Folder(path, data, places, offset)

    def _check(self, pace: Pace) -> tuple[Header, tuple[int, int]]:
        """The header, and where the root is."""
        facts = os.fstat(self._file)
        if not stat.S_ISREG(facts.st_mode):
            raise BrokenIndex(sentences.NOT_INDEX)
        header = decode_header(self._read(0, HEADER.size))
        end = facts.st_size - CHECKSUM_BYTES - TRAILER.size
        if end < HEADER.size:
            raise BrokenIndex(sentences.TRUNCATED_INDEX)
        tail = self._read(end, TRAILER.size + CHECKSUM_BYTES)
        checksum, done, left = xxhash.xxh3_128(), 0, end + TRAILER.size
        while done < left and (piece := self._read(done, min(left - done, _PIECE_BYTES))):
            checksum.update(piece)
            done += len(piece)
            pace.check()
        if checksum.digest() != tail[TRAILER.size :]:
            raise BrokenIndex(sentences.WRONG_INDEX_CHECKSUM)
        offset, length, self._left, _ = TRAILER.unpack(tail[: TRAILER.size])
        if offset + length > end:
            raise BrokenIndex(sentences.ROOT_OUTSIDE_INDEX)
        if self._left > end // LEAST_RECORD_BYTES:
            raise BrokenIndex(sentences.FEWER_NAMES)
        return header, (offset, length)

    def _read(self, offset: int, size: int) -> bytes:
        """Bytes of the file, fewer only at its end."""
        parts = []
        while size:
            try:
                part = os.pread(self._file, size, offset)
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.fsdecode(self._path)) from error
            if not part:
                break
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def _error(self, broken: BrokenIndex) -> IndexFileError:
        return IndexFileError(sentences.INDEX_FILE.format(path=show(self._path), reason=broken))


def _is_above(directory: bytes, path: bytes) -> bool:
    return not directory or path.startswith(directory + b"/")


def _stat(record: Record) -> os.stat_result:
    """The record as an lstat; what it does not know is in no comparison."""
    seconds = record.mtime_ns // NS_PER_SECOND
    return os.stat_result(
        (record.mode, _UNKNOWN, _UNKNOWN, 1, record.uid, record.gid, record.size, seconds, seconds, seconds),
        {"st_mtime_ns": record.mtime_ns, "st_rdev": record.rdev},
    )
