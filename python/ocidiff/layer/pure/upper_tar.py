"""The tar of an overlay's upper directory, read as the layer that it stands for.

Devices 0/0 are whiteouts, and attributes of overlayfs mark opaque directories. Spec: Linux overlayfs.rst, "whiteouts and
opaque directories".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ocidiff.errors import OcidiffError
from ocidiff.layer.pure import sentences, tar
from ocidiff.layer.pure.directories import show, split
from ocidiff.layer.pure.faults import malformed, unsupported
from ocidiff.layer.pure.path import clean
from ocidiff.layer.pure.tar_reader import Entry
from ocidiff.layer.pure.whiteout import PREFIX
from ocidiff.layer.xattrs import OVERLAY, OVERLAY_USERXATTR, class_of, mark_of


@dataclass(frozen=True, slots=True)
class Said:
    """The meaning of an entry of an upper directory.

    Attributes:
        entry: The object, without the attributes of overlayfs; None for a whiteout.
        is_opaque: True for a directory that hides all that lower layers have below it.
    """

    entry: Entry | None
    is_opaque: bool = False


class UpperTar:
    """Remembers the directories and whiteouts of the entries so far."""

    def __init__(self) -> None:
        self._directories = {b""}
        self._whiteouts = set[bytes]()
        self._is_trusted = False  # an attribute `trusted.overlay.*` was there: those of users mean nothing then
        self._marked_by_users: list[bytes] = []  # directories with `user.overlay.opaque`
        self._refused: OcidiffError | None = None  # the first mark `user.overlay.*` that is not read

    def read(self, entry: Entry) -> Said:
        """Read an entry.

        Raises:
            MalformedLayerError: Its directory is not in the tar.
            UnsupportedError: An upper directory of overlayfs has no such name, or only a mount can resolve it.
        """
        path = entry.path
        is_opaque, is_whiteout = self._read_marks(entry, path)
        xattrs = {name: value for name, value in entry.xattrs.items() if class_of(name).owner != "overlayfs"}
        entry = replace(entry, xattrs=xattrs)
        if not path:
            return Said(entry)  # the kernel asks no root whether it is opaque
        self._check_name(entry, path)
        if entry.type == tar.CHARACTER:
            is_whiteout = entry.device == (0, 0)
        elif entry.type == tar.HARD_LINK:
            is_whiteout = clean(entry.linkname) in self._whiteouts  # overlayfs makes its whiteouts links to one
        if is_whiteout:
            self._whiteouts.add(path)
            return Said(None)
        self._whiteouts.discard(path)
        if entry.type == tar.DIRECTORY:
            self._directories.add(path)
        return Said(entry, is_opaque)

    def finish(self) -> list[bytes]:
        """Return the directories that are opaque too, now that it is known who wrote the marks.

        Raises:
            UnsupportedError: There is a mark that is not read.
        """
        if self._is_trusted:
            return []
        if self._refused is not None:
            raise self._refused
        return self._marked_by_users

    def _check_name(self, entry: Entry, path: bytes) -> None:
        parent, name = split(path)
        if name.startswith(PREFIX):
            raise unsupported(path, sentences.NAME_NOT_OF_UPPER)
        if parent not in self._directories:
            raise malformed(entry.offset, sentences.OF_ENTRY.format(name=show(path), cause=sentences.NO_ENTRY_OF_DIRECTORY))
        if entry.type != tar.DIRECTORY and path in self._directories:
            raise malformed(entry.offset, sentences.OF_ENTRY.format(name=show(path), cause=sentences.NAME_OF_DIRECTORY))

    def _read_marks(self, entry: Entry, path: bytes) -> tuple[bool, bool]:
        """Return true if the marks of root make the entry an opaque directory, and if they make it a whiteout."""
        is_file, is_directory = entry.type == tar.REGULAR, entry.type == tar.DIRECTORY
        opaque = whiteout = False
        for prefix in (OVERLAY, OVERLAY_USERXATTR):
            is_opaque = is_directory and entry.xattrs.get(prefix + b"opaque") == b"y"
            is_whiteout = is_file and not entry.size and prefix + b"whiteout" in entry.xattrs
            refused = None
            if is_directory and not is_opaque and prefix + b"redirect" in entry.xattrs:
                refused = b"redirect"
            elif is_file and not is_whiteout and prefix + b"metacopy" in entry.xattrs:
                refused = b"metacopy"
            elif prefix == OVERLAY_USERXATTR and is_whiteout:
                refused = b"whiteout"
            key = show(prefix + (refused or b""))
            error = None if refused is None else unsupported(path, sentences.NOT_READ_FROM_TAR.format(key=key))
            if prefix == OVERLAY:
                if error is not None:
                    raise error
                self._is_trusted |= any(mark_of(name, OVERLAY) is not None for name in entry.xattrs)
                opaque, whiteout = is_opaque, is_whiteout
            else:
                self._refused = self._refused or error
                if is_opaque and path:
                    self._marked_by_users.append(path)
        return opaque, whiteout
