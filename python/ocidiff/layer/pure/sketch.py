"""The tree that layers make, in the mind: what `apply` does to a directory, done to a model of it.

Law: what is here after a layer is what a directory has after an apply with owners, on a file system that keeps all that the
layer says. Memory is taken for every name, never for contents.

Below the layers may be a base that is not known. Then the model also says what the layers hide of it (names, and all that
directories had), and which directories the layers describe.
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

from ocidiff.layer.idmap import IdMaps, IdRange
from ocidiff.layer.pure import sentences, tar
from ocidiff.layer.pure.directories import join, show, split
from ocidiff.layer.pure.faults import unsupported
from ocidiff.layer.pure.index_format import Fingerprint, Record, xattr_digests
from ocidiff.layer.pure.path import Way, clean
from ocidiff.layer.pure.plan import IMPLIED_MODE, Do, Link, check, describes, plan
from ocidiff.layer.pure.tar_reader import Entry
from ocidiff.layer.pure.whiteout import PSEUDO_LINKS, Opaque, Removal
from ocidiff.layer.xattrs import ACCESS_ACL, CAPABILITY, class_of, lost_class

_MAX_NAME_BYTES: Final = 255
_MAX_TARGET_BYTES: Final = 4095
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


@dataclass(slots=True, eq=False)
class Inode:
    """The facts that all names of a file share.

    Attributes:
        kind: Type bits of the mode.
        mode: The low 12 bits.
        size: Bytes of content, or of a target.
        stored: Where the content is, if somebody has noted it.
        origin: Number of the layer, from 1, that has the content, and where the header of its entry begins.
        is_linked: True if it had several names at some time.
        is_described: Of a directory: true unless it is what the base has.
        is_opaque: Of a directory: true if it shows nothing of the base.
        hidden: Of a directory that shows names of the base: those that are gone.
        settled: The last layer of which is known that nothing of those before is left below.
    """

    kind: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    rdev: int = 0
    content: Fingerprint | None = None
    stored: object = None
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[bytes, _Child] = field(default_factory=dict)
    origin: tuple[int, int] = (0, 0)
    is_linked: bool = False
    is_described: bool = False
    is_opaque: bool = False
    hidden: set[bytes] = field(default_factory=set)
    settled: int = 0

    @property
    def is_dir(self) -> bool:
        """True for a directory."""
        return self.kind == stat.S_IFDIR

    def told_xattrs(self) -> dict[bytes, bytes]:
        """Return the attributes as the kernel tells them."""
        told = {}
        for key, value in self.xattrs.items():
            now = _with_mode(value, self.mode) if key == ACCESS_ACL else _OF_THE_HOST.xattr(key, value)
            if now or not value:
                told[key] = now
        return told


@dataclass(frozen=True, slots=True)
class _Child:
    inode: Inode
    layer: int  # that wrote the name


class Sketch:
    """The tree so far.

    Args:
        for_layer: Keep what a layer has and an index has not: the root, empty attributes, and those that only an apply sets.
        onto_base: There is a base below the layers.

    Attributes:
        root: The root.
        lost: Attributes of entries that are left out, by namespace.
    """

    def __init__(self, *, for_layer: bool = False, onto_base: bool = False) -> None:
        self.lost: Counter[str] = Counter()
        self.root = Inode(stat.S_IFDIR, IMPLIED_MODE, is_opaque=not onto_base)
        self._for_layer = for_layer
        self._onto_base = onto_base
        self._layer = 0
        self._has_aside = False  # the directory of files that this layer keeps aside is there

    def next_layer(self) -> None:
        """Begin the next layer: what is there now is what its whiteouts remove."""
        self._layer += 1

    def end_layer(self) -> None:
        """End a layer: remove what it kept aside for hard links."""
        if self._has_aside:
            del self.root.children[PSEUDO_LINKS]
        self._has_aside = False

    def apply(self, entry: Entry) -> Inode | None:
        """Do what `entry` says, and return the file if it made one. Errors as in an apply."""
        path = entry.path
        action = plan(entry)
        if action is Do.DESCRIBE_ROOT:
            check(entry)
            if self._for_layer:
                self._describe(self.root, entry)
        if action in (Do.DESCRIBE_ROOT, Do.LEAVE_OUT) or (action is Do.KEEP_ASIDE and not self._keeps_aside()):
            return None
        parent, name = split(path)
        try:
            directory = self._resolve(parent, create=isinstance(action, Do), assume=not isinstance(action, Do))
        except FileNotFoundError:
            return None  # a whiteout makes no directory
        if isinstance(action, Removal):
            _check_name(path, action.name)
            self._hide(directory, action.name)
        elif isinstance(action, Opaque):
            self._prune(directory)
        else:
            inode = self._create(directory, name, entry)
            return inode if entry.type == tar.REGULAR else None
        return None

    def _keeps_aside(self) -> bool:
        """Return true if files are kept for hard links: a directory of their name that was there before is none of ours."""
        self._has_aside = self._has_aside or PSEUDO_LINKS not in self.root.children
        return self._has_aside

    def records(self) -> Iterator[tuple[bytes, Record]]:
        """All that is there, in walk order."""
        todo = [(b"", iter(sorted(self.root.children.items())))]
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

    def _hide(self, parent: Inode, name: bytes) -> None:
        """Remove what lower layers have under a name."""
        child = parent.children.get(name)
        if child is not None and child.inode.is_dir:
            self._prune(child.inode)
        if child is not None and (child.layer == self._layer or child.inode.children):
            return
        parent.children.pop(name, None)
        if not parent.is_opaque:
            parent.hidden.add(name)

    def _prune(self, top: Inode) -> None:
        """Remove all that lower layers have below a directory, but the directories that still hold something."""
        found, todo = list[Inode](), [top]
        while todo:
            directory = todo.pop()
            if directory.settled == self._layer:
                continue
            directory.settled = self._layer
            directory.is_opaque = True
            directory.hidden.clear()
            found.append(directory)
            todo += [child.inode for child in directory.children.values() if child.inode.is_dir]
        for directory in reversed(found):  # each after those in it
            for name, child in list(directory.children.items()):
                if child.layer < self._layer and not child.inode.children:
                    del directory.children[name]

    def _create(self, parent: Inode, name: bytes, entry: Entry) -> Inode:
        check(entry)
        _check_name(entry.name, name)
        there = parent.children.get(name)
        if entry.type == tar.HARD_LINK:
            inode = self._linked(parent, name, entry)
        elif entry.type == tar.DIRECTORY and there is not None and there.inode.is_dir:
            inode = there.inode
        elif entry.type == tar.DIRECTORY:
            inode = self._new_directory(parent, name)
        else:
            inode = Inode(_KINDS[entry.type], size=entry.size, origin=(self._layer, entry.offset))
            if entry.type == tar.SYMLINK:
                _check_target(entry)
                inode.target, inode.size, inode.mode = entry.linkname, len(entry.linkname), 0o777
            elif entry.type in (tar.CHARACTER, tar.BLOCK):
                inode.rdev = os.makedev(*entry.device)
        parent.children[name] = _Child(inode, self._layer)
        parent.hidden.discard(name)
        if describes(entry):
            self._describe(inode, entry)
        return inode

    def _new_directory(self, parent: Inode, name: bytes) -> Inode:
        """A directory that merges with that of the base, unless the layers hide what the base has under this name."""
        is_new = parent.is_opaque or name in parent.children or name in parent.hidden
        settled = self._layer if is_new else 0
        return Inode(stat.S_IFDIR, IMPLIED_MODE, is_described=is_new, is_opaque=is_new, settled=settled)

    def _linked(self, parent: Inode, name: bytes, entry: Entry) -> Inode:
        """The inode that a hard link leads to, once nothing has its name any more."""
        link = Link(entry)
        target_parent, target_name = split(link.target)
        try:
            directory = self._resolve(target_parent, create=False)
            inode = directory.children[target_name].inode
        except (KeyError, FileNotFoundError, NotADirectoryError) as error:
            if self._onto_base:
                raise unsupported(entry.path, sentences.TARGET_BELOW.format(target=show(link.target))) from error
            raise link.is_missing() from error
        link.check(is_directory=inode.is_dir, is_same=directory is parent and target_name == name)
        replaced = parent.children.pop(name, None)
        if replaced is not None and _holds(replaced.inode, directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(clean(entry.name)))
        inode.is_linked = True
        return inode

    def _describe(self, inode: Inode, entry: Entry) -> None:
        """Take owner, attributes, mode and time of an entry; one that links may leave out attributes."""
        inode.is_described = True
        if entry.type != tar.HARD_LINK:
            # A directory keeps those that no layer has.
            inode.xattrs = {key: value for key, value in inode.xattrs.items() if not class_of(key).is_stored()}
        elif (inode.uid, inode.gid) != (entry.uid, entry.gid):
            inode.xattrs.pop(CAPABILITY, None)  # a new owner clears it
        inode.uid, inode.gid = entry.uid, entry.gid
        for key, value in entry.xattrs.items():
            found = class_of(key)
            is_kept = found.is_accepted if self._for_layer else found.is_stored()
            if not (is_kept and found.fits(inode.kind)):
                self.lost[lost_class(key)] += 1
            elif value or self._for_layer:
                inode.xattrs[key] = value
            else:
                inode.xattrs.pop(key, None)
        if inode.kind != stat.S_IFLNK:
            inode.mode = entry.mode
        inode.mtime_ns = entry.mtime_ns

    def _resolve(self, path: bytes, *, create: bool, assume: bool = False) -> Inode:
        """The directory `path`, with links followed as if the root were `/`.

        With `create`, what is missing is made. With `assume`, what the base may have counts as there.
        """
        here, above, way = self.root, list[Inode](), Way(path)
        while (name := way.next()) is not None:
            if name == b"..":
                here = above.pop() if above else self.root
                continue
            child = here.children.get(name)
            if child is not None and child.inode.kind == stat.S_IFLNK:
                if way.follow(child.inode.target):
                    here = self.root
                    above.clear()
                continue
            if child is None or not child.inode.is_dir:
                _check_name(path, name)
                made = self._new_directory(here, name)
                if not (create or (assume and not made.is_opaque)):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
                child = here.children[name] = _Child(made, self._layer if create else 0)
                here.hidden.discard(name)
            above.append(here)
            here = child.inode
        return here


def _holds(top: Inode, directory: Inode) -> bool:
    """Return True if `directory` is `top` or below it."""
    todo = [top]
    while todo:
        here = todo.pop()
        if here is directory:
            return True
        todo += [child.inode for child in here.children.values() if child.inode.is_dir]
    return False


def _check_name(path: bytes, name: bytes) -> None:
    if len(name) > _MAX_NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), os.fsdecode(clean(path)))


def _check_target(entry: Entry) -> None:
    if not 0 < len(entry.linkname) <= _MAX_TARGET_BYTES:
        cause = errno.ENAMETOOLONG if entry.linkname else errno.ENOENT
        raise OSError(cause, os.strerror(cause), os.fsdecode(clean(entry.name)))


def _record(inode: Inode) -> Record:
    mode = inode.kind | inode.mode
    return Record(
        mode,
        inode.uid,
        inode.gid,
        xattr_digests(inode.told_xattrs()),
        0 if inode.is_dir else inode.mtime_ns,
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
