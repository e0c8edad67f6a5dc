"""The note on a file that could not get its owner, mode or kind, as containers/storage and fuse-overlayfs write it.

Spec: docs/decisions/0050-notes-are-read.md.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import Final

STAND_IN_MODE: Final = 0o400  # nobody shall write to an empty file that stands for a device; its owner may read its note
SET_IDS: Final = stat.S_ISUID | stat.S_ISGID
_MAX_ID: Final = (1 << 32) - 2
_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1
_MAX_BYTES: Final = 128
_FORM: Final = re.compile(rb"(\d+):(\d+):([0-7]+)(?::(?:(file|dir)|(pipe)|(socket)|(char|block)-(\d+)-(\d+)))?", re.ASCII)
_DEVICES: Final = {b"char": stat.S_IFCHR, b"block": stat.S_IFBLK}
_NAMES: Final = {stat.S_IFCHR: "char", stat.S_IFBLK: "block"}


@dataclass(frozen=True, slots=True)
class Note:
    """The owner, mode and device that a file should have.

    Attributes:
        uid, gid: Owner and group in the container.
        mode: Low 12 bits.
        kind: Type part of a mode, of what an empty file stands for; 0 for what the file itself is.
        device: Major and minor number.
    """

    uid: int
    gid: int
    mode: int
    kind: int = 0
    device: tuple[int, int] = (0, 0)

    def encode(self) -> bytes:
        """The note as it is stored."""
        text = f"{self.uid}:{self.gid}:0{self.mode:o}"
        if self.kind in _NAMES:
            text += f":{_NAMES[self.kind]}-{self.device[0]}-{self.device[1]}"
        elif self.kind:
            text += ":pipe" if self.kind == stat.S_IFIFO else ":socket"
        return text.encode()

    def applied(self, info: os.stat_result) -> tuple[int, int]:
        """Mode with type and device number of a file with this note, as far as nobody changed the file since."""
        stands_in = self.kind if stat.S_ISREG(info.st_mode) and info.st_size == 0 else 0
        given = STAND_IN_MODE if stands_in else self.mode & ~SET_IDS
        real = stat.S_IMODE(info.st_mode)
        mode = self.mode if real in (given, self.mode) else real
        return (stands_in or stat.S_IFMT(info.st_mode)) | mode, os.makedev(*self.device) if stands_in else info.st_rdev


def parse_note(value: bytes | None) -> Note | None:
    """Read `UID:GID:MODE[:KIND]`; None for anything else."""
    form = _FORM.fullmatch(value) if value is not None and len(value) <= _MAX_BYTES else None
    if form is None:
        return None
    uid, gid, mode = int(form[1]), int(form[2]), int(form[3], 8)
    if uid > _MAX_ID or gid > _MAX_ID or mode > 0o7777:
        return None
    if form[7] is None:
        return Note(uid, gid, mode, stat.S_IFIFO if form[5] else stat.S_IFSOCK if form[6] else 0)
    kind, device = _DEVICES[form[7]], (int(form[8]), int(form[9]))
    # Character device 0:0 is a whiteout of overlayfs, and no device.
    if device[0] > _MAX_MAJOR or device[1] > _MAX_MINOR or (kind == stat.S_IFCHR and device == (0, 0)):
        return None
    return Note(uid, gid, mode, kind, device)
