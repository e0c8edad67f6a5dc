"""Changed trees that the host does not see: gVisor keeps changes in a file beside them that only runsc reads."""

from __future__ import annotations

import os
import stat
from typing import Final

from ocidiff.errors import UnsupportedError

_FILESTORE: Final = b".gvisor.filestore."
PATTERN: Final = "/.gvisor.filestore.*"
"""The pattern of what gVisor keeps changes in."""


def refuse_unseen(upper: bytes) -> None:
    """Refuse a changed tree whose changes gVisor keeps elsewhere: its layer would lack all of them without a word.

    Args:
        upper: The directory of the tree, or the upper directory of an overlay.

    Raises:
        UnsupportedError: gVisor's file is at the top of the tree.
    """
    try:
        names = os.listdir(upper)
    except PermissionError:
        # A directory that its own mode closes; whoever reads it opens it, or says that it cannot be read.
        return
    for name in names:
        if name.startswith(_FILESTORE) and stat.S_ISREG(os.lstat(os.path.join(upper, name)).st_mode):
            raise UnsupportedError(
                f"{os.fsdecode(upper)}: gVisor keeps the changes in {os.fsdecode(name)}, which only runsc reads; write them "
                "with `runsc tar rootfs-upper` and give the file to --upper-tar; if no sandbox uses the file, remove it"
            )
