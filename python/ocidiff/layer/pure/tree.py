"""Reading one tree: names, stats, xattrs, link targets and contents, from directory descriptors, following nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Self

from ocidiff.errors import SourceChangedError, UnsupportedError
from ocidiff.layer.idmap import UNMAPPED
from ocidiff.layer.options import LayerOptions, OnChange, Profile
from ocidiff.layer.pure.aside import Aside
from ocidiff.layer.pure.directories import Directories, join, show, split
from ocidiff.layer.pure.live import has_grown, is_same, settle
from ocidiff.layer.pure.pace import BLOCK_BYTES, Pace
from ocidiff.mounts.mountinfo import has_mounts_below, mount_id

CAPABILITY: Final = b"security.capability"
_ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")
_NO_XATTR: Final = (errno.ENODATA, errno.ENOTSUP)


def is_user_visible(key: bytes) -> bool:
    """Whether the profile `oci` compares and stores the xattr `key`. Spec: layer-semantics 3, "Xattrs stored"."""
    return key == CAPABILITY or key in _ACLS or (key.startswith(b"user.") and not key.startswith(b"user.overlay."))


@dataclass(frozen=True, slots=True)
class Node:
    """A name in a tree and its lstat.

    Attributes:
        path: Relative to the root of the tree, never empty.
        stat: Its own, not that of what a link points to.
        uid, gid: Owner and group, in ids of the container; `UNMAPPED` for what is outside the id map.
    """

    path: bytes
    stat: os.stat_result
    uid: int
    gid: int

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.stat.st_mode)


class Tree:
    """A directory tree that is read once, in walk order.

    Raises:
        OSError: The root is missing or no directory, or something below it cannot be read.
    """

    def __init__(self, root: bytes, options: LayerOptions, pace: Pace) -> None:
        self._directories = Directories(root)
        self._profile = options.profile
        self._ids = options.ids
        self._spool = options.spool
        self._may_be_replaced = options.on_change is OnChange.RETRY
        self._pace = pace
        self._may_have_mounts = not options.scope.cross_mounts and has_mounts_below(self._directories.at(b""))

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
            found = os.lstat(name, dir_fd=above)
        except OSError as error:
            raise self._directories.error(error, path) from error
        return Node(path, found, *self._ids.owner(found))

    def check_ids(self, node: Node) -> None:
        """Refuse an owner or group outside the id map."""
        if UNMAPPED in (node.uid, node.gid):
            try:
                self._ids.map("user", node.stat.st_uid)
                self._ids.map("group", node.stat.st_gid)
            except LookupError as error:
                raise UnsupportedError(f"{show(self.full(node.path))}: {error}") from error

    def is_mount(self, node: Node) -> bool:
        """Whether something is mounted at `node`."""
        if not self._may_have_mounts:
            return False
        parent, name = split(node.path)
        above = self._directories.at(parent)
        try:
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        except OSError as error:
            raise self._directories.error(error, node.path) from error
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
                raise self._changed(path)
        return {name: join(path, name) for name in self._directories.names(path)}

    def names(self, path: bytes) -> list[bytes]:
        """The names in the directory `path`, in no order."""
        return self._directories.names(path)

    def keys(self, path: bytes) -> list[bytes]:
        """The names of all xattrs of `path`, sorted."""
        try:
            return _keys(self._proc_path(path))
        except OSError as error:
            raise self._directories.error(error, path) from error

    def xattr(self, path: bytes, key: bytes) -> bytes | None:
        """The xattr `key` of `path` as it is; it may be empty."""
        try:
            return _value(self._proc_path(path), key)
        except OSError as error:
            raise self._directories.error(error, path) from error

    def xattrs(self, node: Node) -> Mapping[bytes, bytes]:
        """The xattrs that the profile compares and stores; empty values count as none."""
        path = self._proc_path(node.path)
        try:
            keys = [CAPABILITY] if self._profile is Profile.CONTAINERD else filter(is_user_visible, _keys(path))
            return {key: self._ids.xattr(key, value) for key in keys if (value := _value(path, key))}
        except OSError as error:
            raise self._directories.error(error, node.path) from error
        except LookupError as error:
            raise UnsupportedError(f"{show(self.full(node.path))}: {error}") from error

    def _proc_path(self, path: bytes) -> bytes:
        """A way to `path` through the descriptor of its parent: there is no getxattrat."""
        parent, name = split(path)
        return b"/proc/self/fd/%d/%s" % (self._directories.at(parent), name or b".")

    def target(self, node: Node) -> bytes:
        """What the symbolic link `node` points to, as it stands."""
        parent, name = split(node.path)
        above = self._directories.at(parent)
        try:
            return os.readlink(name, dir_fd=above)
        except OSError as error:
            if error.errno == errno.EINVAL:  # no link any more
                raise self._changed(node.path) from error
            raise self._directories.error(error, node.path) from error

    def blocks(self, node: Node) -> Iterator[bytes]:
        """The content of the regular file `node`, exactly `st_size` bytes, in full blocks of `BLOCK_BYTES` but the last.

        Raises:
            SourceChangedError: The file is not the one that was seen, or changed while it was read.
        Spec: layer-semantics 7.
        """
        file = self._open(node.path)
        try:
            self._check_unchanged(settle(file)[0], node)
            yield from self._read(file, node.stat.st_size, node.path)
            self._check_unchanged(os.fstat(file), node)
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
            seen, shows_changes = settle(file)
            if not stat.S_ISREG(seen.st_mode):
                raise self._changed(node.path)
            self._pace.bytes_aside = seen.st_size
            with ExitStack() as stack:
                aside = stack.enter_context(Aside(seen.st_size, self._spool))
                for block in self._read(file, seen.st_size, node.path):
                    aside.add(block)
                now = os.fstat(file)
                unchanged = is_same(now, seen)
                if not (unchanged or has_grown(seen, now)):
                    raise self._changed(node.path)
                if not (unchanged and shows_changes):
                    # What is read twice was all there between the two readings.
                    os.lseek(file, 0, os.SEEK_SET)
                    again = self._read(file, seen.st_size, node.path)
                    if any(one != other for one, other in zip(aside.blocks(), again, strict=True)):
                        raise self._changed(node.path)
                stack.pop_all()
                return Node(node.path, seen, *self._ids.owner(seen)), aside
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
                raise self._changed(path) from error
            raise self._directories.error(error, path) from error

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
                raise self._directories.error(error, path) from error
            if not part:
                raise self._changed(path)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _check_unchanged(self, now: os.stat_result, node: Node) -> None:
        if not is_same(now, node.stat):
            raise self._changed(node.path)

    def _changed(self, path: bytes) -> SourceChangedError:
        return SourceChangedError(f"{show(self.full(path))}: changed while it was read")


def _keys(path: bytes) -> list[bytes]:
    try:
        return sorted(map(os.fsencode, os.listxattr(path, follow_symlinks=False)))
    except OSError as error:
        if error.errno in _NO_XATTR:
            return []
        raise


def _value(path: bytes, key: bytes) -> bytes | None:
    try:
        return os.getxattr(path, key, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_XATTR:
            return None
        raise
