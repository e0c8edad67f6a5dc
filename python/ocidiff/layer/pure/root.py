"""The one door to a directory that is written: whatever a layer names, nothing outside the root is read, made or removed.

Paths are relative and real, that is clean and free of symbolic links but for the last name, which is never followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container
from typing import Final, Self

from ocidiff.errors import UnsafeLayerError
from ocidiff.layer.pure.directories import Directories, join, show, split
from ocidiff.layer.pure.pace import Pace

_MAX_LINKS: Final = 40  # symbolic links in one path, as the kernel counts
_MAX_RESOLVED: Final = 1024  # paths that are remembered
OWNER_ALL: Final = 0o700
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Root:
    """The directory that a layer is written onto.

    Attributes:
        made: Directories that `resolve` made.
        replacing: Those of them that are in place of something else.
        granted: Modes of directories that were closed to us and had to be opened, by inode and with their paths.

    Raises:
        OSError: It is missing or no directory.
    """

    def __init__(self, path: bytes, pace: Pace) -> None:
        self._directories = Directories(path)
        self._pace = pace
        self.granted: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.made: list[bytes] = []
        self.replacing: list[bytes] = []
        self._resolved: dict[bytes, bytes] = {b"": b""}  # paths of directories; none leads through what was removed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._directories.__exit__()

    def error(self, error: OSError, path: bytes) -> OSError:
        """The same failure, told of the whole path."""
        return self._directories.error(error, path)

    def resolve(self, path: bytes, *, create: bool) -> bytes:
        """The real path of the directory `path`, with links followed as if the root were `/`.

        Args:
            path: Relative to the root, clean.
            create: Whether directories are made, with mode 0755, where there are none.

        Raises:
            FileNotFoundError, NotADirectoryError: There is none, and none is made.
            UnsafeLayerError: There are too many links.
        """
        known = path
        while known not in self._resolved:
            known = split(known)[0]
        real = [name for name in self._resolved[known].split(b"/") if name]
        todo = path[len(known) :].split(b"/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                del real[-1:]
                continue
            here = b"/".join([*real, name])
            facts = self.lstat(here)
            if facts is None and not create:
                raise self.error(OSError(errno.ENOENT, os.strerror(errno.ENOENT)), here)
            if facts is None:
                self.make_directory(here)
                self.made.append(here)
            elif stat.S_ISLNK(facts.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise UnsafeLayerError(f"{show(path)}: too many symbolic links")
                target = self._target(here)
                if target.startswith(b"/"):
                    real.clear()
                todo += target.split(b"/")[::-1]
                continue
            elif stat.S_ISDIR(facts.st_mode):
                self._grant(here, facts)
            elif create:
                self._unlink(here, facts)
                self.make_directory(here)
                self.made.append(here)
                self.replacing.append(here)
            else:
                raise self.error(OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)), here)
            real.append(name)
        if len(self._resolved) > _MAX_RESOLVED:
            self._resolved = {b"": b""}
        self._resolved[path] = b"/".join(real)
        return self._resolved[path]

    def lstat(self, path: bytes) -> os.stat_result | None:
        """The lstat of `path`; None when nothing is there. Every loop over many names passes here and can be stopped."""
        self._pace.check()
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            return os.lstat(name, dir_fd=above)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.error(error, path) from error

    def remove(self, path: bytes, keep: Container[bytes] = ()) -> None:
        """Remove `path` and all below it, except what `keep` holds; it holds the directories above each of its paths too."""
        todo = [(path, False)]
        while todo:
            here, emptied = todo.pop()
            facts = self.lstat(here)
            if facts is None:
                continue
            is_dir = stat.S_ISDIR(facts.st_mode)
            if is_dir and not emptied:
                self._grant(here, facts)
                todo.append((here, True))
                todo += [(child, False) for child in self.children(here)]
            elif here not in keep:
                self._unlink(here, facts)

    def clean_up(self, path: bytes) -> None:
        """Remove `path` and all below it after a failure, even if the call was cancelled."""
        self._pace.stop_polling()
        self.remove(path)

    def children(self, path: bytes) -> list[bytes]:
        """The paths of what is in the directory `path`."""
        return [join(path, name) for name in self._directories.names(path)]

    def make_directory(self, path: bytes) -> None:
        """Make a directory of mode 0755."""
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            os.mkdir(name, dir_fd=above)
        except OSError as error:
            raise self.error(error, path) from error
        self.set_mode(path, 0o755)  # whatever the umask is

    def make_file(self, path: bytes) -> int:
        """Make a regular file of mode 0600 and give a descriptor to write it, which the caller closes."""
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            return os.open(name, _NEW_FILE, 0o600, dir_fd=above)
        except OSError as error:
            raise self.error(error, path) from error

    def make_symlink(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link; its target is not looked at."""
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            os.symlink(target, name, dir_fd=above)
        except OSError as error:
            raise self.error(error, path) from error

    def make_hard_link(self, path: bytes, target: bytes) -> None:
        """Make `path` another name of `target`, which is not followed."""
        source_parent, source = split(target)
        parent, name = split(path)
        source_above = os.dup(self._directories.at(source_parent))
        try:
            above = self._directories.at(parent)
            os.link(source, name, src_dir_fd=source_above, dst_dir_fd=above, follow_symlinks=False)
        except OSError as error:
            full = self._directories.full
            raise OSError(error.errno, error.strerror, os.fsdecode(full(target)), None, os.fsdecode(full(path))) from error
        finally:
            os.close(source_above)

    def make_node(self, path: bytes, kind: int, device: int, *, mode: int = 0o600) -> None:
        """Make a FIFO or device; `kind` is the type part of a mode."""
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            os.mknod(name, kind | mode, device, dir_fd=above)
        except OSError as error:
            raise self.error(error, path) from error

    def set_owner(self, path: bytes, uid: int, gid: int) -> None:
        """Give `path` its owner; the kernel clears set-id bits and capabilities with it."""
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            os.chown(name, uid, gid, dir_fd=above, follow_symlinks=False)
        except OSError as error:
            raise self.error(error, path) from error

    def set_mode(self, path: bytes, mode: int) -> None:
        """Give `path`, which is no symbolic link, its mode."""
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            # chmod has no form that does not follow: pin the inode first, then go through its descriptor.
            pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            try:
                if stat.S_ISLNK(os.fstat(pinned).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                os.chmod(f"/proc/self/fd/{pinned}", mode)
            finally:
                os.close(pinned)
        except OSError as error:
            raise self.error(error, path) from error

    def set_times(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        """Give `path` its times; what the system cannot hold becomes 1970."""
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            try:
                os.utime(name, ns=(atime_ns, mtime_ns), dir_fd=above, follow_symlinks=False)
            except OverflowError:
                os.utime(name, ns=(0, 0), dir_fd=above, follow_symlinks=False)
        except OSError as error:
            raise self.error(error, path) from error

    def xattrs(self, path: bytes) -> list[bytes]:
        """The names of the xattrs of `path`."""
        try:
            return [os.fsencode(key) for key in os.listxattr(self._leaf(path), follow_symlinks=False)]
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return []
            raise self.error(error, path) from error

    def get_xattr(self, path: bytes, key: bytes) -> bytes | None:
        """One xattr of `path`; None where it has none such."""
        try:
            return os.getxattr(self._leaf(path), key, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return None
            raise self.error(error, path) from error

    def set_xattr(self, path: bytes, key: bytes, value: bytes) -> None:
        """Give `path` one xattr."""
        try:
            os.setxattr(self._leaf(path), key, value, follow_symlinks=False)
        except OSError as error:
            raise self.error(error, path) from error

    def remove_xattr(self, path: bytes, key: bytes) -> None:
        """Take one xattr from `path`."""
        try:
            os.removexattr(self._leaf(path), key, follow_symlinks=False)
        except OSError as error:
            raise self.error(error, path) from error

    def _grant(self, path: bytes, facts: os.stat_result) -> None:
        """Make sure that we can work in a directory of ours."""
        if facts.st_uid == os.geteuid() and facts.st_mode & OWNER_ALL != OWNER_ALL:
            self.granted.setdefault((facts.st_dev, facts.st_ino), (path, stat.S_IMODE(facts.st_mode)))
            self.set_mode(path, stat.S_IMODE(facts.st_mode) | OWNER_ALL)

    def _leaf(self, path: bytes) -> bytes:
        """A path of `path` for calls that take no directory descriptor; only the last name is looked up anew."""
        parent, name = split(path)
        return b"/proc/self/fd/%d/%s" % (self._directories.at(parent), name)

    def _target(self, path: bytes) -> bytes:
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            return os.readlink(name, dir_fd=above)
        except OSError as error:
            raise self.error(error, path) from error

    def _unlink(self, path: bytes, facts: os.stat_result) -> None:
        is_dir = stat.S_ISDIR(facts.st_mode)
        if is_dir:
            self.granted.pop((facts.st_dev, facts.st_ino), None)  # the next inode may get its number
        if not stat.S_ISREG(facts.st_mode):
            self._resolved = {b"": b""}
        parent, name = split(path)
        above = self._directories.at(parent)
        try:
            if is_dir:
                os.rmdir(name, dir_fd=above)
            else:
                os.unlink(name, dir_fd=above)
        except OSError as error:
            raise self.error(error, path) from error


def clean(name: bytes) -> bytes:
    """The name of an entry as a relative path without `.`, `..` and empty components; nothing climbs over the root."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
