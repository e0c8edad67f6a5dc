"""Mounts: how a snapshot becomes a directory.

The kernel is called as fsopen(2) and its kin want it, so that any number of lower directories fits, and so that a mount can
be used without a place: such a one ends with the process, whatever happens. Spec: docs/decisions/0032-mounts.md.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ocidiff.values import dataclass

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
# Of a value, with its final NUL.
_MAX_VALUE_BYTES: Final = 256
_MAX_LOG_BYTES: Final = 4096
# Before, overlayfs takes all its options as one text, of less than a page.
_ONE_BY_ONE: Final = (6, 5)
_MAX_OPTIONS_BYTES: Final = 4095
_SHORT_PATH_BYTES: Final = 40
_OCTAL: Final = rb"\\([0-7]{3})"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount, as containerd describes it.

    Attributes:
        type: `bind` or `overlay`.
        source: The directory of a bind mount; a name for an overlay.
        options: `ro`, `rw`, and those of overlayfs, with `lowerdir` as one text of escaped paths.
    """

    type: str
    source: str
    options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        """Whether it is not written to."""
        return "ro" in self.options


def bind(source: str, *, read_only: bool) -> Mount:
    """A directory as it is."""
    return Mount("bind", source, ("rbind", "ro" if read_only else "rw"))


def overlay(lower: Sequence[str], upper: str | None, work: str | None, options: Sequence[str]) -> Mount:
    """Several directories in one, the nearest first; without an upper one, read only."""
    parts = [f"lowerdir={':'.join(map(_escaped, lower))}"]
    if upper is not None:
        parts += [f"upperdir={upper}", f"workdir={work}"]
    return Mount("overlay", "overlay", (*options, *parts, "ro" if upper is None else "rw"))


