"""Walk: a directory tree read by handle and name, whatever its depth and the length of its paths.

Law: one descriptor at any depth, no recursion, no symbolic link followed. The way up is `..`, taken only if it leads to the
directory that the way down came from. No error is swallowed: it ends the walk, and names the whole path. A directory
whose mode closes it to its owner is opened for as long as the walk is in it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self

from ocidiff import access, opening


class Cursor:
    """A place in a tree, moved by one name at a time.

    Use it in a `with` block: an `OSError` that leaves the block names the whole path.

    Args:
        top: Path of the top directory, or its descriptor, which stays the caller's.
        shown: Path of the top for messages; None for `top` itself.
        flags: How directories are opened.
    """

    def __init__(self, top: str | bytes | int, *, shown: str | bytes | None = None, flags: int = opening.ROOT) -> None:
        self._flags = flags
        self._shown = os.fsencode(shown if shown is not None else "" if isinstance(top, int) else top)
        at_top = access.open_directory(b".", flags, top) if isinstance(top, int) else access.open_directory(top, flags, None)
        self._top, self._top_opened = at_top
        self._names: list[bytes] = []
        self._above: list[tuple[int, int]] = []
        self._opened: list[access.Inode | None] = []  # what had to be opened to get here
        self._here = self._top

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        name = _name_of(error) if isinstance(error, OSError) else None
        whole = None if name is None else self.full(name)
        self.close()
        if whole is not None and isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, os.fsdecode(whole)) from error

    def close(self) -> None:
        """Close its descriptors."""
        try:
            self.restart()
        finally:
            if self._top_opened is not None:
                access.release(self._top, self._top_opened)
            os.close(self._top)

    @property
    def fd(self) -> int:
        """Descriptor of the current directory, until the next move."""
        return self._here

    @property
    def names(self) -> tuple[bytes, ...]:
        """The names that lead from the top to the current directory."""
        return tuple(self._names)

    def path(self, name: bytes = b"") -> bytes:
        """Path of `name` in the current directory, relative to the top."""
        return b"/".join([*self._names, name] if name else self._names)

    def full(self, name: bytes = b"") -> bytes:
        """The same, as the caller knows it."""
        return os.path.join(self._shown, self.path(name)) if self._names or name else self._shown

    def error(self, error: OSError, name: bytes = b"") -> OSError:
        """The same failure, with the whole path of `name`."""
        return OSError(error.errno, error.strerror, os.fsdecode(self.full(name)))

    def proc(self, name: bytes) -> bytes:
        """A path of `name` for calls that take no descriptor; nothing but the name is looked up."""
        return b"/proc/self/fd/%d/%s" % (self._here, name)

    def listing(self) -> list[bytes]:
        """The names in the current directory, in no order."""
        return [os.fsencode(name) for name in os.listdir(self._here)]

    def enter(self, name: bytes) -> None:
        """Move into the directory `name`; errors as in open(2), a symbolic link included."""
        below, opened = access.open_directory(name, self._flags | os.O_NOFOLLOW, self._here)
        try:
            key = _key(self._here)
        except BaseException:
            if opened is not None:
                access.release(below, opened)
            os.close(below)
            raise
        self._move(below)
        self._names.append(name)
        self._above.append(key)
        self._opened.append(opened)

    def leave(self) -> None:
        """Move to the directory above.

        Raises:
            OSError: The current directory was moved elsewhere (ESTALE).
        """
        above = self._top if len(self._names) == 1 else os.open(b"..", self._flags, dir_fd=self._here)
        if above != self._top and _key(above) != self._above[-1]:
            os.close(above)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), self._here)
        opened = self._opened.pop()
        if opened is not None:
            access.release(self._here, opened)
        self._move(above)
        self._names.pop()
        self._above.pop()

    def go(self, path: bytes) -> None:
        """Move to the directory `path`, which is relative to the top and clean; empty for the top.

        Raises:
            OSError: A component is missing, or is no directory. The cursor is then at the last one that is there.
        """
        names = path.split(b"/") if path else []
        shared = 0
        for one, other in zip(self._names, names, strict=False):
            if one != other:
                break
            shared += 1
        if len(self._names) - shared > shared:
            # Shorter from the top.
            self.restart()
        while len(self._names) > shared:
            self.leave()
        for name in names[len(self._names) :]:
            self.enter(name)

    def restart(self) -> None:
        """Move to the top."""
        while any(self._opened):
            # Modes are given back on the way.
            self.leave()
        self._move(self._top)
        self._names.clear()
        self._above.clear()
        self._opened.clear()

    def _move(self, descriptor: int) -> None:
        if self._here != self._top:
            os.close(self._here)
        self._here = descriptor


class Visit(NamedTuple):
    """A name in the directory where the cursor of a walk is.

    Attributes:
        name: The name.
        info: Its lstat.
        is_left: True for a directory whose contents were all visited. Each directory is visited before and after them.
    """

    name: bytes
    info: os.stat_result
    is_left: bool


def walk(cursor: Cursor) -> Iterator[Visit]:
    """Visit all below the current directory of a cursor, which moves with the walk. The caller may change what it visits."""
    pending = [cursor.listing()]
    entered: list[Visit] = []
    while pending:
        if pending[-1]:
            name = pending[-1].pop()
            visit = Visit(name, access.lstat(name, cursor.fd), is_left=False)
            yield visit
            if stat.S_ISDIR(visit.info.st_mode):
                cursor.enter(name)
                pending.append(cursor.listing())
                entered.append(visit)
            continue
        pending.pop()
        if entered:
            cursor.leave()
            yield entered.pop()._replace(is_left=True)


def _key(descriptor: int) -> tuple[int, int]:
    info = os.fstat(descriptor)
    return info.st_dev, info.st_ino


def _name_of(error: OSError) -> bytes | None:
    """The name in the current directory that an error is about, empty for the directory itself; None if it names a path."""
    name = error.filename
    if isinstance(name, int):
        return b""
    if not isinstance(name, str | bytes):
        return None
    text = os.fsencode(name)
    return os.path.basename(text) if b"/" not in text or text.startswith(b"/proc/self/fd/") else None
