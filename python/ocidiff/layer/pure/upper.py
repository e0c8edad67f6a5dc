"""What a target is besides a tree when it is the upperdir of an overlay: what hides lower layers is kept in it.

Spec: Linux overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat
from typing import Final

from ocidiff.errors import UnsupportedError
from ocidiff.layer.options import Destination
from ocidiff.layer.pure.directories import split
from ocidiff.layer.pure.root import Root

_PREFIXES: Final = {Destination.OVERLAY: b"trusted.overlay.", Destination.OVERLAY_USERXATTR: b"user.overlay."}


class Upper:
    """The upperdir of one apply.

    Attributes:
        whiteouts: Paths of those that were made.
    """

    def __init__(self, root: Root, destination: Destination) -> None:
        self._root = root
        self._prefix = _PREFIXES[destination]
        self.whiteouts: set[bytes] = set()

    def make_opaque(self, path: bytes) -> None:
        """Hide all that lower layers have below the directory `path`.

        Raises:
            UnsupportedError: It is the root.
        """
        if not path:
            raise UnsupportedError("/: an upperdir cannot hide all of the layers below it")
        self._root.set_xattr(path, self._prefix + b"opaque", b"y")

    def hide(self, path: bytes) -> None:
        """Hide what lower layers have at `path`, from which all of the upperdir's own is removed that shall be."""
        facts = self._root.lstat(path)
        if facts is not None:
            if stat.S_ISDIR(facts.st_mode):
                self.make_opaque(path)
            return  # this layer put something else there, which hides it as well
        parent = split(path)[0]
        if self._is_hidden(parent):
            return
        try:
            self._root.make_node(path, stat.S_IFCHR, 0, mode=0)
        except PermissionError:
            # The form for those who may make no device, which overlayfs reads in all but the upper and the lowest layer.
            os.close(self._root.make_file(path))
            self._root.set_xattr(path, self._prefix + b"whiteout", b"y")
            if parent:
                self._root.set_xattr(parent, self._prefix + b"opaque", b"x")
        self.whiteouts.add(path)

    def _is_hidden(self, path: bytes) -> bool:
        """Whether nothing of a lower layer can show in the directory `path`: a whiteout would show itself there."""
        while path:
            if self._root.get_xattr(path, self._prefix + b"opaque") == b"y":
                return True
            path = split(path)[0]
        return False

    def escape(self, key: bytes) -> bytes:
        """How overlayfs keeps an attribute that users of its mounts shall see as `key`. Spec: "Nesting overlayfs mounts"."""
        return self._prefix + b"overlay." + key.removeprefix(self._prefix) if key.startswith(self._prefix) else key
