"""The bytes of an index, and how contents and attributes become hashes. Spec: docs/index-format.md."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import xxhash

from ocidiff.layer.pure import sentences
from ocidiff.layer.xattrs import CAPABILITY

MAGIC: Final = b"OCIDIFFX"
VERSION: Final = 1
HEADER: Final = struct.Struct("<8sHHI32s")  # magic, version, flags, nothing, chain ID
TRAILER: Final = struct.Struct("<QIQQ")  # the root's block and its length, names, bytes of all files
CHECKSUM_BYTES: Final = 16
COUNT: Final = struct.Struct("<I")
LEAST_RECORD_BYTES: Final = 25  # a name of one byte, and an empty directory
_OWNER: Final = struct.Struct("<HIIB")  # mode with type, owner, group, which attributes there are
_CHILDREN: Final = struct.Struct("<QI")
_LEAF: Final = struct.Struct("<qIQ")  # seconds, nanoseconds, size
_STAMP: Final = struct.Struct("<QQqI")  # device, inode, seconds and nanoseconds of the change time
_DEVICE: Final = struct.Struct("<II")
_TARGET: Final = struct.Struct("<H")
_HAS_SHA256: Final = 1
_HAS_CAPABILITY: Final = 1
_HAS_OTHERS: Final = 2
_IS_MOUNT: Final = 4
_HAS_STAMP: Final = 8
_LACKS_OWNER: Final = 16
_XXH3_BYTES: Final = 16
_SHA256_BYTES: Final = 32
_NANOSECONDS: Final = 10**9
_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1
_KINDS: Final = frozenset(
    {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}
)

Stamp = tuple[int, int, int]
"""A key that no two states of files share: a change of an inode sets its change time, which nobody can choose."""


class BrokenIndex(Exception):  # noqa: N818 - becomes an error once the file is named
    """A fault in the bytes of an index."""


@dataclass(frozen=True, slots=True)
class Header:
    """The facts of a whole index.

    Attributes:
        has_sha256: Whether contents have a sha256 beside the XXH3-128.
        chain_id: The chain ID of the layers that it was made from; zeros for a tree.
    """

    has_sha256: bool
    chain_id: bytes = bytes(_SHA256_BYTES)

    def encode(self) -> bytes:
        """The bytes of the header."""
        return HEADER.pack(MAGIC, VERSION, _HAS_SHA256 * self.has_sha256, 0, self.chain_id)


def decode_header(data: bytes) -> Header:
    """Read a header.

    Raises:
        BrokenIndex: It is none.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise BrokenIndex(sentences.NOT_INDEX)
    if len(data) < HEADER.size:
        raise BrokenIndex(sentences.TRUNCATED_INDEX)
    _, version, flags, nothing, chain_id = HEADER.unpack(data[: HEADER.size])
    if version != VERSION:
        raise BrokenIndex(sentences.INDEX_VERSION.format(version=version, known=VERSION))
    if flags & ~_HAS_SHA256 or nothing:
        raise BrokenIndex(sentences.UNKNOWN_HEADER_FLAGS)
    return Header(bool(flags & _HAS_SHA256), chain_id)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The hashes of a content.

    Attributes:
        xxh3: XXH3-128.
        sha256: None where it was not wanted.
    """

    xxh3: bytes
    sha256: bytes | None = None

    def is_same(self, other: Fingerprint) -> bool:
        """Return True if two contents have the same hashes: sha256 if both have it, else XXH3."""
        if self.sha256 is not None and other.sha256 is not None:
            return self.sha256 == other.sha256
        return self.xxh3 == other.xxh3


def fingerprint(blocks: Iterable[bytes], *, sha256: bool) -> Fingerprint:
    """The hashes of a content that comes in pieces."""
    fast, strong = xxhash.xxh3_128(), hashlib.sha256()
    for block in blocks:
        fast.update(block)
        if sha256:
            strong.update(block)
    return Fingerprint(fast.digest(), strong.digest() if sha256 else None)


@dataclass(frozen=True, slots=True)
class XattrDigests:
    """Hashes of the attributes that can count, apart where the profiles differ; none of no attribute.

    Attributes:
        capability: Of the value of `security.capability`.
        others: Of names and values of all others.
    """

    capability: bytes = b""
    others: bytes = b""


def xattr_digests(xattrs: Mapping[bytes, bytes]) -> XattrDigests:
    """The hashes of attributes, none of which is empty."""
    capability, others = xattrs.get(CAPABILITY), xxhash.xxh3_128()
    rest = sorted(key for key in xattrs if key != CAPABILITY)
    for key in rest:
        # Each with its length in front, so that no other list has the same bytes.
        for part in (key, xattrs[key]):
            others.update(COUNT.pack(len(part)) + part)
    return XattrDigests(
        b"" if capability is None else xxhash.xxh3_128(capability).digest(), others.digest() if rest else b""
    )


@dataclass(frozen=True, slots=True)
class Record:
    """An entry of the tree.

    Attributes:
        mode: Type and permissions, as `st_mode` has them.
        mtime_ns: Nanoseconds since 1970; 0 of a directory, as the size is.
        rdev: Number of a device.
        content: Of a file that is not empty.
        target: Of a symbolic link.
        children: Where the block of a directory is, and its length; both 0 when it is empty.
        stamp: Device, inode and nanoseconds of the change time; None where they are not kept, or prove nothing.
        is_mount: Whether something was mounted there, of which nothing more is told than its type.
        lacks_owner: See `Node.lacks_owner`.
    """

    mode: int
    uid: int
    gid: int
    xattrs: XattrDigests
    mtime_ns: int = 0
    size: int = 0
    rdev: int = 0
    content: Fingerprint | None = None
    target: bytes = b""
    children: tuple[int, int] = (0, 0)
    is_mount: bool = False
    stamp: Stamp | None = None
    lacks_owner: bool = False

    def encode(self, name: bytes) -> bytes:
        """The bytes of the record."""
        attributes = self.xattrs
        flags = _HAS_CAPABILITY * bool(attributes.capability) + _HAS_OTHERS * bool(attributes.others)
        flags += _IS_MOUNT * self.is_mount + _HAS_STAMP * (self.stamp is not None) + _LACKS_OWNER * self.lacks_owner
        start = bytes([len(name)]) + name + _OWNER.pack(self.mode, self.uid, self.gid, flags)
        start += attributes.capability + attributes.others
        if self.stamp is not None:
            device, inode, ctime_ns = self.stamp
            start += _STAMP.pack(device, inode, ctime_ns // _NANOSECONDS, ctime_ns % _NANOSECONDS)
        if stat.S_ISDIR(self.mode):
            return start + _CHILDREN.pack(*self.children)
        start += _LEAF.pack(self.mtime_ns // _NANOSECONDS, self.mtime_ns % _NANOSECONDS, self.size)
        if self.content is not None:
            return start + self.content.xxh3 + (self.content.sha256 or b"")
        if stat.S_ISLNK(self.mode):
            return start + _TARGET.pack(len(self.target)) + self.target
        if stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode):
            return start + _DEVICE.pack(os.major(self.rdev), os.minor(self.rdev))
        return start


def stamp_of(facts: os.stat_result) -> Stamp:
    """The stamp of what lstat says this of."""
    return facts.st_dev, facts.st_ino, facts.st_ctime_ns


def mount_point(mode: int) -> Record:
    """The record of a mount point: its type alone."""
    return Record(stat.S_IFMT(mode), 0, 0, XattrDigests(), is_mount=True)


class Fields:
    """Takes the bytes of a block apart.

    Attributes:
        position: What is next.
    """

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self.position = position

    def name(self) -> bytes:
        """The name of the next record."""
        name = self._take(self._take(1)[0])
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise BrokenIndex(sentences.IMPOSSIBLE_NAME)
        return name

    def record(self, header: Header, limit: int) -> Record:
        """The rest of the record; blocks of directories lie before `limit`.

        Raises:
            BrokenIndex: It is none.
        """
        mode, uid, gid, flags = self._unpack(_OWNER)
        if stat.S_IFMT(mode) not in _KINDS:
            raise BrokenIndex(sentences.UNKNOWN_RECORD_TYPE)
        if flags & ~(_HAS_CAPABILITY | _HAS_OTHERS | _IS_MOUNT | _HAS_STAMP | _LACKS_OWNER):
            raise BrokenIndex(sentences.UNKNOWN_RECORD_FLAGS)
        capability, others = (self._take(_XXH3_BYTES if flags & bit else 0) for bit in (_HAS_CAPABILITY, _HAS_OTHERS))
        xattrs, is_mount = XattrDigests(capability, others), bool(flags & _IS_MOUNT)
        stamp = None
        if flags & _HAS_STAMP:
            device, inode, seconds, nanoseconds = self._unpack(_STAMP)
            stamp = device, inode, seconds * _NANOSECONDS + nanoseconds
        if stat.S_ISDIR(mode):
            offset, length = self._unpack(_CHILDREN)
            if offset + length > limit:
                raise BrokenIndex(sentences.DIRECTORY_OUTSIDE_INDEX)
            found = Record(mode, uid, gid, xattrs, children=(offset, length), is_mount=is_mount, stamp=stamp)
            return replace(found, lacks_owner=bool(flags & _LACKS_OWNER))
        seconds, nanoseconds, size = self._unpack(_LEAF)
        if nanoseconds >= _NANOSECONDS:
            raise BrokenIndex(sentences.WRONG_RECORD_TIME)
        content, target, rdev = None, b"", 0
        if stat.S_ISREG(mode) and size:
            xxh3 = self._take(_XXH3_BYTES)
            content = Fingerprint(xxh3, self._take(_SHA256_BYTES) if header.has_sha256 else None)
        elif stat.S_ISLNK(mode):
            target = self._take(self._unpack(_TARGET)[0])
            if b"\0" in target:
                raise BrokenIndex(sentences.NUL_IN_TARGET)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            major, minor = self._unpack(_DEVICE)
            if major > _MAX_MAJOR or minor > _MAX_MINOR:
                raise BrokenIndex(sentences.WRONG_RECORD_DEVICE)
            rdev = os.makedev(major, minor)
        mtime_ns = seconds * _NANOSECONDS + nanoseconds
        found = Record(mode, uid, gid, xattrs, mtime_ns, size, rdev, content, target, is_mount=is_mount, stamp=stamp)
        return replace(found, lacks_owner=bool(flags & _LACKS_OWNER))

    def _unpack(self, form: struct.Struct) -> tuple[int, ...]:
        return form.unpack(self._take(form.size))

    def _take(self, count: int) -> bytes:
        taken = self._data[self.position : self.position + count]
        if len(taken) < count:
            raise BrokenIndex(sentences.END_IN_RECORD)
        self.position += count
        return taken
