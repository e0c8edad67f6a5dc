"""Share: what a working container has changed, as a snapshot of its own, without copying it.

Where the file system can, files are cloned. Elsewhere they are linked into the new snapshot, which must never change: so the
container notes that it shares them, and before it is mounted again it gets copies of its own.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ocidiff.errors import UnsupportedError
from ocidiff.snapshot.clone import clone_file, copy_attributes

_NOTE: Final = "shared"
_TREE: Final = "fs"
_NS_PER_SECOND: Final = 10**9
_MODE: Final = 0o7777
# What a layer carries, and what overlayfs needs to read an upper directory.
_CARRIED: Final = frozenset({"security.capability", "system.posix_acl_access", "system.posix_acl_default"})
_MARKS: Final = frozenset(f"{space}.overlay.{name}" for space in ("trusted", "user") for name in ("opaque", "whiteout"))
_BOOKKEEPING: Final = ("trusted.overlay.", "user.overlay.")


# Path, new path and lstat.
_Entry = tuple[bytes, bytes, os.stat_result]


def share_changes(source: str, target: str, *, link: bool, latest_ns: int | None, check: Callable[[], None]) -> None:
    """Fill the tree of a new snapshot with what another one holds, as applying a layer of it would.

    That is with times in whole seconds, without sockets, and with only the attributes that a layer has.

    Args:
        source: Directory of the container's snapshot, which nobody writes to when files are linked.
        target: Directory of the new snapshot, whose tree is empty.
        link: Link files instead of cloning them.
        latest_ns: Bound of modification times; None for none.
        check: Called for every entry; what it raises ends the call.

    Raises:
        UnsupportedError: A file to be linked has an attribute that no layer has, or a later time than the bound, which the
            source and all that share the file would get too.
    """
    top = os.fsencode(os.path.join(source, _TREE))
    files, directories = _outline(top, os.fsencode(os.path.join(target, _TREE)), latest_ns, check)
    if link:
        _note_times(source, top, files, latest_ns)
    linked: dict[tuple[int, int], bytes] = {}
    for path, new, info in files:
        check()
        if link:
            os.link(path, new)
            os.utime(new, ns=(info.st_atime_ns, _time(info, None)))
            continue
        inode = (info.st_dev, info.st_ino)
        if inode in linked:
            os.link(linked[inode], new)
            continue
        linked[inode] = new
        clone_file(path, new)
        _finish(path, new, info, latest_ns)
    # Children change the times of their directory, and its mode may forbid them.
    for path, new, info in reversed(directories):
        _finish(path, new, info, latest_ns)


def _outline(
    top: bytes, target: bytes, latest_ns: int | None, check: Callable[[], None]
) -> tuple[list[_Entry], list[_Entry]]:
    """Make all but the files; the names of files, and the directories, parents first, that lack their attributes."""
    files, directories = list[_Entry](), list[_Entry]()
    linked: dict[tuple[int, int], bytes] = {}
    waiting = [(top, target)]
    while waiting:
        here, there = waiting.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                check()
                new = os.path.join(there, entry.name)
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(new, 0o700)
                    waiting.append((entry.path, new))
                    directories.append((entry.path, new, info))
                elif stat.S_ISREG(info.st_mode):
                    files.append((entry.path, new, info))
                elif not stat.S_ISSOCK(info.st_mode):
                    inode = (info.st_dev, info.st_ino)
                    if inode in linked:
                        os.link(linked[inode], new, follow_symlinks=False)
                        continue
                    linked[inode] = new
                    _make(entry.path, new, info)
                    _finish(entry.path, new, info, latest_ns)
    return files, directories


def _note_times(source: str, top: bytes, files: list[_Entry], latest_ns: int | None) -> None:
    """Note that files are shared, with the times that they are about to lose; on disk before the first one is."""
    times = _noted(source)
    for path, _, info in files:
        _refuse_strange(path)
        whole = _time(info, None)
        if _time(info, latest_ns) != whole:
            raise UnsupportedError(f"{os.fsdecode(path)}: is later than the bound of times, and is not its alone")
        if info.st_mtime_ns != whole:
            times.setdefault(os.fsdecode(os.path.relpath(path, top)), info.st_mtime_ns)
    _note(source, times)


def unshare(directory: str, check: Callable[[], None] = lambda: None) -> None:
    """Give a snapshot copies of the files that it shares, with the times that they had. Interrupted, it is done again.

    Args:
        directory: Of the snapshot, which is not mounted.
        check: Called for every entry; what it raises ends the call.
    """
    if not os.path.exists(os.path.join(directory, _NOTE)):
        return
    times = _noted(directory)
    top = os.fsencode(os.path.join(directory, _TREE))
    groups: dict[tuple[int, int], list[bytes]] = {}
    for parent, _, names in os.walk(top):
        for name in names:
            path = os.path.join(parent, name)
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
                groups.setdefault((info.st_dev, info.st_ino), []).append(path)
    for paths in groups.values():
        check()
        info = os.lstat(paths[0])
        if info.st_nlink > len(paths):
            _replace(paths, info, times.get(os.fsdecode(os.path.relpath(paths[0], top))), directory)
    for shown, mtime_ns in times.items():
        file = os.path.join(top, os.fsencode(shown))
        info = os.lstat(file)
        os.utime(file, ns=(info.st_atime_ns, mtime_ns))
    os.unlink(os.path.join(directory, _NOTE))


def _replace(paths: list[bytes], info: os.stat_result, mtime_ns: int | None, directory: str) -> None:
    """Put a copy in the place of all names of a file, without a moment at which one is missing."""
    copy = os.fsencode(os.path.join(directory, "copy"))
    for left in (copy, copy + b"+"):
        with suppress(FileNotFoundError):
            os.unlink(left)
    try:
        clone_file(paths[0], copy)
        copy_attributes(paths[0], copy, info)
        if mtime_ns is not None:
            os.utime(copy, ns=(info.st_atime_ns, mtime_ns))
        for path in paths[1:]:
            os.link(copy, copy + b"+")
            _rename_quietly(copy + b"+", path)
        _rename_quietly(copy, paths[0])
    except BaseException:
        # On a full disk it would be in the way of the next try.
        for left in (copy, copy + b"+"):
            with suppress(OSError):
                os.unlink(left)
        raise


def _rename_quietly(source: bytes, target: bytes) -> None:
    """Rename, leaving the times of the directory as they are."""
    parent = os.path.dirname(target)
    info = os.stat(parent)
    os.rename(source, target)
    os.utime(parent, ns=(info.st_atime_ns, info.st_mtime_ns))


def _make(source: bytes, target: bytes, info: os.stat_result) -> None:
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
    else:
        os.mknod(target, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev)


def _finish(source: bytes, target: bytes, info: os.stat_result, latest_ns: int | None) -> None:
    """Owner, mode, attributes and time of one entry."""
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, info.st_mode & _MODE)
    for name in os.listxattr(source, follow_symlinks=False):
        if _is_carried(name) or name in _MARKS:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    os.utime(target, ns=(info.st_atime_ns, _time(info, latest_ns)), follow_symlinks=False)


def _time(info: os.stat_result, latest_ns: int | None) -> int:
    whole = info.st_mtime_ns // _NS_PER_SECOND * _NS_PER_SECOND
    return whole if latest_ns is None else min(whole, latest_ns)


def _is_carried(name: str) -> bool:
    return name in _CARRIED or (name.startswith("user.") and not name.startswith(_BOOKKEEPING))


def _refuse_strange(path: bytes) -> None:
    for name in os.listxattr(path):
        if not (_is_carried(name) or name.startswith(_BOOKKEEPING)):
            raise UnsupportedError(f"{os.fsdecode(path)}: attribute {name} is in no layer")


def _noted(directory: str) -> dict[str, int]:
    """The times of shared files before they were cut, by path."""
    try:
        with open(os.path.join(directory, _NOTE)) as file:
            times: dict[str, int] = json.load(file)
    except FileNotFoundError:
        return {}
    return times


def _note(directory: str, times: dict[str, int]) -> None:
    path = os.path.join(directory, _NOTE)
    with open(path + "+", "w") as file:
        json.dump(times, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + "+", path)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
