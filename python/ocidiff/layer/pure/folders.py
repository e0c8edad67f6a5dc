"""The directories that a layer works in: what it wrote in them, and what is still to be done to them at the end.

A directory is known by its name in the one above, and no path is kept: through symbolic links a short entry can name a
directory whose path is much longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from ocidiff import opening

_KEPT_OPEN: Final = 64  # deep trees must not run out of descriptors


class Folder:
    """A directory, from when it is found or made until it is removed.

    Attributes:
        above: The directory that it is in; None for the target itself.
        name: Its name there.
        written: Names in it that this layer wrote.
        is_clear: Nothing in or below it was there before this layer, or is a mark for overlayfs: whiteouts have nothing to
            remove.
        is_opaque: Lower layers do not show through it; None if that was not read yet.
        has_origin: It is marked as holding whiteouts.
        mode: The mode that it gets at the end, if it is not to keep the one it has.
        times: The access and modification time that it gets at the end, if it is not to keep those it has.
    """

    __slots__ = ("above", "children", "has_origin", "is_clear", "is_opaque", "mode", "name", "times", "written")

    def __init__(self, above: Folder | None, name: bytes, *, is_clear: bool, is_opaque: bool | None) -> None:
        self.above = above
        self.name = name
        self.children: dict[bytes, Folder] = {}
        self.written: set[bytes] = set()
        self.is_clear = is_clear
        self.is_opaque = is_opaque
        self.has_origin = False
        self.mode: int | None = None
        self.times: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Folder]:
        """This directory and those above it, but not the target itself."""
        here = self
        while here.above is not None:
            yield here
            here = here.above

    @property
    def place(self) -> Place:
        """Its path."""
        return Place(self, b".") if self.above is None else Place(self.above, self.name)

    @property
    def path(self) -> bytes:
        """Its path below the target, for messages."""
        return b"/".join([folder.name for folder in self][::-1])

    def add(self, name: bytes, *, is_new: bool) -> Folder:
        """The directory `name` in this one, which was made by this layer or found."""
        made = Folder(self, name, is_clear=is_new, is_opaque=False if is_new else None)
        self.children[name] = made
        return made

    def hold_mark(self) -> None:
        """Note that a mark for overlayfs is in this directory, which a later whiteout above it has to remove."""
        here: Folder | None = self
        while here is not None and here.is_clear:
            here.is_clear = False
            here = here.above

    def children_first(self) -> Iterator[Folder]:
        """This directory and all below it that were met, each after those in it."""
        todo = [(self, False)]
        while todo:
            here, is_entered = todo.pop()
            if is_entered:
                yield here
                continue
            todo.append((here, True))
            todo += [(child, False) for child in here.children.values()]


class Place(NamedTuple):
    """A name in a directory."""

    folder: Folder
    name: bytes

    @property
    def path(self) -> bytes:
        """Its path below the target, for messages."""
        above = self.folder.path
        return above + b"/" + self.name if above else self.name


class Handles:
    """Descriptors of directories, the latest kept open. They are made with `O_PATH` and belong to this object."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._open: dict[Folder, int] = {}  # the latest last

    def at(self, folder: Folder) -> int:
        """The descriptor of a directory, valid until the next call.

        Raises:
            OSError: It is gone.
        """
        way, above = list[Folder](), self._top
        for here in folder:
            found = self._open.pop(here, None)
            if found is not None:
                self._open[here] = above = found
                break
            way.append(here)
        for here in reversed(way):
            above = self._open[here] = os.open(here.name, opening.DIRECTORY_HANDLE, dir_fd=above)
            if len(self._open) > _KEPT_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
        return above

    def forget(self, folder: Folder) -> None:
        """Close a directory that is removed."""
        found = self._open.pop(folder, None)
        if found is not None:
            os.close(found)

    def close(self) -> None:
        """Close all but the target."""
        while self._open:
            os.close(self._open.popitem()[1])
