"""Reading one tree: names, stats, xattrs, link targets and contents, from directory descriptors, following nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Self

from ocidiff import access, opening
from ocidiff.errors import SourceChangedError, UnrepresentableError
from ocidiff.layer.idmap import UNMAPPED
from ocidiff.layer.options import LayerOptions, OnChange, Profile
from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.aside import Aside
from ocidiff.layer.pure.directories import Directories, join, split
from ocidiff.layer.pure.faults import source_changed, unrepresentable
from ocidiff.layer.pure.live import has_grown, is_same, settle, what_changed
from ocidiff.layer.pure.note import SET_IDS, parse_note
from ocidiff.layer.pure.pace import BLOCK_BYTES, Pace
from ocidiff.layer.xattrs import CAPABILITY, FUSE_OF_ROOT, NOTE, class_of, lost_class, mark_of
from ocidiff.mounts.mountinfo import has_mounts_below, mount_id

_NO_XATTR: Final = (errno.ENODATA, errno.ENOTSUP)


@dataclass(frozen=True, slots=True)
class Node:
    """A name in a tree and its lstat.

    Attributes:
        path: Relative to the root of the tree, never empty.
        stat: Its own, not that of what a link points to.
        uid, gid: Owner and group, in ids of the container; `UNMAPPED` for what is outside the id map.
        lacks_owner: Its owner and set-id bits could neither be kept nor noted, so that nothing is said of them.
    """

    path: bytes
    stat: os.stat_result
    uid: int
    gid: int
    lacks_owner: bool = False

    @property
    def is_dir(self) -> bool:
        """True if it is a directory."""
        return stat.S_ISDIR(self.stat.st_mode)

    def has_facts_of(self, other: Node) -> bool:
        """True if type, mode, owner and device number are the same, as far as both are known."""
        a, b = self.stat, other.stat
        is_same_kind = stat.S_IFMT(a.st_mode) == stat.S_IFMT(b.st_mode) and a.st_rdev == b.st_rdev
        return is_same_kind and self.has_mode_of(other) and self.has_owner_of(other)

    def has_mode_of(self, other: Node) -> bool:
        """True if the modes are the same, as far as both are known."""
        unknown = SET_IDS if self.lacks_owner or other.lacks_owner else 0
        return not stat.S_IMODE(self.stat.st_mode ^ other.stat.st_mode) & ~unknown

    def has_owner_of(self, other: Node) -> bool:
        """True if the owners are the same, as far as both are known."""
        return self.lacks_owner or other.lacks_owner or (self.uid, self.gid) == (other.uid, other.gid)


class Tree:
    """A directory tree that is read once, in walk order.

    Raises:
        OSError: The root is missing or no directory, or something below it cannot be read.
    """

    def __init__(self, root: bytes, options: LayerOptions, pace: Pace) -> None:
        self._directories = Directories(root, opens=True)
        self._profile = options.profile
        self._ids = options.ids
        self._spool = options.spool
        self._may_be_replaced = options.on_change is OnChange.RETRY
        self._pace = pace
        top = self._directories.at(b"")
        self._may_have_mounts = not options.scope.cross_mounts and has_mounts_below(top)
        self._is_bound = access.is_bound()
        # Notes count if the root has one, as everything has that an apply without owners wrote, or if this is no root, who
        # could not be misled by them.
        self._is_marked = _has_note(top)
        self._reads_notes = self._is_marked or self._is_bound
        info = os.fstat(top)
        # Users and groups that files have which nobody gave an owner.
        self._users, self._groups = {info.st_uid, os.geteuid()}, {info.st_gid, os.getegid()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._directories.__exit__()

    def forget(self) -> None:
        """Let go of what is open: the tree may have changed."""
        self._directories.forget()

    def full(self, path: bytes) -> bytes:
        """The path that the caller knows `path` by."""
        return self._directories.full(path)

    def node(self, path: bytes) -> Node:
        """The name `path` as it is now."""
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            found = self._readable(access.lstat(name, above))
            return self._seen(path, found)
        except OSError as error:
            raise self._failed(error, path) from error

    @property
    def reads_notes(self) -> bool:
        """True if what notes on files say counts."""
        return self._reads_notes

    def _readable(self, info: os.stat_result) -> os.stat_result:
        """A stat without the change time of what its owner may not read: reading it changes that."""
        is_closed = self._is_bound and stat.S_ISREG(info.st_mode) and not info.st_mode & 0o400
        return access.changed(info, ctime_ns=info.st_mtime_ns) if is_closed else info

    def _fstat(self, file: int) -> os.stat_result:
        return self._readable(os.fstat(file))

    def _seen(self, path: bytes, info: os.stat_result) -> Node:
        """The name `path`, as this tree is seen: with ids of the container, and as its note says."""
        uid, gid = self._ids.owner(info)
        if not self._reads_notes:
            return Node(path, info, uid, gid)
        same_user, same_group = info.st_uid in self._users, info.st_gid in self._groups
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            return Node(path, info, uid, gid, self._is_marked and same_user and same_group)
        note = parse_note(self._value(path, NOTE))
        if note is None:
            return Node(path, info, uid, gid)
        mode, rdev = note.applied(info)
        # An owner that was set since is kept.
        uid, gid = note.uid if same_user else uid, note.gid if same_group else gid
        return Node(path, access.changed(info, mode=mode, rdev=rdev), uid, gid)

    def check_ids(self, node: Node) -> None:
        """Refuse an owner or group outside the id map."""
        if UNMAPPED in (node.uid, node.gid):
            try:
                self._ids.map("user", node.stat.st_uid)
                self._ids.map("group", node.stat.st_gid)
            except LookupError as error:
                raise self._outside(node, error) from error

    def is_mount(self, node: Node) -> bool:
        """Return True if something is mounted at `node`."""
        if not self._may_have_mounts:
            return False
        parent, name = split(node.path)
        above = self._directories.at(parent)
        try:
            handle = os.open(name, opening.HANDLE, dir_fd=above)
        except OSError as error:
            raise self._failed(error, node.path) from error
        try:
            return mount_id(handle) != mount_id(above)
        finally:
            os.close(handle)

    def children(self, directory: Node | None) -> dict[bytes, bytes]:
        """Paths by name of what is in `directory`, or in the root for None.

        Raises:
            SourceChangedError: Another directory has taken its place, where that is an error.
        """
        path = directory.path if directory else b""
        if directory is not None and not self._may_be_replaced:
            here = os.fstat(self._directories.at(path))
            if (here.st_dev, here.st_ino) != (directory.stat.st_dev, directory.stat.st_ino):
                raise self._changed(path, sentences.REPLACED)
        return {name: join(path, name) for name in self._directories.names(path)}

    def names(self, path: bytes) -> list[bytes]:
        """The names in the directory `path`, in no order."""
        return self._directories.names(path)

    def keys(self, path: bytes) -> list[bytes]:
        """The names of all xattrs of `path`, sorted."""
        try:
            return _keys(self._proc_path(path))
        except OSError as error:
            raise self._failed(error, path) from error

    def xattr(self, path: bytes, key: bytes) -> bytes | None:
        """The xattr `key` of `path` as it is; it may be empty."""
        try:
            return self._value(path, key)
        except OSError as error:
            raise self._failed(error, path) from error

    def lost(self, node: Node, marks: Sequence[bytes] = ()) -> Counter[str]:
        """Return the number of attributes that the profile does not store, by namespace.

        Args:
            node: Whose attributes.
            marks: What the names of those begin with that the overlay keeps for itself of which this tree is a layer.
        """
        lost = Counter[str]()
        for key in self.keys(node.path):
            if not (self._stores(key) or self._keeps_for_itself(key, marks)):
                lost[lost_class(key)] += 1
        return lost

    def _stores(self, key: bytes) -> bool:
        return class_of(key).is_stored(only_capability=self._profile is Profile.CONTAINERD)

    def _keeps_for_itself(self, key: bytes, marks: Sequence[bytes]) -> bool:
        """True if an attribute is not one of the files of this tree: it says what they are, or is of the overlay."""
        owner = class_of(key).owner
        if owner == "ocidiff":
            return self._reads_notes
        # A mount of fuse-overlayfs shows its own.
        return bool(owner) and (key.startswith(FUSE_OF_ROOT) or any(mark_of(key, mark) is not None for mark in marks))

    def xattrs(self, node: Node) -> Mapping[bytes, bytes]:
        """The xattrs that the profile compares and stores; empty values count as none."""
        path = self._proc_path(node.path)
        try:
            keys = [CAPABILITY] if self._profile is Profile.CONTAINERD else filter(self._stores, _keys(path))
            return {key: self._ids.xattr(key, value) for key in keys if (value := self._value(node.path, key))}
        except OSError as error:
            raise self._failed(error, node.path) from error
        except LookupError as error:
            raise self._outside(node, error) from error

    def _value(self, path: bytes, key: bytes) -> bytes | None:
        try:
            return _value(self._proc_path(path), key)
        except PermissionError:
            if not self._is_bound:
                raise
        parent, name = split(path)
        with access.while_open(self._directories.at(parent), name or b".") as opened:
            return _value(opened, key, follow_symlinks=True)

    def _proc_path(self, path: bytes) -> bytes:
        """A way to `path` through the descriptor of its parent: there is no getxattrat."""
        parent, name = split(path)
        return b"/proc/self/fd/%d/%s" % (self._directories.at(parent), name or b".")

    def target(self, node: Node) -> bytes:
        """Return the target of the symbolic link `node`, as written."""
        parent, name = split(node.path)
        above = self._directories.at(parent)
        try:
            return os.readlink(name, dir_fd=above)
        except OSError as error:
            if error.errno == errno.EINVAL:  # no link any more
                raise self._changed(node.path, sentences.REPLACED) from error
            raise self._failed(error, node.path) from error

    def blocks(self, node: Node) -> Iterator[bytes]:
        """The content of the regular file `node`, exactly `st_size` bytes, in full blocks of `BLOCK_BYTES` but the last.

        Raises:
            SourceChangedError: The file is not the one that was seen, or changed while it was read.
        Spec: layer-semantics 7.
        """
        file = self._open(node.path)
        try:
            self._check_unchanged(settle(file, self._fstat)[0], node)
            yield from self._read(file, node.stat.st_size, node.path)
            self._check_unchanged(self._fstat(file), node)
        finally:
            os.close(file)

    def take(self, node: Node) -> tuple[Node, Aside]:
        """The regular file at the place of `node` as it was at one moment, with its content apart from it.

        Raises:
            SourceChangedError: It changed meanwhile, other than by growing.
        Spec: layer-semantics 7.
        """
        file = self._open(node.path)
        try:
            seen, shows_changes = settle(file, self._fstat)
            if not stat.S_ISREG(seen.st_mode):
                raise self._changed(node.path, sentences.REPLACED)
            self._pace.bytes_aside = seen.st_size
            with ExitStack() as stack:
                aside = stack.enter_context(Aside(seen.st_size, self._spool))
                for block in self._read(file, seen.st_size, node.path):
                    aside.add(block)
                now = self._fstat(file)
                unchanged = is_same(now, seen)
                if not (unchanged or has_grown(seen, now)):
                    raise self._changed(node.path, what_changed(seen, now))
                if not (unchanged and shows_changes):
                    # If two readings are equal, the file had these bytes between them.
                    os.lseek(file, 0, os.SEEK_SET)
                    again = self._read(file, seen.st_size, node.path)
                    if any(one != other for one, other in zip(aside.blocks(), again, strict=True)):
                        raise self._changed(node.path, sentences.WRITTEN_TO)
                taken = self._seen(node.path, seen)
                stack.pop_all()
                return taken, aside
        finally:
            self._pace.bytes_aside = 0
            os.close(file)

    def _open(self, path: bytes) -> int:
        """The regular file `path`, open for reading; or else a fifo."""
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                raise self._changed(path, sentences.REPLACED) from error
            if error.errno != errno.EACCES or not self._is_bound:
                raise self._failed(error, path) from error
            try:
                with access.while_open(above, name) as opened:
                    return os.open(opened, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                raise self._failed(error, path) from error

    def _read(self, file: int, size: int, path: bytes) -> Iterator[bytes]:
        """The first `size` bytes of a file, in full blocks of `BLOCK_BYTES` but the last."""
        while size:
            block = self._read_full(file, min(size, BLOCK_BYTES), path)
            size -= len(block)
            yield block
            self._pace.check()

    def _read_full(self, file: int, size: int, path: bytes) -> bytes:
        """Exactly `size` bytes."""
        parts = []
        while size:
            try:
                part = os.read(file, size)
            except OSError as error:
                raise self._failed(error, path) from error
            if not part:
                raise self._changed(path, sentences.BECAME_SHORTER)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _check_unchanged(self, now: os.stat_result, node: Node) -> None:
        if not is_same(now, node.stat):
            raise self._changed(node.path, what_changed(node.stat, now))

    def _changed(self, path: bytes, reason: str) -> SourceChangedError:
        return source_changed(self.full(path), reason)

    def _failed(self, error: OSError, path: bytes) -> OSError | SourceChangedError:
        """Return the error of a failed call. A name that was listed and is gone now is a change of the tree."""
        if error.errno == errno.ENOENT:
            return self._changed(path, sentences.VANISHED)
        return self._directories.error(error, path)

    def _outside(self, node: Node, outside: LookupError) -> UnrepresentableError:
        kind, number = outside.args
        return unrepresentable(self.full(node.path), sentences.OUTSIDE_ID_MAP.format(kind=kind, id=number))


def _has_note(directory: int) -> bool:
    try:
        os.getxattr(b"/proc/self/fd/%d" % directory, NOTE)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.ERANGE)
    return True


def _keys(path: bytes) -> list[bytes]:
    try:
        return sorted(map(os.fsencode, os.listxattr(path, follow_symlinks=False)))
    except OSError as error:
        if error.errno in _NO_XATTR:
            return []
        raise


def _value(path: bytes, key: bytes, *, follow_symlinks: bool = False) -> bytes | None:
    try:
        return os.getxattr(path, key, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in _NO_XATTR:
            return None
        raise
