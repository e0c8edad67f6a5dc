"""The attributes of a place: owner, mode, times, notes and extended attributes. No name is ever followed."""

from __future__ import annotations

import errno
import os
import stat

from ocidiff import opening
from ocidiff.layer.pure.folders import Handles, Place
from ocidiff.layer.pure.note import Note
from ocidiff.layer.xattrs import NOTE


class Places:
    """The places below a directory, each reached through the descriptor of the folder that it is in."""

    def __init__(self, path: bytes, descriptor: int) -> None:
        self._base = path
        self._fd = descriptor
        self._handles = Handles(descriptor)

    def error(self, error: OSError, place: Place) -> OSError:
        """The same failure, told of the whole path."""
        return OSError(error.errno, error.strerror, os.fsdecode(self._full(place)))

    def set_owner(self, place: Place, uid: int, gid: int) -> None:
        """Give `place` its owner; the kernel clears set-id bits and capabilities with it."""
        try:
            os.chown(place.name, uid, gid, dir_fd=self._at(place), follow_symlinks=False)
        except OSError as error:
            raise self.error(error, place) from error

    def set_mode(self, place: Place, mode: int) -> None:
        """Give `place`, which is no symbolic link, its mode."""
        try:
            # chmod has no form that does not follow: pin the inode first, then go through its descriptor.
            pinned = os.open(place.name, opening.HANDLE, dir_fd=self._at(place))
            try:
                if stat.S_ISLNK(os.fstat(pinned).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                os.chmod(f"/proc/self/fd/{pinned}", mode)
            finally:
                os.close(pinned)
        except OSError as error:
            raise self.error(error, place) from error

    def set_times(self, place: Place, atime_ns: int, mtime_ns: int) -> None:
        """Give `place` its times; what the system cannot hold becomes 1970."""
        above = self._at(place)
        try:
            try:
                os.utime(place.name, ns=(atime_ns, mtime_ns), dir_fd=above, follow_symlinks=False)
            except OverflowError:
                os.utime(place.name, ns=(0, 0), dir_fd=above, follow_symlinks=False)
        except OSError as error:
            raise self.error(error, place) from error

    def note(self, place: Place, note: Note) -> bool:
        """Note what `place` should be; false when it can have no note."""
        try:
            self.set_xattr(place, NOTE, note.encode())
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
                return False
            raise
        return True

    def xattrs(self, place: Place) -> list[bytes]:
        """The names of the xattrs of `place`."""
        try:
            return [os.fsencode(key) for key in os.listxattr(self._leaf(place), follow_symlinks=False)]
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return []
            raise self.error(error, place) from error

    def get_xattr(self, place: Place, key: bytes) -> bytes | None:
        """One xattr of `place`; None where it has none such."""
        try:
            return os.getxattr(self._leaf(place), key, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return None
            raise self.error(error, place) from error

    def set_xattr(self, place: Place, key: bytes, value: bytes) -> None:
        """Give `place` one xattr."""
        try:
            os.setxattr(self._leaf(place), key, value, follow_symlinks=False)
        except OSError as error:
            raise self.error(error, place) from error

    def remove_xattr(self, place: Place, key: bytes, *, missing_ok: bool = False) -> None:
        """Take one xattr from `place`."""
        try:
            os.removexattr(self._leaf(place), key, follow_symlinks=False)
        except OSError as error:
            if missing_ok and error.errno in (errno.ENODATA, errno.ENOTSUP):
                return
            raise self.error(error, place) from error

    def _at(self, place: Place) -> int:
        """The descriptor of the directory that a name is in, valid until the next call."""
        try:
            return self._handles.at(place.folder)
        except OSError as error:
            raise self.error(error, place.folder.place) from error

    def _full(self, place: Place) -> bytes:
        """The path that the caller knows `place` by."""
        return self._base if place.name == b"." else os.path.join(self._base, place.path)

    def _leaf(self, place: Place) -> bytes:
        """A path of `place` for calls that take no directory descriptor; only the last name is looked up anew."""
        return b"/proc/self/fd/%d/%s" % (self._at(place), place.name)
