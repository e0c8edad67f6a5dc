"""Trees: made-up trees and changes of them, the same ones for the same seed."""

from __future__ import annotations

import os
import random
import stat
from typing import Final

from ocidiff.walk import Cursor, walk

MIB: Final = 1 << 20
_FIRST_SECOND: Final = 1_600_000_000
_SECONDS: Final = 10**8
_FILES_FOR_A_LINK: Final = 50
_PROGRAM: Final = 0o755
_FILE: Final = 0o644
# As a Debian system with development tools has them: the average file is seven times the median.
_SIZE_MU: Final = 7.9
_SIZE_SIGMA: Final = 2.0


def text(chance: random.Random, size: int) -> bytes:
    """Return bytes that compress about as well as program text."""
    words = [f"{chance.getrandbits(24):06x} ".encode() for _ in range(64)]
    return b"".join(chance.choices(words, k=size // 7))


class Pool:
    """Bytes to cut files from: quick, and the same each time."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - not secret
        words = text(self.chance, 4 * MIB)
        # Half of what programs are made of repeats.
        code = b"".join(self.chance.randbytes(24) + words[number * 24 : number * 24 + 24] for number in range(MIB // 12))
        self._kinds = (words, words, code)

    def write(self, path: str | bytes | os.PathLike[str], size: int) -> None:
        """Write a file of `size` bytes, with a time of its own in whole seconds."""
        kind = self.chance.choice(self._kinds)
        with open(path, "wb") as file:
            while size > 0:
                start = self.chance.randrange(len(kind) - 1)
                size -= file.write(kind[start : start + size])
        set_time(path, self.chance)


def set_time(path: str | bytes | os.PathLike[str], chance: random.Random) -> None:
    """Give a file or a directory a modification time in whole seconds, as those of image layers are."""
    seconds = _FIRST_SECOND + chance.randrange(_SECONDS)
    os.utime(path, (seconds, seconds))


def make_tree(root: str, files: int, size: int, seed: int) -> None:
    """Fill the directory `root`.

    Args:
        root: An empty directory.
        files: Number of regular files; there is a symbolic link more for every 50.
        size: Bytes of them all, but for rounding.
        seed: Chooses sizes, bytes and times.
    """
    pool = Pool(seed)
    weights = [pool.chance.lognormvariate(_SIZE_MU, _SIZE_SIGMA) for _ in range(files)]
    whole = sum(weights)
    directories: dict[str, None] = {}
    for number, weight in enumerate(weights):
        top, below = f"{root}/usr/{number % 23:02}", f"{root}/usr/{number % 23:02}/{number % 31:02}"
        if below not in directories:
            os.makedirs(below, mode=_PROGRAM, exist_ok=True)
            # Parents last: their times change with what is made in them.
            directories.pop(top, None)
            directories |= {below: None, top: None}
        path = f"{below}/{number:06}"
        pool.write(path, int(weight * size / whole))
        os.chmod(path, _PROGRAM if number % 10 == 0 else _FILE)
        if number % _FILES_FOR_A_LINK == 0:
            os.symlink(f"{number:06}", f"{path}.link")
            os.utime(f"{path}.link", (_FIRST_SECOND, _FIRST_SECOND), follow_symlinks=False)
    for path in [*directories, f"{root}/usr", root]:
        os.chmod(path, _PROGRAM)
        set_time(path, pool.chance)


def measure_tree(root: str) -> tuple[int, int]:
    """Return the number of names in a tree and the bytes of its regular files."""
    names = size = 0
    with Cursor(root) as cursor:
        for visit in walk(cursor):
            if not visit.is_left:
                names += 1
                size += visit.info.st_size if stat.S_ISREG(visit.info.st_mode) else 0
    return names, size


def change_tree(root: str, share: float, seed: int) -> int:
    """Change a share of the regular files of a tree, at least one; return how many.

    Of eight, five are written anew, one is deleted, one gets a new neighbour and one another mode. Files in directories
    that this user may not write to are left alone.
    """
    pool = Pool(seed)
    files = sorted(_files(root))
    chosen = pool.chance.sample(files, min(len(files), max(1, round(len(files) * share))))
    for number, (path, mode, size) in enumerate(chosen):
        match number % 8:
            case 5:
                os.unlink(path)
            case 6:
                pool.write(path + b".new", size)
            case 7:
                os.chmod(path, mode ^ 0o010)
            case _:
                # Other names of the same file keep what it had.
                os.unlink(path)
                pool.write(path, size + 100)
                os.chmod(path, mode)
    for directory in sorted({os.path.dirname(path) for path, _, _ in chosen}):
        set_time(directory, pool.chance)
    return len(chosen)


def can_change(root: str) -> bool:
    """Return True if the tree has a file that `change_tree` may change."""
    return bool(_files(root))


def _files(root: str) -> list[tuple[bytes, int, int]]:
    """Return path, mode and size of the regular files that may be replaced."""
    with Cursor(root) as cursor:
        return [
            (cursor.full(name), stat.S_IMODE(info.st_mode), info.st_size)
            for name, info, _ in walk(cursor)
            if stat.S_ISREG(info.st_mode) and os.access(cursor.full(), os.W_OK)
        ]