def unsynced(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """The same, for what is made durable by other means or not at all.

    Without this the end of an overlay syncs the whole file system of its upper directory.
    """
    return tuple(
        replace(mount, options=(*mount.options, "volatile")) if mount.type == "overlay" and not mount.read_only else mount
        for mount in mounts
    )


@contextmanager
def directory_of(mounts: Sequence[Mount]) -> Iterator[str]:
    """Path of the tree that the mounts give, for this process and for as long as the block lasts.

    Nothing appears in any mount table, and the kernel lets go of it when the process dies.
    """
    mount = _only(mounts)
    if mount.type == "bind":
        yield mount.source
        return
    descriptor = _overlay_descriptor(mount)
    try:
        # With a last component, so that it is no symlink to those who refuse symlinks.
        yield f"/proc/self/fd/{descriptor}/."
    finally:
        os.close(descriptor)


def attach(mounts: Sequence[Mount], target: str) -> None:
    """Let the tree that the mounts give appear at the directory `target`, until `detach`."""
    mount = _only(mounts)
    if mount.type == "bind":
        descriptor = _call(_OPEN_TREE, mount.source, _AT_FDCWD, os.fsencode(mount.source), _OPEN_TREE_CLONE | _CLOEXEC)
    else:
        descriptor = _overlay_descriptor(mount)
    try:
        _call(_MOVE_MOUNT, target, descriptor, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_EMPTY_SOURCE)
    finally:
        os.close(descriptor)


def detach(target: str, *, lazily: bool = False) -> None:
    """Take the mount at `target` away.

    Args:
        target: Where it is.
        lazily: Also while files in it are open: it ends when the last one is closed.

    Raises:
        OSError: Files in it are open (EBUSY), or nothing is mounted there (EINVAL).
    """
    flags = _UMOUNT_NOFOLLOW | (_UMOUNT_DETACH if lazily else 0)
    if _libc().umount2(os.fsencode(target), flags) != 0:
        _fail(target)


def release(target: str, *, lazily: bool) -> bool:
    """Take the mount at `target` away as `detach` does.

    Returns:
        Whether nobody reaches it any more: no file of it is open, and no process that can be seen is in a mount namespace
        that has it. Not seen are namespaces that no process is in, and mounts without a place (open_tree(2)).
    """
    device = os.stat(target).st_dev
    try:
        detach(target)
    except OSError as error:
        if not lazily or error.errno != errno.EBUSY:
            raise
        detach(target, lazily=True)
        return False
    return not _is_mounted(device)


def _is_mounted(device: int) -> bool:
    """Whether a process that this one may look at has a file system mounted. Spec: proc_pid_mountinfo(5), field 3."""
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    seen = set[str]()
    for process in filter(str.isdigit, os.listdir("/proc")):
        # It may end, and it may be somebody else's.
        with suppress(OSError):
            namespace = os.readlink(f"/proc/{process}/ns/mnt")
            if namespace not in seen:
                with open(f"/proc/{process}/mountinfo", "rb") as file:
                    if any(line.split(b" ", 3)[2] == wanted for line in file):
                        return True
                seen.add(namespace)
    return False


def mount_points() -> set[str]:
    """Where something is mounted, in this mount namespace. Spec: proc_pid_mountinfo(5), field 5."""
    with open("/proc/self/mountinfo", "rb") as file:
        return {os.fsdecode(re.sub(_OCTAL, _unescaped, line.split(b" ", 5)[4])) for line in file}


def in_user_namespace() -> bool:
    """Whether root here is nobody outside, so that overlayfs must keep its marks in `user.` attributes."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def sync_file_system(path: str) -> None:
    """Have on disk all that was written to the file system of `path`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc().syncfs(descriptor) != 0:
            _fail(path)
    finally:
        os.close(descriptor)


def lower_directories(mount: Mount) -> list[str]:
    """The lower directories of an overlay, the nearest first."""
    text = next(option for option in mount.options if option.startswith("lowerdir=")).removeprefix("lowerdir=")
    return [re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:[^:\\]|\\.)+", text)]


def _overlay_descriptor(mount: Mount) -> int:
    """A mount of an overlay that has no place yet."""
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
                # The kernel takes escapes away here, but not from one lower directory by itself.
                _configure(context, name, _short(value, held, _MAX_VALUE_BYTES).replace(b"\\", b"\\\\"), value)
        _configure(context, "source", mount.source.encode(), mount.source)
        _check(_raw(_FSCONFIG, context, _CREATE, None, None, 0), context, "overlay")
        return _call(_FSMOUNT, "overlay", context, _FSMOUNT_CLOEXEC, _READ_ONLY if mount.read_only else 0)
    finally:
        for descriptor in (context, *held):
            os.close(descriptor)


def _by_text(mount: Mount) -> int:
    """As `_by_options`, by mount(2): at a place for a moment, from where it is cloned to none."""
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
            parts.append("lowerdir=" + ":".join(map(_escaped, lower)))
        elif value is None:
            parts.append(name)
        else:
            parts.append(f"{name}=" + _escaped(os.fsdecode(_short(value, held, longest))))
    return os.fsencode(",".join(parts))


def _settings(mount: Mount) -> Iterator[tuple[str, str | None]]:
    """Name and value of each option of the overlay itself."""
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
    """The path, or where it has `limit` bytes or more, a short one to the same directory for as long as it is held."""
    encoded = os.fsencode(path)
    if len(encoded) < limit or not os.path.isabs(path):
        return encoded
    held.append(os.open(encoded, os.O_PATH | os.O_CLOEXEC))
    return f"/proc/self/fd/{held[-1]}".encode()


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(re.sub(r"\D.*", "", minor))


def _complaint(context: int) -> str:
    """What the kernel has to say on a failure, besides a number."""
    import ctypes

    number = ctypes.get_errno()
    try:
        text = os.read(context, _MAX_LOG_BYTES).decode(errors="replace").strip()
    except OSError:
        text = ""
    ctypes.set_errno(number)
    return text


def _only(mounts: Sequence[Mount]) -> Mount:
    (mount,) = mounts
    return mount


def _escaped(path: str) -> str:
    return re.sub(r"([\\:,])", r"\\\1", path)


def _unescaped(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])


_handle: ctypes.CDLL | None = None


def _libc() -> ctypes.CDLL:
    global _handle  # noqa: PLW0603 - loaded once
    if _handle is None:
        import ctypes

        _handle = ctypes.CDLL(None, use_errno=True)
        _handle.syscall.restype = ctypes.c_long
    return _handle


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
