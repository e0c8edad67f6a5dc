"""What each entry of a layer does to a directory. Spec: layer-semantics 11.

Law: whiteouts remove what lower layers left, never what the same layer wrote, wherever they stand in it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Self

from ocidiff.errors import MalformedLayerError, UnsafeLayerError
from ocidiff.layer.layer import RECORD
from ocidiff.layer.options import ApplyOptions, Destination
from ocidiff.layer.pure import tar
from ocidiff.layer.pure.directories import join, show, split
from ocidiff.layer.pure.root import OWNER_ALL, Root, clean
from ocidiff.layer.pure.stream import limit_exceeded
from ocidiff.layer.pure.tar_reader import Entry
from ocidiff.layer.pure.tree import is_user_visible
from ocidiff.layer.pure.upper import Upper
from ocidiff.layer.pure.whiteout import PSEUDO_LINKS, Aufs, Opaque, Removal, is_pseudo_link, read_whiteout

_SET_IDS: Final = stat.S_ISUID | stat.S_ISGID
_MAX_ID: Final = (1 << 32) - 2  # the next one means "leave it" to chown
_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1
_NODES: Final = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
_XATTR_FAULTS: Final = (
    errno.EINVAL,
    errno.ERANGE,
    errno.E2BIG,
    errno.ENOSPC,
)  # what the kernel says of the attribute, not of the file
_LEFT_OUT_XATTRS: Final = (b"trusted.", b"user.overlay.")  # of overlayfs, or nobody's but the host's


class Applier:
    """Applies entries in stream order.

    Attributes:
        whiteouts: How many entries were whiteouts.
        skipped: What could not be kept, by reason.
        recorded: How much of that is noted in attributes.
    """

    def __init__(self, root: Root, options: ApplyOptions) -> None:
        self._root = root
        self._same_owner = options.sets_owners
        self._may_lack_devices = not self._same_owner or _is_in_user_namespace()
        self._limits = options.limits
        self._upper = None if options.destination is Destination.DIRECTORY else Upper(root, options.destination)
        self._written: set[bytes] = set()  # real paths, and those of the directories above them
        self._settled: set[bytes] = (
            set() if root.children(b"") else {b""}
        )  # directories in which nothing is of a lower layer
        self._directories: dict[tuple[int, int], tuple[bytes, int, tuple[int, int] | None]] = {}  # path, mode, times
        self._left_out: set[bytes] = set()  # devices that could not be made
        self._stand_ins: set[tuple[int, int]] = set()  # files that stand for such
        self._has_aside = False  # the directory of files that were kept aside is there
        self.whiteouts = 0
        self.recorded = 0
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
        depth = path.count(b"/") + 1 if path else 0
        if depth > self._limits.max_depth:
            raise limit_exceeded("max_depth", depth, self._limits.max_depth, entry.offset, path)
        if not path:
            if entry.type != tar.DIRECTORY:
                raise UnsafeLayerError(f"{show(entry.name)}: the root can only be a directory")
            return  # its own metadata belongs to whoever made it
        parent, name = split(path)
        whiteout = read_whiteout(path)
        if isinstance(whiteout, Aufs):
            self._keep_aside(path, entry, data)
            return
        parent = self._make_parent(parent)
        if isinstance(whiteout, Removal):
            self.whiteouts += 1
            self._root.remove(join(parent, whiteout.name), self._written)
            if self._upper is not None:
                self._upper.hide(join(parent, whiteout.name))
        elif isinstance(whiteout, Opaque):
            self.whiteouts += 1
            for child in self._root.children(parent):
                self._root.remove(child, self._written)
            if self._upper is not None:
                self._upper.make_opaque(parent)
        else:
            self._write(join(parent, name), entry, data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_aside:
            # The first error is the one that counts.
            with suppress(OSError):
                self._root.clean_up(PSEUDO_LINKS)

    def finish(self) -> None:
        """Remove what was kept aside, and give the directories their final modes and times, children first."""
        if self._has_aside:
            self._root.remove(PSEUDO_LINKS)
            self._has_aside = False
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

    def _keep_aside(self, path: bytes, entry: Entry, data: Iterable[bytes]) -> None:
        """Keep a file of AUFS's for the hard links that lead to it, and leave out all else that it noted."""
        is_kept = entry.type == tar.REGULAR and is_pseudo_link(path)
        if is_kept and not self._has_aside:
            # A directory of that name which was there before is none of ours.
            is_kept = self._has_aside = self._root.lstat(PSEUDO_LINKS) is None
        if not is_kept:
            self.skipped["aufs"] += 1
            return
        self._make_parent(PSEUDO_LINKS)
        self._write(path, entry, data)

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
        if there is not None and self._is_collision(path):
            raise UnsafeLayerError(f"{show(entry.name)}: the file system takes its name for that of another entry")
        if there is not None and not is_merged:
            self._root.remove(path)
        if entry.type == tar.DIRECTORY:
            if not is_merged:
                self._root.make_directory(path)
                self._settled.add(path)
            if there is not None and not is_merged and self._upper is not None:
                self._upper.make_opaque(path)
        elif entry.type == tar.REGULAR:
            self._write_file(path, data)
        elif entry.type == tar.HARD_LINK:
            self._root.make_hard_link(path, target)
        elif entry.type == tar.SYMLINK:
            self._root.make_symlink(path, entry.linkname)
        elif not self._make_node(path, entry):
            self._make_stand_in(path, entry)
            return
        self._remember(path)
        # A file that was kept aside says itself what it is.
        if entry.type != tar.HARD_LINK or not is_pseudo_link(clean(entry.linkname)):
            self._set_metadata(path, entry)

    def _make_parent(self, path: bytes) -> bytes:
        """The real path of the directory `path`; what has to be made for it counts as written."""
        real = self._root.resolve(path, create=True)
        for made in self._root.made:
            self._remember(made)
            self._settled.add(made)
            facts = self._root.lstat(made)
            if facts is not None:  # it may have the inode number of a directory that is gone
                self._directories.pop((facts.st_dev, facts.st_ino), None)
        if self._upper is not None:
            for made in self._root.replacing:
                self._upper.make_opaque(made)
        self._root.made.clear()
        self._root.replacing.clear()
        return real

    def _is_collision(self, path: bytes) -> bool:
        """Whether something has a name that nothing can have: the file system takes two names for one."""
        is_whiteout = self._upper is not None and path in self._upper.whiteouts
        return split(path)[0] in self._settled and path not in self._written and not is_whiteout

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
            if entry.type == tar.FIFO or not self._may_lack_devices:
                raise
            return False
        return True

    def _make_stand_in(self, path: bytes, entry: Entry) -> None:
        """Make an empty file that notes which device it stands for; nothing where that cannot be noted."""
        self.skipped["devices"] += 1
        os.close(self._root.make_file(path))
        self.skipped["owners"] += not self._keeps(entry)
        if not self._record(path, entry, stat.S_IFREG):
            self._root.remove(path)
            self._left_out.add(path)
            return
        # Nobody shall take it for something to write to; but who may not read it could not read its note.
        self._root.set_mode(path, 0o400)
        self._root.set_times(path, entry.atime_ns, entry.mtime_ns)
        facts = self._root.lstat(path)
        if facts is not None:
            self._stand_ins.add((facts.st_dev, facts.st_ino))
        self._remember(path)

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
        if (facts.st_dev, facts.st_ino) in self._stand_ins:
            return  # what a hard link says of a device does not hold for it
        mode = entry.mode
        if self._same_owner and (entry.uid, entry.gid) != (facts.st_uid, facts.st_gid):
            self._set_owner(path, entry)  # else it would clear what a link entry may not repeat
        self._set_xattrs(path, entry, facts.st_mode)
        if not self._keeps(entry):
            self.skipped["owners"] += 1
            self._record(path, entry, facts.st_mode)
            mode &= ~_SET_IDS  # they would lend the rights of somebody else
        if stat.S_ISDIR(facts.st_mode):
            self._directories[facts.st_dev, facts.st_ino] = (path, mode, (entry.atime_ns, entry.mtime_ns))
            self._root.set_mode(path, mode | OWNER_ALL)  # children are still to come
            return
        if not stat.S_ISLNK(facts.st_mode):
            self._root.set_mode(path, mode)
        self._root.set_times(path, entry.atime_ns, entry.mtime_ns)

    def _keeps(self, entry: Entry) -> bool:
        return self._same_owner or (entry.uid, entry.gid) == (os.geteuid(), os.getegid())

    def _set_owner(self, path: bytes, entry: Entry) -> None:
        try:
            self._root.set_owner(path, entry.uid, entry.gid)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            owner = f"{entry.uid}:{entry.gid}"
            raise UnsafeLayerError(f"{show(entry.name)}: owner {owner} is unknown to this user namespace") from error

    def _record(self, path: bytes, entry: Entry, file_mode: int) -> bool:
        """Note owner, mode and device that the entry has and the object has not; false when that cannot be."""
        if not (stat.S_ISREG(file_mode) or stat.S_ISDIR(file_mode)):
            return False  # nothing else can have an attribute of a user
        text = f"{entry.uid}:{entry.gid}:0{entry.mode:o}"
        if entry.type in (tar.CHARACTER, tar.BLOCK):
            text += f":{'char' if entry.type == tar.CHARACTER else 'block'}-{entry.device[0]}-{entry.device[1]}"
        try:
            self._root.set_xattr(path, RECORD.encode(), text.encode())
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
                return False
            raise
        self.recorded += 1
        return True

    def _set_xattrs(self, path: bytes, entry: Entry, file_mode: int) -> None:
        """The entry's xattrs replace those that a layer can carry.

        Others come from a directory that was there, or from default ACLs of the parent. A link entry may leave out those of
        its inode.
        """
        if entry.type not in (tar.HARD_LINK, tar.SYMLINK):
            for key in self._root.xattrs(path):
                if is_user_visible(key) and key not in entry.xattrs:
                    self._root.remove_xattr(path, key)
        for name, value in entry.xattrs.items():
            key = name if self._upper is None else self._upper.escape(name)
            if key == name and (key.startswith(_LEFT_OUT_XATTRS) or key == RECORD.encode()):
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


def _is_in_user_namespace() -> bool:
    """Whether even root may make no devices. Where it cannot be told, it may."""
    try:
        with open("/proc/self/uid_map") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False
