"""The tree that layers make, in the mind: what `apply` does to a directory, done to a model of it.

Law: what is here after a layer is what a directory has after an apply with owners, on a file system that keeps all that the
layer says. Memory is taken for every name, never for contents.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ocidiff.errors import MalformedLayerError
from ocidiff.layer.idmap import IdMaps, IdRange
from ocidiff.layer.pure import sentences, tar
from ocidiff.layer.pure.directories import join, split
from ocidiff.layer.pure.faults import broken_link, check_owner, unsafe
from ocidiff.layer.pure.index_format import Fingerprint, Record, xattr_digests
from ocidiff.layer.pure.root import clean
from ocidiff.layer.pure.tar_reader import Entry
from ocidiff.layer.pure.whiteout import PSEUDO_LINKS, Aufs, Opaque, Removal, is_pseudo_link, read_whiteout
from ocidiff.layer.xattrs import ACCESS_ACL, CAPABILITY, class_of, lost_class

_MAX_LINKS: Final = 40  # symbolic links in one path, as the kernel counts
_MAX_LINK_STEPS: Final = 2048  # components that they may bring in all, as in an apply
_IMPLIED_MODE: Final = 0o755  # of a directory that no layer describes
_MAX_NAME_BYTES: Final = 255
_MAX_TARGET_BYTES: Final = 4095
_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1
_KINDS: Final = {
    tar.REGULAR: stat.S_IFREG,
    tar.DIRECTORY: stat.S_IFDIR,
    tar.SYMLINK: stat.S_IFLNK,
    tar.CHARACTER: stat.S_IFCHR,
    tar.BLOCK: stat.S_IFBLK,
    tar.FIFO: stat.S_IFIFO,
}
_ACL_HEADER_BYTES: Final = 4
_ACL_ENTRY: Final = struct.Struct("<HHI")
_ACL_MASK: Final = 0x10
_ACL_SHIFTS: Final = {0x01: 6, 0x04: 3, _ACL_MASK: 3, 0x20: 0}  # of the mode, by the tags of what it has too
_ACL_PLAIN_ENTRIES: Final = 3  # one without names says no more than the mode, and is not kept
_OF_THE_HOST: Final = IdMaps((IdRange(0, 0, (1 << 32) - 1),), (IdRange(0, 0, (1 << 32) - 1),))


@dataclass(slots=True)
class _Inode:
    kind: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    rdev: int = 0
    content: Fingerprint | None = None
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[bytes, _Child] = field(default_factory=dict)
    settled: int = 0  # the last layer of which is known that nothing of those before is left below

    @property
    def is_dir(self) -> bool:
        return self.kind == stat.S_IFDIR


@dataclass(frozen=True, slots=True)
class _Child:
    inode: _Inode
    layer: int  # that wrote the name


class Sketch:
    """The tree so far.

    Attributes:
        lost: Attributes of entries that no index has, by namespace.
    """

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self._root = _Inode(stat.S_IFDIR, _IMPLIED_MODE)
        self._layer = 0
        self._has_aside = False  # the directory of files that this layer keeps aside is there

    def next_layer(self) -> None:
        """Begin the next layer: what is there now is what its whiteouts remove."""
        self._layer += 1

    def end_layer(self) -> None:
        """End a layer: remove what it kept aside for hard links."""
        if self._has_aside:
            del self._root.children[PSEUDO_LINKS]
        self._has_aside = False

    def apply(self, entry: Entry) -> _Inode | None:
        """Do what `entry` says, and return the file if it made one. Errors as in an apply."""
        path = entry.path
        if not path:
            if entry.type != tar.DIRECTORY:
                raise unsafe(path, sentences.ROOT_IS_NO_DIRECTORY)
            check_owner(path, entry.uid, entry.gid)  # an index says nothing of the root itself
            return None
        parent, name = split(path)
        whiteout = read_whiteout(path, entry.offset)
        if isinstance(whiteout, Aufs) and not self._is_kept_aside(entry):
            return None
        try:
            directory = self._resolve(parent, create=not isinstance(whiteout, Removal | Opaque))
        except FileNotFoundError:
            return None  # a whiteout makes no directory
        if isinstance(whiteout, Removal):
            _check_name(path, whiteout.name)
            self._hide(directory, whiteout.name)
        elif isinstance(whiteout, Opaque):
            self._prune(directory)
        else:
            inode = self._create(directory, name, entry)
            return inode if entry.type == tar.REGULAR else None
        return None

    def _is_kept_aside(self, entry: Entry) -> bool:
        """Return true if an entry of AUFS is kept for hard links. A directory of its name that was there is none of ours."""
        is_kept = entry.type == tar.REGULAR and is_pseudo_link(entry.path)
        if is_kept and not self._has_aside:
            self._has_aside = PSEUDO_LINKS not in self._root.children
        return is_kept and self._has_aside

    def records(self) -> Iterator[tuple[bytes, Record]]:
        """All that is there, in walk order."""
        todo = [(b"", iter(sorted(self._root.children.items())))]
        while todo:
            path, children = todo[-1]
            child = next(children, None)
            if child is None:
                todo.pop()
                continue
            name, inode = child[0], child[1].inode
            yield join(path, name), _record(inode)
            if inode.is_dir:
                todo.append((join(path, name), iter(sorted(inode.children.items()))))

    def _hide(self, parent: _Inode, name: bytes) -> None:
        """Remove what lower layers have under a name."""
        child = parent.children.get(name)
        if child is None:
            return
        if child.inode.is_dir:
            self._prune(child.inode)
        if child.layer < self._layer and not child.inode.children:
            del parent.children[name]

    def _prune(self, top: _Inode) -> None:
        """Remove all that lower layers have below a directory, but the directories that still hold something."""
        found, todo = list[_Inode](), [top]
        while todo:
            directory = todo.pop()
            if directory.settled == self._layer:
                continue
            directory.settled = self._layer
            found.append(directory)
            todo += [child.inode for child in directory.children.values() if child.inode.is_dir]
        for directory in reversed(found):  # each after those in it
            for name, child in list(directory.children.items()):
                if child.layer < self._layer and not child.inode.children:
                    del directory.children[name]

    def _create(self, parent: _Inode, name: bytes, entry: Entry) -> _Inode:
        check_owner(entry.path, entry.uid, entry.gid)
        _check_name(entry.name, name)
        there = parent.children.get(name)
        if entry.type == tar.HARD_LINK:
            inode = self._linked(parent, name, entry)
        elif entry.type == tar.DIRECTORY and there is not None and there.inode.is_dir:
            inode = there.inode
        else:
            inode = _Inode(_KINDS[entry.type], settled=self._layer, size=entry.size)
            if entry.type == tar.SYMLINK:
                _check_target(entry)
                inode.target, inode.size, inode.mode = entry.linkname, len(entry.linkname), 0o777
            elif entry.type in (tar.CHARACTER, tar.BLOCK):
                inode.rdev = _device(entry)
        parent.children[name] = _Child(inode, self._layer)
        # A file that was kept aside says itself what it is.
        if entry.type != tar.HARD_LINK or not is_pseudo_link(clean(entry.linkname)):
            _describe(inode, entry, self.lost)
        return inode

    def _linked(self, parent: _Inode, name: bytes, entry: Entry) -> _Inode:
        """The inode that a hard link leads to, once nothing has its name any more."""
        target = clean(entry.linkname)
        target_parent, target_name = split(target)

        def wrong(cause: str) -> MalformedLayerError:
            return broken_link(entry.offset, entry.path, target, cause)

        if not target_name:
            raise wrong(sentences.TARGET_IS_DIRECTORY)
        try:
            directory = self._resolve(target_parent, create=False)
            inode = directory.children[target_name].inode
        except (KeyError, FileNotFoundError, NotADirectoryError) as error:
            raise wrong(sentences.TARGET_IS_MISSING) from error
        if inode.is_dir:
            raise wrong(sentences.TARGET_IS_DIRECTORY)
        if directory is parent and target_name == name:
            raise wrong(sentences.TARGET_IS_SAME_NAME)
        replaced = parent.children.pop(name, None)
        if replaced is not None and _holds(replaced.inode, directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(clean(entry.name)))
        return inode

    def _resolve(self, path: bytes, *, create: bool) -> _Inode:
        """The directory `path`, with links followed as if the root were `/`; with `create`, what is missing is made."""
        here, above, links, steps = self._root, list[_Inode](), 0, 0
        todo = path.split(b"/")[::-1]
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                here = above.pop() if above else self._root
                continue
            child = here.children.get(name)
            if child is not None and child.inode.kind == stat.S_IFLNK:
                parts = [part for part in child.inode.target.split(b"/") if part not in (b"", b".")]
                links, steps = links + 1, steps + len(parts)
                if links > _MAX_LINKS or steps > _MAX_LINK_STEPS:
                    raise unsafe(path, sentences.TOO_MANY_LINKS)
                if child.inode.target.startswith(b"/"):
                    here = self._root
                    above.clear()
                todo += parts[::-1]
                continue
            if child is None or not child.inode.is_dir:
                _check_name(path, name)
                if not create:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
                child = _Child(_Inode(stat.S_IFDIR, _IMPLIED_MODE, settled=self._layer), self._layer)
                here.children[name] = child
            above.append(here)
            here = child.inode
        return here


def _holds(top: _Inode, directory: _Inode) -> bool:
    """Whether `directory` is `top` or below it."""
    todo = [top]
    while todo:
        here = todo.pop()
        if here is directory:
            return True
        todo += [child.inode for child in here.children.values() if child.inode.is_dir]
    return False


def _describe(inode: _Inode, entry: Entry, lost: Counter[str]) -> None:
    """Take owner, attributes, mode and time of an entry; one that links may leave out attributes."""
    if entry.type != tar.HARD_LINK:
        inode.xattrs.clear()
    elif (inode.uid, inode.gid) != (entry.uid, entry.gid):
        inode.xattrs.pop(CAPABILITY, None)  # a new owner clears it
    inode.uid, inode.gid = entry.uid, entry.gid
    for key, value in entry.xattrs.items():
        found = class_of(key)
        if not (found.is_stored() and found.fits(inode.kind)):
            lost[lost_class(key)] += 1
            continue
        if value:
            inode.xattrs[key] = value
        else:
            inode.xattrs.pop(key, None)
    if inode.kind != stat.S_IFLNK:
        inode.mode = entry.mode
    if not inode.is_dir:
        inode.mtime_ns = entry.mtime_ns


def _check_name(path: bytes, name: bytes) -> None:
    if len(name) > _MAX_NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), os.fsdecode(clean(path)))


def _check_target(entry: Entry) -> None:
    if not 0 < len(entry.linkname) <= _MAX_TARGET_BYTES:
        cause = errno.ENAMETOOLONG if entry.linkname else errno.ENOENT
        raise OSError(cause, os.strerror(cause), os.fsdecode(clean(entry.name)))


def _device(entry: Entry) -> int:
    major, minor = entry.device
    if not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
        raise unsafe(entry.path, sentences.DEVICE_OUT_OF_RANGE.format(major=major, minor=minor))
    if entry.type == tar.CHARACTER and entry.device == (0, 0):
        raise unsafe(entry.path, sentences.WHITEOUT_DEVICE)
    return os.makedev(major, minor)


def _record(inode: _Inode) -> Record:
    xattrs = {}
    for key, value in inode.xattrs.items():
        told = _with_mode(value, inode.mode) if key == ACCESS_ACL else _OF_THE_HOST.xattr(key, value)
        if told:
            xattrs[key] = told
    mode = inode.kind | inode.mode
    return Record(
        mode,
        inode.uid,
        inode.gid,
        xattr_digests(xattrs),
        inode.mtime_ns,
        inode.size,
        inode.rdev,
        inode.content,
        inode.target,
    )


def _with_mode(acl: bytes, mode: int) -> bytes:
    """An ACL with the permissions of a mode that was set after it; none where it says no more than that. Spec: acl(5)."""
    told = bytearray(acl)
    starts = range(_ACL_HEADER_BYTES, len(acl) - _ACL_ENTRY.size + 1, _ACL_ENTRY.size)
    tags = [_ACL_ENTRY.unpack_from(acl, start)[0] for start in starts]
    for start, tag in zip(starts, tags, strict=True):
        if tag in _ACL_SHIFTS and not (tag == 0x04 and _ACL_MASK in tags):
            struct.pack_into("<H", told, start + 2, mode >> _ACL_SHIFTS[tag] & 7)
    return b"" if len(acl) == _ACL_HEADER_BYTES + _ACL_PLAIN_ENTRIES * _ACL_ENTRY.size else bytes(told)
