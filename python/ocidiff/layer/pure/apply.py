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

from ocidiff.errors import LimitExceededError, MalformedLayerError, UnsafeLayerError
from ocidiff.layer.pure import tar
from ocidiff.layer.pure.directories import join, show, split
from ocidiff.layer.pure.root import OWNER_ALL, Root, clean
from ocidiff.layer.pure.tar_reader import Entry
from ocidiff.layer.pure.tree import is_user_visible
from ocidiff.layer.pure.whiteout import Aufs, Opaque, Removal, read_whiteout

_SET_IDS: Final = stat.S_ISUID | stat.S_ISGID
_MAX_ID: Final = (1 << 32) - 2  # the next one means "leave it" to chown
_MAX_DEPTH: Final = 2048  # components of what a path of PATH_MAX bytes can hold
_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1
_NODES: Final = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
_XATTR_FAULTS: Final = (errno.EINVAL, errno.ERANGE, errno.E2BIG)  # what the kernel says of the attribute, not of the file
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
        self._directories: dict[tuple[int, int], tuple[bytes, int, tuple[int, int] | None]] = {}  # path, mode, times
        self._left_out: set[bytes] = set()  # devices that could not be made
        self.whiteouts = 0
        self.skipped: Counter[str] = Counter()

    def apply(self, entry: Entry, data: Iterable[bytes]) -> None:
        """Do what `entry` says.

        Raises:
            MalformedLayerError: The entry contradicts the format.
            UnsafeLayerError: It asks for what is never done.
            LimitExceededError: It lies too deep.
            OSError: The system refuses it.
        """
        path = clean(entry.name)
        if path.count(b"/") >= _MAX_DEPTH:
            raise LimitExceededError(f"limit max_depth exceeded at {show(path)}: {path.count(b'/') + 1}")
        if not path:
            if entry.type != tar.DIRECTORY:
                raise UnsafeLayerError(f"{show(entry.name)}: the root can only be a directory")
            return  # its own metadata belongs to whoever made it
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
        rests = {inode: (path, mode, None) for inode, (path, mode) in self._root.granted.items()} | self._directories
        for inode, (path, mode, times) in sorted(rests.items(), key=lambda rest: -rest[1][0].count(b"/")):
            try:
                facts = self._root.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if facts is None or not stat.S_ISDIR(facts.st_mode) or (facts.st_dev, facts.st_ino) != inode:
                continue  # it was replaced later in the same layer
            if mode & OWNER_ALL != OWNER_ALL:
                self._root.set_mode(path, mode)
            if times is not None:
                self._root.set_times(path, *times)

    def _write(self, path: bytes, entry: Entry, data: Iterable[bytes]) -> None:
        if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
            raise UnsafeLayerError(f"{show(entry.name)}: owner {entry.uid}:{entry.gid} is out of range")
        target = self._link_target(path, entry) if entry.type == tar.HARD_LINK else b""
        self._left_out.discard(path)
        if target in self._left_out:
            self._leave_out(path)
            return
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
        wrong = f"hard link {show(entry.name)} to {show(entry.linkname)}: "
        try:
            target = join(self._root.resolve(parent, create=False), name)
            there = self._root.lstat(target) if name else None
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MalformedLayerError(wrong + "it does not exist") from error
        if target in self._left_out:
            return target
        if not name or (there is not None and stat.S_ISDIR(there.st_mode)):
            raise MalformedLayerError(wrong + "it is a directory")
        if there is None:
            raise MalformedLayerError(wrong + "it does not exist")
        if target == path:
            raise MalformedLayerError(wrong + "it is the same name")
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
            raise UnsafeLayerError(f"{show(entry.name)}: device number {major}:{minor} is out of range")
        if entry.type == tar.CHARACTER and entry.device == (0, 0):
            raise UnsafeLayerError(f"{show(entry.name)}: character device 0:0 is a whiteout of overlayfs")
        device = 0 if entry.type == tar.FIFO else os.makedev(major, minor)
        try:
            self._root.make_node(path, _NODES[entry.type], device)
        except PermissionError:
            if self._same_owner or entry.type == tar.FIFO:
                raise
            self._leave_out(path)
            return False
        return True

    def _leave_out(self, path: bytes) -> None:
        """Count a device, or one more name of it, that could not be made."""
        self.skipped["devices"] += 1
        self._left_out.add(path)

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
        mode, owner = entry.mode, (entry.uid, entry.gid)
        if self._same_owner:
            if owner != (facts.st_uid, facts.st_gid):  # else it would clear what a link entry may not repeat
                self._root.set_owner(path, *owner)
        elif owner != (os.geteuid(), os.getegid()):
            self.skipped["owners"] += 1
            mode &= ~_SET_IDS  # they would lend the rights of somebody else
        self._set_xattrs(path, entry, facts.st_mode)
        if stat.S_ISDIR(facts.st_mode):
            self._directories[facts.st_dev, facts.st_ino] = (path, mode, (entry.atime_ns, entry.mtime_ns))
            self._root.set_mode(path, mode | OWNER_ALL)  # children are still to come
            return
        if not stat.S_ISLNK(facts.st_mode):
            self._root.set_mode(path, mode)
        self._root.set_times(path, entry.atime_ns, entry.mtime_ns)

    def _set_xattrs(self, path: bytes, entry: Entry, file_mode: int) -> None:
        """The entry's xattrs replace those that a layer can carry.

        Others come from a directory that was there, or from default ACLs of the parent. A link entry may leave out those of
        its inode.
        """
        if entry.type not in (tar.HARD_LINK, tar.SYMLINK):
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
                if error.errno in _XATTR_FAULTS:
                    raise UnsafeLayerError(f"{show(entry.name)}: xattr {show(key)}: {error.strerror}") from error
                if not self._may_lack(key, error.errno, file_mode):
                    raise
                self.skipped["xattrs"] += 1

    def _may_lack(self, key: bytes, cause: int | None, file_mode: int) -> bool:
        if cause == errno.EPERM:
            has_user_xattrs = stat.S_ISREG(file_mode) or stat.S_ISDIR(file_mode)
            is_privileged = key.startswith(b"security.") and not self._same_owner
            return is_privileged or (key.startswith(b"user.") and not has_user_xattrs)
        return cause == errno.ENOTSUP
