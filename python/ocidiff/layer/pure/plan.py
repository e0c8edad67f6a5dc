"""Plans what an entry of a layer asks for, or refuses it: each rule that needs no tree to be applied is here.

Two performers do what it says: `apply` to a directory, and `sketch` to a model of one.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from ocidiff.errors import MalformedLayerError
from ocidiff.layer.pure import sentences, tar
from ocidiff.layer.pure.faults import broken_link, unsafe
from ocidiff.layer.pure.path import clean
from ocidiff.layer.pure.tar_reader import Entry
from ocidiff.layer.pure.whiteout import Aufs, Opaque, Removal, is_pseudo_link, read_whiteout

IMPLIED_MODE: Final = 0o755
"""The mode of a directory that no entry describes."""
_MAX_ID: Final = (1 << 32) - 2  # the next one means "leave it" to chown
_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1


class Do(Enum):
    """The action that an entry asks for, besides the removal of what lower layers left.

    Attributes:
        DESCRIBE_ROOT: Say what the root itself is.
        MAKE: Make an object, in a directory that is made where it is missing. Only a directory merges with what is there.
        KEEP_ASIDE: Make a file that AUFS kept for hard links, if nothing had the name of its directory before. Both go with
            the layer.
        LEAVE_OUT: Nothing: it is bookkeeping of AUFS.
    """

    DESCRIBE_ROOT = auto()
    MAKE = auto()
    KEEP_ASIDE = auto()
    LEAVE_OUT = auto()


def plan(entry: Entry) -> Do | Removal | Opaque:
    """Decide what an entry asks for. A whiteout acts whatever kind of entry names it, and makes no directory.

    Raises:
        MalformedLayerError: It is a whiteout of nothing.
    """
    if not entry.path:
        return Do.DESCRIBE_ROOT
    whiteout = read_whiteout(entry.path, entry.offset)
    if isinstance(whiteout, Aufs):
        is_kept = entry.type == tar.REGULAR and is_pseudo_link(entry.path)
        return Do.KEEP_ASIDE if is_kept else Do.LEAVE_OUT
    return Do.MAKE if whiteout is None else whiteout


def check(entry: Entry) -> None:
    """Check what an entry makes, or says of the root.

    Raises:
        UnsafeLayerError: It is a root and no directory, or has numbers that Linux cannot have.
    """
    if not entry.path and entry.type != tar.DIRECTORY:
        raise unsafe(entry.path, sentences.ROOT_IS_NO_DIRECTORY)
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        raise unsafe(entry.path, sentences.OWNER_OUT_OF_RANGE.format(uid=entry.uid, gid=entry.gid))
    if entry.type not in (tar.CHARACTER, tar.BLOCK):
        return
    major, minor = entry.device
    if not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
        raise unsafe(entry.path, sentences.DEVICE_OUT_OF_RANGE.format(major=major, minor=minor))
    if entry.type == tar.CHARACTER and entry.device == (0, 0):
        raise unsafe(entry.path, sentences.WHITEOUT_DEVICE)


class Link:
    """A hard link.

    Attributes:
        target: The clean path that it leads to, never the root.

    Raises:
        MalformedLayerError: It leads to the root.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.target = clean(entry.linkname)
        if not self.target:
            raise self._refused(sentences.TARGET_IS_DIRECTORY)

    def check(self, *, is_directory: bool | None, is_same: bool) -> None:
        """Check what has the name of the target.

        Args:
            is_directory: True if that is a directory; None if there is nothing.
            is_same: True if that is the name of the link itself.

        Raises:
            MalformedLayerError: There is nothing, or nothing that can be linked.
        """
        if is_directory is None:
            raise self.is_missing()
        if is_directory:
            raise self._refused(sentences.TARGET_IS_DIRECTORY)
        if is_same:
            raise self._refused(sentences.TARGET_IS_SAME_NAME)

    def is_missing(self) -> MalformedLayerError:
        """Return the error of a target that is not there."""
        return self._refused(sentences.TARGET_IS_MISSING)

    def _refused(self, cause: str) -> MalformedLayerError:
        return broken_link(self._entry.offset, self._entry.path, self.target, cause)


def describes(entry: Entry) -> bool:
    """Return true if an entry says what its object is. A file that AUFS kept says that itself to the links to it."""
    return entry.type != tar.HARD_LINK or not is_pseudo_link(clean(entry.linkname))
