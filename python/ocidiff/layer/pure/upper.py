"""Marks of an overlay's upperdir: they hide what lower layers have.

Spec: Linux overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat
from typing import Final

from ocidiff.layer.apply_options import Destination
from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.faults import unsupported
from ocidiff.layer.pure.folders import Folder, Place
from ocidiff.layer.pure.root import Root
from ocidiff.layer.xattrs import OVERLAY, OVERLAY_USERXATTR, escape

_PREFIXES: Final = {Destination.OVERLAY: OVERLAY, Destination.OVERLAY_USERXATTR: OVERLAY_USERXATTR}


class Upper:
    """The marks in the upperdir of one apply."""

    def __init__(self, root: Root, destination: Destination) -> None:
        self._root = root
        self._prefix = _PREFIXES[destination]

    def make_opaque(self, folder: Folder) -> None:
        """Hide all that lower layers have below a directory."""
        if not self._is_opaque(folder):
            self._root.set_xattr(folder.place, self._prefix + b"opaque", b"y")
            folder.is_opaque = True

    def check_opaque(self, folder: Folder) -> None:
        """Check that a directory can be made opaque.

        Raises:
            UnsupportedError: It is the root.
        """
        if folder.above is None:
            raise unsupported(b"/", sentences.OPAQUE_UPPERDIR)

    def hide(self, place: Place) -> None:
        """Hide what lower layers have at `place`, from which all of the upperdir's own is removed that shall be."""
        facts = self._root.lstat(place)
        if facts is not None:
            if stat.S_ISDIR(facts.st_mode):
                self.make_opaque(self._root.enter(place, facts))
            return  # this layer put something else there, which hides it as well
        if self.is_hidden(place.folder):
            return
        try:
            self._root.make_node(place, stat.S_IFCHR, 0, mode=0)
        except PermissionError:
            # The form for those who may make no device, which overlayfs reads in all but the upper and the lowest layer.
            os.close(self._root.make_file(place))
            self._root.set_xattr(place, self._prefix + b"whiteout", b"y")
            self._root.set_xattr(place.folder.place, self._prefix + b"opaque", b"x")
        self._note_whiteouts(place.folder)
        place.folder.hold_mark()

    def is_whiteout(self, place: Place, facts: os.stat_result) -> bool:
        """True if `place` only hides what lower layers have."""
        if stat.S_ISCHR(facts.st_mode):
            return facts.st_rdev == 0
        is_empty = stat.S_ISREG(facts.st_mode) and facts.st_size == 0
        return is_empty and self._root.get_xattr(place, self._prefix + b"whiteout") is not None

    def is_hidden(self, folder: Folder) -> bool:
        """True if no lower layer can show in a directory: a whiteout there would hide nothing."""
        return any(self._is_opaque(here) for here in folder)

    def escape(self, key: bytes) -> bytes:
        """Return the name under which overlayfs keeps an attribute that users of its mounts shall see as `key`."""
        return escape(key, self._prefix)

    def _is_opaque(self, folder: Folder) -> bool:
        if folder.is_opaque is None:
            folder.is_opaque = self._root.get_xattr(folder.place, self._prefix + b"opaque") == b"y"
        return folder.is_opaque

    def _note_whiteouts(self, folder: Folder) -> None:
        """Mark a directory as copied up from an unknown place.

        Overlayfs then leaves whiteouts out of its listing even if no lower layer has the directory.
        """
        key = self._prefix + b"origin"
        if folder.above is None or folder.has_origin:
            return
        folder.has_origin = True
        if self._root.get_xattr(folder.place, key) is None:
            self._root.set_xattr(folder.place, key, b"")
