"""Making mounts: with a place, or without one for the time of a call.

fsopen(2) and its relatives are used, so that any number of lower directories fits, and so that a mount needs no place: such
a mount ends with the process, whatever happens. Spec: docs/decisions/0032-mounts.md.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocidiff.mounts.mount import Mount, escaped, lower_directories, only_mount, unsynced
from ocidiff.mounts.mountinfo import is_mounted_anywhere

if TYPE_CHECKING:
    import ctypes

# Numbers of system calls that are the same on all architectures.
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_OPEN_TREE_CLONE: Final = 1
_CLOEXEC: Final = os.O_CLOEXEC
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_MOVE_MOUNT_EMPTY_SOURCE: Final = 4
_READ_ONLY: Final = 1
_UMOUNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
# Limit of one value of fsconfig(2), with its final NUL.
_MAX_VALUE_BYTES: Final = 256
_MAX_LOG_BYTES: Final = 4096
# Older kernels take all options of overlayfs as one text of less than a page.
_ONE_BY_ONE: Final = (6, 5)
_MAX_OPTIONS_BYTES: Final = 4095
# The longest path of a descriptor, and what separates it from the next.
_SHORT_PATH_BYTES: Final = 20
_OTHER_OPTIONS_BYTES: Final = 512
# OVL_MAX_STACK, fs/overlayfs/params.h.
_MAX_LOWER: Final = 500


@contextmanager
def directory_of(mounts: Sequence[Mount]) -> Iterator[str]:
    """Yield the path of the tree that the mounts show, for this process and until the block ends.

    Nothing appears in any mount table, and the mount ends if the process dies.
    """
    mount = only_mount(mounts)
    if mount.type == "bind":
        yield mount.source
        return
    descriptor = _overlay_descriptor(mount)
    try:
        # The final component makes it a directory for callers that refuse symbolic links.
        yield f"/proc/self/fd/{descriptor}/."
    finally:
        os.close(descriptor)


@contextmanager
def unsynced_mounts(mounts: Sequence[Mount]) -> Iterator[tuple[Mount, ...]]:
    """Yield the mounts for writing with no sync when they end (see `unsynced`); the tree may be mounted in any way after.

    Overlayfs marks the work directory of such a mount, and refuses it to every later mount. The mark is removed at the end
    of the block: what was written is then as safe as what is written to another file system without a sync.
    """
    try:
        yield unsynced(mounts)
    finally:
        for mount in mounts:
            work = None if mount.read_only else mount.option("workdir")
            if mount.type == "overlay" and work is not None:
                # Spec: Linux overlayfs.rst, "Volatile mount".
                mark = os.path.join(work, "work", "incompat", "volatile")
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(mark, "dirty"))
                    os.rmdir(mark)
                    os.rmdir(os.path.dirname(mark))


def attach(mounts: Sequence[Mount], target: str) -> None:
    """Mount what the mounts show at the directory `target`, until `detach`."""
    mount = only_mount(mounts)
    if mount.type == "bind":
        descriptor = _call(_OPEN_TREE, mount.source, _AT_FDCWD, os.fsencode(mount.source), _OPEN_TREE_CLONE | _CLOEXEC)
    else:
        descriptor = _overlay_descriptor(mount)
    try:
        _call(_MOVE_MOUNT, target, descriptor, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_EMPTY_SOURCE)
    finally:
        os.close(descriptor)


def detach(target: str, *, lazily: bool = False) -> None:
    """Unmount `target`.

    Args:
        target: Where it is.
        lazily: Unmount even if files are open; the mount then ends when the last one is closed.

    Raises:
        OSError: Files in it are open (EBUSY), or nothing is mounted there (EINVAL).
    """
    flags = _UMOUNT_NOFOLLOW | (_UMOUNT_DETACH if lazily else 0)
    if _libc().umount2(os.fsencode(target), flags) != 0:
        _fail(target)


def release(target: str, *, lazily: bool) -> bool:
    """Unmount `target` as `detach` does, and tell if nobody can write to it any more.

    Returns:
        True if no file of it is open and no process that can be seen has it mounted in another namespace. Namespaces that
        no process is in, and mounts without a place (open_tree(2)), cannot be seen.
    """
    device = os.stat(target).st_dev
    try:
        detach(target)
    except OSError as error:
        if not lazily or error.errno != errno.EBUSY:
            raise
        detach(target, lazily=True)
        return False
    return not is_mounted_anywhere(device)


def sync_file_system(path: str) -> None:
    """Write everything that the file system of `path` holds in memory to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc().syncfs(descriptor) != 0:
            _fail(path)
    finally:
        os.close(descriptor)


def _overlay_descriptor(mount: Mount) -> int:
    """Return a handle of a new overlay mount that has no place yet."""
    return _by_options(mount) if _kernel() >= _ONE_BY_ONE else _by_text(mount)


