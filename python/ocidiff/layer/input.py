"""Input: where a layer comes from, or the tar of an upper directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field

from ocidiff.errors import MalformedLayerError
from ocidiff.layer.options import Limits
from ocidiff.output import HasFileno
from ocidiff.values import dataclass

Input = str | bytes | os.PathLike[str] | os.PathLike[bytes] | HasFileno


@dataclass(frozen=True, slots=True)
class UpperTar:
    """The upper directory of an overlay as a tar, which `runsc tar rootfs-upper` writes of a gVisor container.

    Deletions are devices 0/0, and opaque directories have the attribute `trusted.overlay.opaque` or `user.overlay.opaque`.

    Attributes:
        tar: Path of the tar, or an open file, read from its position on. Compression is detected.
        limits: What the tar may not pass.
    """

    tar: Input
    limits: Limits = field(default_factory=Limits)


@contextmanager
def open_input(layer: Input) -> Iterator[int]:
    """Yield a file descriptor to read from; an open file is read from its position on.

    Raises:
        IsADirectoryError: The path is that of a directory.
    """
    if not isinstance(layer, str | bytes | os.PathLike):
        yield layer.fileno()
        return
    with open(layer, "rb", buffering=0) as file:
        if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(layer))
        yield file.fileno()


def bytes_left(source: int) -> int | None:
    """Return how many bytes there are to read; None if only the end will tell."""
    info = os.fstat(source)
    return info.st_size - os.lseek(source, 0, os.SEEK_CUR) if stat.S_ISREG(info.st_mode) else None


def empty_file(layer: Input) -> MalformedLayerError:
    """Return the error of a layer of no bytes: a failed program leaves one behind, and no tool writes one."""
    name = os.fsdecode(layer) if isinstance(layer, str | bytes | os.PathLike) else "layer"
    return MalformedLayerError(f"{name}: empty file: a layer without changes is a tar of 1024 zero bytes")
