"""The directories of an overlay."""

from __future__ import annotations

from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class OverlayLayers:
    """The directories of an overlay, to be read with nothing mounted.

    Attributes:
        upperdir: Path of the directory that takes the changes.
        lowerdirs: Paths of the directories below it, top first, at least one.
        datadirs: Paths of directories that only hold the content of files in the others, top first.
        userxattr: True if marks are in `user.overlay.*`, as with the mount option `userxattr`; None to find out.
        redirects: True if redirects of directories are followed, as the mount option `redirect_dir` says.
    """

    upperdir: bytes
    lowerdirs: tuple[bytes, ...]
    datadirs: tuple[bytes, ...] = ()
    userxattr: bool | None = None
    redirects: bool = True
