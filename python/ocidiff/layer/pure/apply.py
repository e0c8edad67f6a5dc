"""What each entry of a layer does to a directory. Spec: layer-semantics 11.

Law: whiteouts remove what lower layers left, never what the same layer wrote, wherever they stand in it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable
from typing import Final

from ocidiff.errors import MalformedLayerError
from ocidiff.layer.pure import tar
from ocidiff.layer.pure.directories import join, show, split
from ocidiff.layer.pure.root import Root, clean
from ocidiff.layer.pure.tar_reader import Entry
from ocidiff.layer.pure.tree import is_user_visible
from ocidiff.layer.pure.whiteout import Aufs, Opaque, Removal, read_whiteout

_OWNER_ALL: Final = 0o700
_SET_IDS: Final = stat.S_ISUID | stat.S_ISGID
_MAX_ID: Final = (1 << 32) - 2  # the next one means "leave it" to chown
_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1
_NODES: Final = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
_LEFT_OUT_XATTRS: Final = (b"trusted.", b"user.overlay.")  # of overlayfs, or nobody's but the host's


class Applier:
    """Applies entries in stream order.

    Attributes:
        whiteouts: How many entries were whiteouts.
        skipped: What could not be kept, by reason.
    """

    def __init__(self, root: Root, *, same_owner: bool) -> None:
        self._root = root
        self._same_owner = same_owner
        self._written: set[bytes] = set()  # real paths, and those of the directories above them
        self._directories: dict[bytes, tuple[tuple[int, int], Entry]] = {}
        self.whiteouts = 0
        self.skipped: Counter[str] = Counter()

    def apply(self, entry: Entry, data: Iterable[bytes]) -> None:
        """Do what `entry` says.

        Raises:
            MalformedLayerError: The entry contradicts the format.
            OSError: The system refuses it.
        """
        path = clean(entry.name)
        if not path:
            return  # the root's own metadata belongs to whoever made it
        parent, name = split(path)
        whiteout = read_whiteout(path)
        if isinstance(whiteout, Aufs):
            self.skipped["aufs"] += 1
            return
        parent = self._root.resolve(parent, create=True)
        if isinstance(whiteout, Removal):
            self.whiteouts += 1
            self._root.remove(join(parent, whiteout.name), self._written)
        elif isinstance(whiteout, Opaque):
            self.whiteouts += 1
            for child in self._root.children(parent):
                self._root.remove(child, self._written)
        else:
            self._write(join(parent, name), entry, data)

    def finish(self) -> None:
        """Give the directories their final modes and times, now that nothing more is made in them, children first."""
        for path, (inode, entry) in reversed(self._directories.items()):
            try:
                facts = self._root.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if facts is None or (facts.st_dev, facts.st_ino) != inode:
                continue  # it was replaced later in the same layer
            if entry.mode & _OWNER_ALL != _OWNER_ALL:
                self._root.set_mode(path, entry.mode)
            self._root.set_times(path, entry.atime_ns, entry.mtime_ns)

    def _write(self, path: bytes, entry: Entry, data: Iterable[bytes]) -> None:
        if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
            raise MalformedLayerError(f"{show(entry.name)}: owner {entry.uid}:{entry.gid} is out of range")
        target = self._link_target(path, entry) if entry.type == tar.HARD_LINK else b""
        there = self._root.lstat(path)
        is_merged = there is not None and stat.S_ISDIR(there.st_mode) and entry.type == tar.DIRECTORY
        if there is not None and not is_merged:
            self._root.remove(path)
        if entry.type == tar.DIRECTORY:
            if not is_merged:
                self._root.make_directory(path)
        elif entry.type == tar.REGULAR:
            self._write_file(path, data)
        elif entry.type == tar.HARD_LINK:
            self._root.make_hard_link(path, target)
        elif entry.type == tar.SYMLINK:
            self._root.make_symlink(path, entry.linkname)
        elif not self._make_node(path, entry):
            return
        self._remember(path)
        self._set_metadata(path, entry)

    def _link_target(self, path: bytes, entry: Entry) -> bytes:
        """The real path that a hard link names; it exists. Spec: layer-semantics 11.4."""
        parent, name = split(clean(entry.linkname))
        if not name:
            raise MalformedLayerError(f"{show(entry.name)}: hard link to the root")
        target = join(self._root.resolve(parent, create=False), name)
        if target == path:
            raise MalformedLayerError(f"{show(entry.name)}: hard link to itself")
        if self._root.lstat(target) is None:
            raise self._root.error(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), target)
        return target

    def _write_file(self, path: bytes, data: Iterable[bytes]) -> None:
        file = self._root.make_file(path)
        try:
            for block in data:
                with memoryview(block) as left:
                    done = 0
                    while done < len(left):
                        done += os.write(file, left[done:])
        except OSError as error:
            raise self._root.error(error, path) from error
        finally:
            os.close(file)

    def _make_node(self, path: bytes, entry: Entry) -> bool:
        """Make a device or FIFO; false when it is left out."""
        major, minor = entry.device
        if entry.type != tar.FIFO and not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
            raise MalformedLayerError(f"{show(entry.name)}: device number {major}:{minor} is out of range")
        device = 0 if entry.type == tar.FIFO else os.makedev(major, minor)
        try:
            self._root.make_node(path, _NODES[entry.type], device)
        except PermissionError:
            if self._same_owner or entry.type == tar.FIFO:
                raise
            self.skipped["devices"] += 1
            return False
        return True

    def _remember(self, path: bytes) -> None:
        """Count `path` and the directories above it as written by this layer."""
        while path and path not in self._written:
            self._written.add(path)
            path = split(path)[0]

    def _set_metadata(self, path: bytes, entry: Entry) -> None:
        """Owner, xattrs, mode, times: in this order, since a new owner clears capabilities and set-id bits."""
        facts = self._root.lstat(path)
        if facts is None:
            raise self._root.error(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), path)
        mode = entry.mode
        if self._same_owner:
            self._root.set_owner(path, entry.uid, entry.gid)
        elif (facts.st_uid, facts.st_gid) != (entry.uid, entry.gid):
            self.skipped["owners"] += 1
            if not stat.S_ISDIR(facts.st_mode):
                mode &= ~_SET_IDS  # they would hand out the rights of another owner than the recorded one
        self._set_xattrs(path, entry, facts.st_mode)
        if stat.S_ISDIR(facts.st_mode):
            self._directories.pop(path, None)  # so that the order is that of the last entry
            self._directories[path] = ((facts.st_dev, facts.st_ino), entry)
            self._root.set_mode(path, mode | _OWNER_ALL)  # children are still to come
            return
        if not stat.S_ISLNK(facts.st_mode):
            self._root.set_mode(path, mode)
        self._root.set_times(path, entry.atime_ns, entry.mtime_ns)

    def _set_xattrs(self, path: bytes, entry: Entry, file_mode: int) -> None:
        """The entry's xattrs replace those that a layer can carry.

        Others may come from a directory that was there, or from default ACLs of the parent.
        """
        for key in self._root.xattrs(path):
            if is_user_visible(key) and key not in entry.xattrs:
                self._root.remove_xattr(path, key)
        for key, value in entry.xattrs.items():
            if key.startswith(_LEFT_OUT_XATTRS):
                self.skipped["xattrs"] += 1
                continue
            try:
                self._root.set_xattr(path, key, value)
            except OSError as error:
                if not self._may_lack(key, error.errno, file_mode):
                    raise
                self.skipped["xattrs"] += 1

    def _may_lack(self, key: bytes, cause: int | None, file_mode: int) -> bool:
        if cause == errno.EPERM:
            no_user_xattrs = key.startswith(b"user.") and not (stat.S_ISREG(file_mode) or stat.S_ISDIR(file_mode))
            return no_user_xattrs or not self._same_owner
        return cause == errno.ENOTSUP