def _by_options(mount: Mount) -> int:
    context = _call(_FSOPEN, "overlay", b"overlay", _FSOPEN_CLOEXEC)
    held: list[int] = []
    try:
        for name, value in _settings(mount):
            if name == "lowerdir":
                for path in lower_directories(mount):
                    _configure(context, "lowerdir+", _short(path, held, _MAX_VALUE_BYTES), path)
            elif value is None:
                _check(_raw(_FSCONFIG, context, _SET_FLAG, name.encode(), None, 0), context, f"overlay option {name}")
            else:
                # The kernel resolves escapes here, but not in the value of lowerdir+.
                _configure(context, name, _short(value, held, _MAX_VALUE_BYTES).replace(b"\\", b"\\\\"), value)
        _configure(context, "source", mount.source.encode(), mount.source)
        _check(_raw(_FSCONFIG, context, _CREATE, None, None, 0), context, "overlay")
        return _call(_FSMOUNT, "overlay", context, _FSMOUNT_CLOEXEC, _READ_ONLY if mount.read_only else 0)
    finally:
        for descriptor in (context, *held):
            os.close(descriptor)


def _by_text(mount: Mount) -> int:
    """Like `_by_options`, for kernels before 6.5: mounts at a temporary place and clones that mount to none."""
    import ctypes
    import tempfile

    held: list[int] = []
    try:
        options = _text(mount, held, _MAX_OPTIONS_BYTES)
        if len(options) > _MAX_OPTIONS_BYTES:
            options = _text(mount, held, _SHORT_PATH_BYTES)
        with tempfile.TemporaryDirectory(prefix="ocidiff-") as place:
            flags = _READ_ONLY if mount.read_only else 0
            if _libc().mount(mount.source.encode(), os.fsencode(place), b"overlay", ctypes.c_ulong(flags), options) != 0:
                _fail("overlay")
            try:
                return _call(_OPEN_TREE, "overlay", _AT_FDCWD, os.fsencode(place), _OPEN_TREE_CLONE | _CLOEXEC)
            finally:
                detach(place, lazily=True)
    finally:
        for descriptor in held:
            os.close(descriptor)


def _text(mount: Mount, held: list[int], longest: int) -> bytes:
    parts = []
    for name, value in _settings(mount):
        if name == "lowerdir":
            lower = (os.fsdecode(_short(path, held, longest)) for path in lower_directories(mount))
            parts.append("lowerdir=" + ":".join(map(escaped, lower)))
        elif value is None:
            parts.append(name)
        else:
            parts.append(f"{name}=" + escaped(os.fsdecode(_short(value, held, longest))))
    return os.fsencode(",".join(parts))


def _settings(mount: Mount) -> Iterator[tuple[str, str | None]]:
    """Yield name and value of each option of the overlay itself."""
    for option in mount.options:
        name, equals, value = option.partition("=")
        if name not in {"ro", "rw"}:
            yield name, value if equals else None


def _configure(context: int, name: str, value: bytes, shown: str) -> None:
    _check(_raw(_FSCONFIG, context, _SET_STRING, name.encode(), value, 0), context, shown)


def _check(result: int, context: int, what: str) -> None:
    if result < 0:
        _fail(what, _complaint(context))


def _short(path: str, held: list[int], limit: int) -> bytes:
    """Return the path; if it has `limit` bytes or more, a short one that is valid while a handle in `held` is open."""
    encoded = os.fsencode(path)
    if len(encoded) < limit or not os.path.isabs(path):
        return encoded
    held.append(os.open(encoded, os.O_PATH | os.O_CLOEXEC))
    return f"/proc/self/fd/{held[-1]}".encode()


def max_lower_directories() -> int:
    """Return how many lower directories an overlay mount takes on this kernel."""
    if _kernel() >= _ONE_BY_ONE:
        return _MAX_LOWER
    # As many short paths as fit into one text, beside the other options.
    return (_MAX_OPTIONS_BYTES - _OTHER_OPTIONS_BYTES) // _SHORT_PATH_BYTES


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(re.sub(r"\D.*", "", minor))


def _complaint(context: int) -> str:
    """Return the text that the kernel gives for a failed mount call."""
    import ctypes

    number = ctypes.get_errno()
    try:
        text = os.read(context, _MAX_LOG_BYTES).decode(errors="replace").strip()
    except OSError:
        text = ""
    ctypes.set_errno(number)
    return text


@functools.cache
def _libc() -> ctypes.CDLL:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def _raw(number: int, *arguments: int | bytes | None) -> int:
    import ctypes

    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    return int(_libc().syscall(ctypes.c_long(number), *words))


def _call(number: int, what: str, *arguments: int | bytes | None) -> int:
    result = _raw(number, *arguments)
    if result < 0:
        _fail(what)
    return result


def _fail(what: str, complaint: str = "") -> None:
    import ctypes

    number = ctypes.get_errno()
    cause = f"{os.strerror(number)} ({complaint})" if complaint else os.strerror(number)
    raise OSError(number, cause, what)
