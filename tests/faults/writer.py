"""A program that changes a tree without rest, until its standard input ends: `writer.py ROOT SEED`.

Whatever a file holds at a moment can be told to be of that moment: it is a blob that begins with its own checksum and then
repeats what this is of, or a log of numbered records with theirs; or as much of one as a call has written yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import shutil
import struct
import sys
import time
import zlib
from pathlib import Path

_RECORD = struct.Struct("<4sQQII")  # magic, number, filling, checksum of these, zero
_LOG = b"LOG\n"
_BLOB = b"BLOB"
_UNIT_BYTES = 64
_DIRECTORIES = 6
_NAMES = ("a", "b", "c", "d.d", "e-e", "f")
_SIZES = (0, 5_000, 70_000, 300_000)
_LARGE = 6 << 20  # more than is kept in memory
_PAUSE_SECONDS = 0.0002
_LARGE_REST_SECONDS = 0.5  # one that never rests for as long as a reader needs is refused, as it must be


def blob(draw: random.Random, size: int) -> bytes:
    """A content with its own checksum, of `size` bytes and more."""
    unit = draw.randbytes(_UNIT_BYTES)
    return _BLOB + hashlib.sha256(unit).digest() + unit * (size // _UNIT_BYTES + 1)


def records(first: int, count: int) -> bytes:
    """Records of a log."""
    return b"".join(_record(number) for number in range(first, first + count))


def _record(number: int) -> bytes:
    head = _RECORD.pack(_LOG, number, number * 7, 0, 0)[:20]
    return _RECORD.pack(_LOG, number, number * 7, zlib.crc32(head), 0)


def is_of_one_moment(content: bytes) -> bool:
    """Whether a content is one that a file had."""
    if not content.startswith(_BLOB):
        return records(0, len(content) // _RECORD.size + 1).startswith(content)
    checksum, unit = content[4:36], content[36 : 36 + _UNIT_BYTES]
    whole = len(unit) < _UNIT_BYTES or hashlib.sha256(unit).digest() == checksum
    return whole and (unit * (len(content) // _UNIT_BYTES + 1)).startswith(content[36:])


class Writer:
    """Changes a tree by random steps."""

    def __init__(self, root: Path, draw: random.Random) -> None:
        self._root = root
        self._draw = draw
        self._large_since = 0.0

    def make(self) -> None:
        """A tree to begin with."""
        for number in range(_DIRECTORIES):
            self._fill(self._root / f"d{number}")
        (self._root / "large").write_bytes(blob(self._draw, _LARGE))
        for number in range(40):
            (self._root / f"still{number}").write_bytes(blob(self._draw, 3000))

    def step(self) -> None:
        """One change; some are impossible."""
        steps = (
            *(self._rewrite, self._rewrite, self._rewrite, self._append, self._append, self._append, self._replace),
            *(self._replace, self._truncate, self._rename, self._remove, self._create, self._create, self._create),
            *(self._link, self._symlink, self._mode, self._replace_directory, self._remove_directory, self._large),
        )
        with contextlib.suppress(OSError, shutil.Error):
            self._draw.choice(steps)()

    def _fill(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        for name in _NAMES:
            (directory / name).write_bytes(blob(self._draw, self._draw.choice(_SIZES)))
        (directory / "log").write_bytes(records(0, 200))

    def _directory(self) -> Path:
        return self._root / f"d{self._draw.randrange(_DIRECTORIES)}"

    def _file(self) -> Path:
        return self._directory() / self._draw.choice(_NAMES)

    def _rewrite(self) -> None:
        """In place, in one call; of another size after a moment at which it is empty."""
        file = os.open(self._file(), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            size = os.fstat(file).st_size
            if self._draw.random() < 0.3 or size < 100:
                os.ftruncate(file, 0)
                size = self._draw.choice(_SIZES) + 100
            os.pwrite(file, blob(self._draw, size - 100), 0)
        finally:
            os.close(file)

    def _append(self) -> None:
        file = os.open(self._directory() / "log", os.O_RDWR | os.O_APPEND)
        try:
            os.write(file, records(os.fstat(file).st_size // _RECORD.size, self._draw.randrange(1, 50)))
        finally:
            os.close(file)

    def _truncate(self) -> None:
        log = self._directory() / "log"
        os.truncate(log, self._draw.choice([0, log.stat().st_size // _RECORD.size // 2 * _RECORD.size]))

    def _replace(self) -> None:
        path = self._file()
        new = path.with_name("new")
        new.write_bytes(blob(self._draw, self._draw.choice(_SIZES)))
        new.rename(path)

    def _large(self) -> None:
        if time.monotonic() - self._large_since < _LARGE_REST_SECONDS:
            return
        new = self._root / "large.new"
        new.write_bytes(blob(self._draw, _LARGE))
        new.rename(self._root / "large")
        self._large_since = time.monotonic()

    def _rename(self) -> None:
        self._file().rename(self._file())

    def _remove(self) -> None:
        self._file().unlink()

    def _create(self) -> None:
        path = self._file()
        if not os.path.lexists(path):
            path.write_bytes(blob(self._draw, self._draw.choice(_SIZES)))

    def _link(self) -> None:
        self._file().hardlink_to(self._file())

    def _symlink(self) -> None:
        path = self._file()
        path.unlink()
        path.symlink_to(self._draw.choice(_NAMES))

    def _mode(self) -> None:
        self._file().chmod(self._draw.choice([0o600, 0o644, 0o755]))

    def _replace_directory(self) -> None:
        path = self._directory()
        new, old = path.with_name("new"), path.with_name("old")
        self._fill(new)
        path.rename(old)
        new.rename(path)
        shutil.rmtree(old)

    def _remove_directory(self) -> None:
        path = self._directory()
        shutil.rmtree(path)
        if self._draw.random() < 0.3:
            path.write_bytes(blob(self._draw, 1000))
            path.unlink()
        self._fill(path)


def main(root: str, seed: str) -> None:
    """Write until the other end of standard input is closed."""
    writer = Writer(Path(root), random.Random(seed))
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        writer.step()
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
