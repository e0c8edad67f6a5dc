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

from ocidiff import access, opening
from ocidiff.embedded.drivers.clone import HardLinks, clone_entry, clone_file, copy_attributes
from ocidiff.errors import UnsupportedError
from ocidiff.layer.xattrs import OVERLAY, OVERLAY_USERXATTR, class_of
from ocidiff.oci.timestamp import NS_PER_SECOND
from ocidiff.walk import Cursor, walk

_NOTE: Final = "shared"
# In the directory of the snapshot, while a file is replaced.
_COPY: Final = b"copy"
_COPY_LINK: Final = b"copy+"
_TREE: Final = "fs"
_MODE: Final = 0o7777
# Overlayfs needs these to read an upper directory.
_MARKS: Final = frozenset(space + name for space in (OVERLAY, OVERLAY_USERXATTR) for name in (b"opaque", b"whiteout"))


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
    top, new_top = os.path.join(source, _TREE), os.path.join(target, _TREE)
    if link:
        _note_times(source, top, latest_ns, check)
    with HardLinks(new_top) as linked, Cursor(new_top) as there, Cursor(top) as here:
        for name, info, is_left in walk(here):
            check()
            if is_left:
                # Children change the times of their directory, and its mode may forbid them.
                there.leave()
                _finish(here, there, name, info, latest_ns)
            elif stat.S_ISDIR(info.st_mode):
                os.mkdir(name, 0o700, dir_fd=there.fd)
                there.enter(name)
            elif link and stat.S_ISREG(info.st_mode):
                os.link(name, name, src_dir_fd=here.fd, dst_dir_fd=there.fd, follow_symlinks=False)
                os.utime(name, ns=(info.st_atime_ns, _time(info, None)), dir_fd=there.fd, follow_symlinks=False)
            elif not stat.S_ISSOCK(info.st_mode) and not linked.link(info, there, name):
                clone_entry(here, there, name, info)
                _finish(here, there, name, info, latest_ns)


def _note_times(source: str, top: str, latest_ns: int | None, check: Callable[[], None]) -> None:
    """Note that files are shared, with the times that they are about to lose; on disk before the first one is."""
    times = _noted(source) or {}
    with Cursor(top) as here:
        for name, info, _ in walk(here):
            check()
            if not stat.S_ISREG(info.st_mode):
                continue
            _refuse_strange(here, name)
            whole = _time(info, None)
            if _time(info, latest_ns) != whole:
                shown = os.fsdecode(here.full(name))
                raise UnsupportedError(
                    f"{shown}: is newer than the source date epoch and shares its inode, so its time cannot be lowered"
                )
            if info.st_mtime_ns != whole:
                times.setdefault(os.fsdecode(here.path(name)), info.st_mtime_ns)
    _note(source, times)


def unshare(directory: str, check: Callable[[], None] = lambda: None) -> None:
    """Give a snapshot copies of the files that it shares, with the times that they had. Interrupted, it is done again.

    Args:
        directory: Of the snapshot, which is not mounted.
        check: Called for every entry; what it raises ends the call.

    Raises:
        OSError: A file could not be read or copied. The snapshot is still noted as shared, and must not be written to.
    """
    times = _noted(directory)
    if times is None:
        return
    top = os.path.join(directory, _TREE)
    with Cursor(directory) as own, Cursor(top) as here:
        for paths in _shared_files(here, check):
            check()
            _replace(own.fd, here, paths, times.get(os.fsdecode(paths[0])))
        for shown, mtime_ns in times.items():
            parent, _, name = os.fsencode(shown).rpartition(b"/")
            here.go(parent)
            info = os.lstat(name, dir_fd=here.fd)
            os.utime(name, ns=(info.st_atime_ns, mtime_ns), dir_fd=here.fd, follow_symlinks=False)
    os.unlink(os.path.join(directory, _NOTE))


