"""Descriptors of the directories below one root, found component by component and never through a symbolic link."""

from __future__ import annotations

import os
from typing import Final, Self

from ocidiff import access, opening

_ESCAPED: Final = [chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in range(256)]
for _byte, _shown in ((9, "t"), (10, "n"), (13, "r"), (34, '"'), (39, "'"), (92, "\\")):
    _ESCAPED[_byte] = "\\" + _shown
_KEPT_OPEN: Final = 64  # ancestors of the current directory; deeper trees must not run out of descriptors


def split(path: bytes) -> tuple[bytes, bytes]:
    """The path of the parent, empty for the root, and the last name."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def join(parent: bytes, name: bytes) -> bytes:
    """The path of `name` in the directory `parent`, which is empty for the root."""
    return parent + b"/" + name if parent else name


def show(path: bytes) -> str:
    """A path for a message: one line, quotes, control and non-ASCII bytes escaped."""
    return "".join(map(_ESCAPED.__getitem__, path))


class Directories:
    """Hands out descriptors of directories by their path below `root`, and keeps the way to the last one open.

    Paths are relative, clean and without symbolic links. Descriptors are made with `O_PATH` and belong to this object.

    Args:
        root: Path of the root.
        opens: Let directories of this process that are closed to it be read and searched meanwhile.
    """

    def __init__(self, root: bytes, *, opens: bool = False) -> None:
        self._base = root
        self._opens = opens
        self._held: dict[int, access.Inode] = {}  # what was opened, by descriptor
        self._root = self._hold(os.open(os.fsdecode(root), opening.ROOT_HANDLE))
        self._path = b""
        self._levels: list[tuple[bytes, tuple[int, int]]] = []  # names on the way, and which directories they were
        self._open: list[int] = []  # of the last of them, at least of the very last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        self._close(self._root)

    def forget(self) -> None:
        """Close all but the root: what is there may have changed."""
        while self._open:
            self._close(self._open.pop())
        self._levels.clear()
        self._path = b""

    def full(self, path: bytes) -> bytes:
        """The path that the caller knows `path` by."""
        return os.path.join(self._base, path) if path else self._base

    def error(self, error: OSError, path: bytes) -> OSError:
        """The same failure, told of the whole path."""
        return OSError(error.errno, error.strerror, os.fsdecode(self.full(path)))

    def at(self, path: bytes) -> int:
        """The descriptor of the directory `path`, valid until the next call.

        Raises:
            OSError: A component is missing, or is no directory.
        """
        if path != self._path:
            above = _above_both(self._path, path)
            while len(self._path) > len(above):
                self._leave()
            rest = path[len(self._path) :].lstrip(b"/")
            for name in rest.split(b"/") if rest else ():
                self._enter(name)
        return self._open[-1] if self._open else self._root

    def names(self, path: bytes) -> list[bytes]:
        """The names in the directory `path`, in no order."""
        above = self.at(path)
        try:
            listing = os.open(b".", opening.ROOT, dir_fd=above)
            try:
                return [os.fsencode(name) for name in os.listdir(listing)]
            finally:
                os.close(listing)
        except OSError as error:
            raise self.error(error, path) from error

    def _enter(self, name: bytes) -> None:
        path = join(self._path, name)
        above = self._open[-1] if self._open else self._root
        try:
            self._open.append(self._hold(os.open(name, opening.DIRECTORY_HANDLE, dir_fd=above)))
        except OSError as error:
            raise self.error(error, path) from error
        self._levels.append((name, _key(self._open[-1])))
        self._path = path
        if len(self._open) > _KEPT_OPEN:
            self._close(self._open.pop(0))

    def _leave(self) -> None:
        """Go to the directory above: one that was given up is found by `..`, unless this one was moved elsewhere."""
        name, _ = self._levels.pop()
        self._path = self._path[: max(len(self._path) - len(name) - 1, 0)]
        left = self._open.pop()
        try:
            if self._levels and not self._open:
                above = os.open(b"..", opening.ROOT_HANDLE, dir_fd=left)
                if _key(above) == self._levels[-1][1]:
                    self._open.append(self._hold(above))
                else:
                    os.close(above)
                    # Start again from the root.
                    self.forget()
        except OSError as error:
            path = self._path
            self.forget()
            raise self.error(error, path) from error
        finally:
            self._close(left)

    def _hold(self, descriptor: int) -> int:
        if self._opens:
            try:
                inode = access.hold(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if inode is not None:
                self._held[descriptor] = inode
        return descriptor

    def _close(self, descriptor: int) -> None:
        inode = self._held.pop(descriptor, None)
        if inode is not None:
            access.release(descriptor, inode)
        os.close(descriptor)


def _above_both(one: bytes, other: bytes) -> bytes:
    """The path of the deepest directory that is, or is above, each of two; empty for the root."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if one[:middle] == other[:middle] else (least, middle - 1)
    if all(path[least : least + 1] in (b"", b"/") for path in (one, other)):
        return one[:least].rstrip(b"/")
    return one[: max(one.rfind(b"/", 0, least), 0)]


def _key(descriptor: int) -> tuple[int, int]:
    info = os.fstat(descriptor)
    return info.st_dev, info.st_ino
