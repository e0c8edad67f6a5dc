"""The one door to a directory that is written: whatever a layer names, nothing outside the root is read, made or removed.

A `Place` is a name in a directory that was found without a symbolic link. The name itself is never followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, Self

from ocidiff import opening
from ocidiff.layer.pure.folders import Folder, Place
from ocidiff.layer.pure.note import Note
from ocidiff.layer.pure.pace import Pace
from ocidiff.layer.pure.path import Way
from ocidiff.layer.pure.places import Places
from ocidiff.layer.pure.plan import IMPLIED_MODE
from ocidiff.layer.xattrs import NOTE

OWNER_ALL: Final = 0o700
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Root(Places):
    """The directory that a layer is written onto.

    Attributes:
        top: The directory itself.

    Raises:
        OSError: It is missing or no directory.
    """

    def __init__(self, path: bytes, pace: Pace) -> None:
        super().__init__(path, os.open(os.fsdecode(path), opening.ROOT_HANDLE))
        self._pace = pace
        self.top = Folder(None, b"", is_clear=False, is_opaque=False)
        self._grant(self.top, os.fstat(self._fd))
        self.top.is_clear = not self._names(self.top)
        self._last = (b"", self.top)  # the path that was found last, through nothing that was removed since
        self._notes_owners = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handles.close()
        os.close(self._fd)

    def note_owners(self) -> None:
        """Mark the root, and from now on note that directories which no entry describes are root's."""
        self._notes_owners = True
        self.mark()

    def mark(self) -> None:
        """Say of the root that there are notes below it: with one of its own, by which a reader knows that they count."""
        if not self.is_marked:
            self.note(self.top.place, Note(0, 0, stat.S_IMODE(os.fstat(self._fd).st_mode)))

    @property
    def is_marked(self) -> bool:
        """True if notes below the root count."""
        return self.get_xattr(self.top.place, NOTE) is not None

    def find(self, path: bytes) -> Folder | None:
        """The directory `path`, with links followed as if the root were `/`; None when there is none.

        Raises:
            UnsafeLayerError: There are too many links, or too long ones.
        """
        if path == self._last[0]:
            return self._last[1]
        found = self._walk(path, lambda _place, _facts: None)
        if found is not None:
            self._last = (path, found)
        return found

    def make(self, path: bytes, replaced: Callable[[Folder], None]) -> Folder:
        """The directory `path`; it and those above it are made, with mode 0755, where something else or nothing is.

        Args:
            path: Relative to the root, clean.
            replaced: Called with each that is in place of something else.
        """

        def make(place: Place, facts: os.stat_result | None) -> Folder:
            if facts is not None:
                self._unlink(place, facts)
            made = self._make_implied(place)
            place.folder.written.add(place.name)
            if facts is not None:
                replaced(made)
            return made

        found = self.find(path) or self._walk(path, make)
        if found is None:
            raise self.error(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), Place(self.top, path))
        return found

    def make_for_mark(self, path: bytes, is_hidden: Callable[[Folder], bool]) -> Folder | None:
        """The directory `path` of an upperdir, made to hold a mark for overlayfs where a lower layer may have it.

        Args:
            path: Relative to the root, clean.
            is_hidden: True if no lower layer can show in a directory.
        """

        def make(place: Place, facts: os.stat_result | None) -> Folder | None:
            if facts is not None or is_hidden(place.folder):
                return None
            made = self._make_implied(place)
            made.hold_mark()
            return made

        return self._walk(path, make)

    def enter(self, place: Place, facts: os.stat_result) -> Folder:
        """The directory that is there; if it is ours, we get the right to work in it."""
        known = self.top if place == self.top.place else place.folder.children.get(place.name)
        if known is not None:
            return known
        found = place.folder.add(place.name, is_new=False)
        self._grant(found, facts)
        return found

    def _grant(self, folder: Folder, facts: os.stat_result) -> None:
        """Open a directory of ours for as long as we work in it."""
        if facts.st_uid == os.geteuid() and facts.st_mode & OWNER_ALL != OWNER_ALL:
            folder.mode = stat.S_IMODE(facts.st_mode)
            self.set_mode(folder.place, folder.mode | OWNER_ALL)

    def lstat(self, place: Place) -> os.stat_result | None:
        """The lstat of `place`; None when nothing is there. Every loop over many names passes here and can be stopped."""
        self._pace.check()
        try:
            return os.lstat(place.name, dir_fd=self._at(place))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.error(error, place) from error

    def remove(self, place: Place, *, spare: bool = False) -> None:
        """Remove `place` and all below it; with `spare`, all but what this layer wrote and the directories above that."""
        facts = self.lstat(place)
        if facts is None:
            return
        is_kept = spare and place.name in place.folder.written
        if stat.S_ISDIR(facts.st_mode):
            is_kept |= self.empty(self.enter(place, facts), spare=spare)
        if not is_kept:
            self._unlink(place, facts)

    def empty(self, top: Folder, *, spare: bool) -> bool:
        """Remove all below a directory as `remove` does; true if something is left."""
        if spare and top.is_clear:
            return True
        levels = [_Level(top, self._names(top))]
        while True:
            level = levels[-1]
            if level.pending:
                place = Place(level.folder, level.pending.pop())
                facts = self.lstat(place)
                if facts is None:
                    continue
                is_kept = spare and place.name in place.folder.written
                if stat.S_ISDIR(facts.st_mode):
                    folder = self.enter(place, facts)
                    if not (spare and folder.is_clear):
                        levels.append(_Level(folder, self._names(folder)))
                        continue
                    is_kept = True
                if is_kept:
                    level.keep(place.name)
                else:
                    self._unlink(place, facts)
                continue
            levels.pop()
            folder = level.folder
            folder.is_clear |= level.is_kept
            if not levels:
                return level.is_kept
            if level.is_kept or (spare and folder.name in levels[-1].folder.written):
                levels[-1].keep(folder.name)
            else:
                self._remove_directory(folder.place)

    def clean_up(self, place: Place) -> None:
        """Remove `place` and all below it after a failure, even if the call was cancelled."""
        self._pace.stop_polling()
        self.remove(place)

    def _make_implied(self, place: Place) -> Folder:
        """Make a directory that no entry describes."""
        made = self.make_directory(place)
        if self._notes_owners:
            self.note(place, Note(0, 0, IMPLIED_MODE))
        return made

    def make_directory(self, place: Place) -> Folder:
        """Make a directory of mode 0755 that is of our own group, even below one that hands on its own."""
        try:
            os.mkdir(place.name, dir_fd=self._at(place))
        except OSError as error:
            raise self.error(error, place) from error
        self.set_owner(place, -1, os.getegid())
        self.set_mode(place, IMPLIED_MODE)  # whatever the umask is
        return place.folder.add(place.name, is_new=True)

    def make_file(self, place: Place) -> int:
        """Make a regular file of mode 0600 and give a descriptor to write it, which the caller closes."""
        try:
            return os.open(place.name, _NEW_FILE, 0o600, dir_fd=self._at(place))
        except OSError as error:
            raise self.error(error, place) from error

    def make_symlink(self, place: Place, target: bytes) -> None:
        """Make a symbolic link; its target is not looked at."""
        try:
            os.symlink(target, place.name, dir_fd=self._at(place))
        except OSError as error:
            raise self.error(error, place) from error

    def make_hard_link(self, place: Place, target: Place) -> None:
        """Make `place` another name of `target`, which is not followed."""
        source = os.dup(self._at(target))
        try:
            above = self._at(place)
            os.link(target.name, place.name, src_dir_fd=source, dst_dir_fd=above, follow_symlinks=False)
        except OSError as error:
            names = os.fsdecode(self._full(target)), None, os.fsdecode(self._full(place))
            raise OSError(error.errno, error.strerror, *names) from error
        finally:
            os.close(source)

    def make_node(self, place: Place, kind: int, device: int, *, mode: int = 0o600) -> None:
        """Make a FIFO or device; `kind` is the type part of a mode."""
        try:
            os.mknod(place.name, kind | mode, device, dir_fd=self._at(place))
        except OSError as error:
            raise self.error(error, place) from error

    def _walk(self, path: bytes, make: Callable[[Place, os.stat_result | None], Folder | None]) -> Folder | None:
        """Go down `path`; where no directory is, go on with what `make` gives, or end with None."""
        here, way = self.top, Way(path)
        while (name := way.next()) is not None:
            if name == b"..":
                here = here.above or here
                continue
            known = here.children.get(name)
            if known is not None:
                here = known
                continue
            place = Place(here, name)
            facts = self.lstat(place)
            if facts is not None and stat.S_ISLNK(facts.st_mode):
                if way.follow(self._target(place)):
                    here = self.top
                continue
            is_directory = facts is not None and stat.S_ISDIR(facts.st_mode)
            next_folder = self.enter(place, facts) if facts is not None and is_directory else make(place, facts)
            if next_folder is None:
                return None
            here = next_folder
        return here

    def _names(self, folder: Folder) -> list[bytes]:
        """The names in a directory, in no order."""
        try:
            listing = os.open(b".", opening.ROOT, dir_fd=self._handles.at(folder))
            try:
                return [os.fsencode(name) for name in os.listdir(listing)]
            finally:
                os.close(listing)
        except OSError as error:
            raise self.error(error, folder.place) from error

    def _target(self, place: Place) -> bytes:
        try:
            return os.readlink(place.name, dir_fd=self._at(place))
        except OSError as error:
            raise self.error(error, place) from error

    def _unlink(self, place: Place, facts: os.stat_result) -> None:
        if stat.S_ISDIR(facts.st_mode):
            self._remove_directory(place)
            return
        if not stat.S_ISREG(facts.st_mode):
            self._last = (b"", self.top)  # it may have led through this link
        try:
            os.unlink(place.name, dir_fd=self._at(place))
        except OSError as error:
            raise self.error(error, place) from error

    def _remove_directory(self, place: Place) -> None:
        self._last = (b"", self.top)
        gone = place.folder.children.pop(place.name, None)
        if gone is not None:
            self._handles.forget(gone)
        try:
            os.rmdir(place.name, dir_fd=self._at(place))
        except OSError as error:
            raise self.error(error, place) from error


class _Level:
    """A directory that is being emptied."""

    __slots__ = ("folder", "is_kept", "pending")

    def __init__(self, folder: Folder, pending: list[bytes]) -> None:
        self.folder = folder
        self.pending = pending
        self.is_kept = False

    def keep(self, name: bytes) -> None:
        """Leave a name, with the directories above it. Once the directory is clear, no other name can be in it."""
        self.folder.written.add(name)
        self.is_kept = True