def _shared_files(here: Cursor, check: Callable[[], None]) -> list[list[bytes]]:
    """The paths of each file below a cursor that has names elsewhere too."""
    groups: dict[tuple[int, int], tuple[int, list[bytes]]] = {}
    for name, info, _ in walk(here):
        check()
        if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
            groups.setdefault((info.st_dev, info.st_ino), (info.st_nlink, []))[1].append(here.path(name))
    return [paths for links, paths in groups.values() if links > len(paths)]


def _replace(own: int, here: Cursor, paths: list[bytes], mtime_ns: int | None) -> None:
    """Put a copy in the place of all names of a file, without a moment at which one is missing.

    Args:
        own: Descriptor of the directory of the snapshot.
        here: Cursor in its tree.
        paths: All names of the file in the tree.
        mtime_ns: Time of the copy; None for that of the file.
    """
    _drop_copies(own)
    try:
        parent, _, name = paths[0].rpartition(b"/")
        here.go(parent)
        info = os.lstat(name, dir_fd=here.fd)
        clone_file(here.fd, name, own, _COPY)
        with Cursor(own) as there:
            copy_attributes(here, there, name, info, _COPY)
        if mtime_ns is not None:
            os.utime(_COPY, ns=(info.st_atime_ns, mtime_ns), dir_fd=own)
        for path in paths:
            parent, _, name = path.rpartition(b"/")
            here.go(parent)
            os.link(_COPY, _COPY_LINK, src_dir_fd=own, dst_dir_fd=own)
            _rename_quietly(own, _COPY_LINK, here.fd, name)
        os.unlink(_COPY, dir_fd=own)
    except BaseException:
        # On a full disk it would be in the way of the next try, which drops it too.
        with suppress(OSError):
            _drop_copies(own)
        raise


def _drop_copies(own: int) -> None:
    for left in (_COPY, _COPY_LINK):
        with suppress(FileNotFoundError):
            os.unlink(left, dir_fd=own)


def _rename_quietly(source: int, name: bytes, target: int, new_name: bytes) -> None:
    """Rename, leaving the times of the target directory as they are."""
    info = os.fstat(target)
    os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _finish(here: Cursor, there: Cursor, name: bytes, info: os.stat_result, latest_ns: int | None) -> None:
    """Owner, mode, attributes and time of one entry."""
    source, target = here.proc(name), there.proc(name)
    os.chown(name, info.st_uid, info.st_gid, dir_fd=there.fd, follow_symlinks=False)
    for key in os.listxattr(source, follow_symlinks=False):
        if _is_carried(os.fsencode(key)) or os.fsencode(key) in _MARKS:
            os.setxattr(target, key, access.get_xattr(source, key, here.fd, name), follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(name, info.st_mode & _MODE, dir_fd=there.fd)
    os.utime(name, ns=(info.st_atime_ns, _time(info, latest_ns)), dir_fd=there.fd, follow_symlinks=False)


def _time(info: os.stat_result, latest_ns: int | None) -> int:
    whole = info.st_mtime_ns // NS_PER_SECOND * NS_PER_SECOND
    return whole if latest_ns is None else min(whole, latest_ns)


def _is_carried(key: bytes) -> bool:
    """Return true for what a layer has, and for the note of what it has and the file could not get."""
    found = class_of(key)
    return found.is_stored() or found.owner == "ocidiff"


def _refuse_strange(here: Cursor, name: bytes) -> None:
    for key in os.listxattr(here.proc(name), follow_symlinks=False):
        if not (_is_carried(os.fsencode(key)) or class_of(os.fsencode(key)).owner == "overlayfs"):
            raise UnsupportedError(f"{os.fsdecode(here.full(name))}: attribute {key} is in no layer")


def _noted(directory: str) -> dict[str, int] | None:
    """The times of shared files before they were cut, by path; None if no file is shared."""
    try:
        with open(os.path.join(directory, _NOTE)) as file:
            times: dict[str, int] = json.load(file)
    except FileNotFoundError:
        return None
    return times


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _note(directory: str, times: dict[str, int]) -> None:
    path = os.path.join(directory, _NOTE)
    with open(path + "+", "w", opener=_private) as file:
        json.dump(times, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + "+", path)
    descriptor = os.open(directory, opening.ROOT)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
