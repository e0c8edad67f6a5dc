"""Input: where a layer comes from, or the tar of an upper directory."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Final, Protocol

from ocidiff.errors import MalformedLayerError, UsageError
from ocidiff.layer.limits import Limits
from ocidiff.output import HasFileno, descriptor_of, write_all
from ocidiff.values import dataclass
from ocidiff.workspace import filling, nameless_file


class HasRead(Protocol):
    """A binary file object that may have no descriptor, such as `io.BytesIO`."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes; none at the end."""
        ...


Input = str | bytes | os.PathLike[str] | os.PathLike[bytes] | HasFileno | HasRead
_COPY_BYTES: Final = 1 << 20


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

    A file object without a descriptor is copied to a file without a name first.

    Raises:
        IsADirectoryError: The path is that of a directory.
        UsageError: It is neither a path nor a binary file object.
    """
    if not isinstance(layer, str | bytes | os.PathLike):
        descriptor = descriptor_of(layer)
        if descriptor is None:
            yield from _copied(layer)
            return
        if isinstance(layer, io.BufferedIOBase) and layer.seekable():
            # Its buffer may have read ahead.
            os.lseek(descriptor, layer.tell(), os.SEEK_SET)
        yield descriptor
        return
    with open(layer, "rb", buffering=0) as file:
        if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(layer))
        yield file.fileno()


def _copied(layer: object) -> Iterator[int]:
    read = getattr(layer, "read", None)
    if read is None or isinstance(layer, io.TextIOBase):
        raise UsageError(f"layer {type(layer).__name__}: must be a path or a file object opened in binary mode")
    with nameless_file(None) as file:
        while block := read(_COPY_BYTES):
            with filling(None):
                write_all(file.fileno(), block)
        file.seek(0)
        yield file.fileno()


def bytes_left(source: int) -> int | None:
    """Return how many bytes there are to read; None if only the end will tell."""
    info = os.fstat(source)
    return info.st_size - os.lseek(source, 0, os.SEEK_CUR) if stat.S_ISREG(info.st_mode) else None


def empty_file(layer: Input) -> MalformedLayerError:
    """Return the error of a layer of no bytes: a failed program leaves one behind, and no tool writes one."""
    name = os.fsdecode(layer) if isinstance(layer, str | bytes | os.PathLike) else "layer"
    return MalformedLayerError(f"{name}: empty file: a layer without changes is a tar of 1024 zero bytes")
