"""Stored blobs: judged by their bytes, since a name and a length say nothing of them."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable
from typing import Final

from ocidiff import workspace
from ocidiff.embedded.files import BLOBS, DAMAGED, DIRECTORY_MODE
from ocidiff.log import Logger
from ocidiff.oci.digest import Digest
from ocidiff.services.content import BLOCK_BYTES

# Two blocks of this size stay in the processor's cache.
_COMPARED_BYTES: Final = 256 << 10
# A failing disk, a file of somebody else, and what is no regular file: others cannot read such a blob either.
UNREADABLE: Final = frozenset(
    {errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EACCES, errno.ELOOP, errno.EINVAL, errno.ENXIO}
)
"""Numbers of the errors of a blob that nobody can read; a lack of memory, say, is no damage."""
# From the directory of the blobs.
_TO_DAMAGED: Final = ("..", "..", DAMAGED)

_log = Logger(__name__)


def holds_bytes(blobs: int, digest: Digest, file: int, size: int, check: Callable[[], None]) -> bool:
    """Return True if a blob is there with the bytes of a file; one with other bytes is damaged, and to be replaced.

    Args:
        blobs: Descriptor of the directory `blobs/sha256/`.
        digest: Name of the blob.
        file: Descriptor of the file, whose bytes are known to be those of the digest.
        size: Length of the file in bytes.
        check: Called before each block; may raise.
    """

    def is_same(stored: int) -> bool:
        right, found = bytearray(_COMPARED_BYTES), bytearray(_COMPARED_BYTES)
        for offset in range(0, size, _COMPARED_BYTES):
            check()
            # Behind the end of the last block, both hold the bytes of the block before.
            if os.preadv(file, [right], offset) != os.preadv(stored, [found], offset) or right != found:
                return False
        return True

    try:
        is_sound = _is_stored(blobs, digest, size, is_same)
    except FileNotFoundError:
        return False
    if not is_sound:
        _log.warning("blob %s: was damaged in the store, and is replaced", digest)
    return is_sound


def is_intact(blobs: int, digest: Digest, size: int, check: Callable[[], None]) -> bool:
    """Return True if a blob is there with the bytes of its digest; all of them are read.

    Args:
        blobs: Descriptor of the directory `blobs/sha256/`.
        digest: Name of the blob.
        size: Its length in bytes.
        check: Called before each block; may raise.
    """

    def is_named(stored: int) -> bool:
        sha256, block = hashlib.sha256(), memoryview(bytearray(BLOCK_BYTES))
        while count := os.readv(stored, [block]):
            check()
            sha256.update(block[:count])
        return sha256.hexdigest() == digest.hex

    try:
        return _is_stored(blobs, digest, size, is_named)
    except FileNotFoundError:
        return False


def make_visible(ingest_dir: int, name: str, blobs: int, digest: Digest) -> None:
    """Give a whole file in `ingest/` the name of its blob; a directory of that name, which may hold files, is kept.

    Args:
        ingest_dir: Descriptor of the directory that holds the file.
        name: Name of the file.
        blobs: Descriptor of the directory `blobs/sha256/`.
        digest: Name of the blob.
    """
    try:
        os.rename(name, digest.hex, src_dir_fd=ingest_dir, dst_dir_fd=blobs)
    except IsADirectoryError:
        set_damaged_aside(blobs, digest)
        os.rename(name, digest.hex, src_dir_fd=ingest_dir, dst_dir_fd=blobs)


def set_damaged_aside(blobs: int, digest: Digest) -> None:
    """Move what has the name of a blob into `damaged/`, under a name of its own if that is taken.

    Args:
        blobs: Descriptor of the directory `blobs/sha256/`.
        digest: Name of the blob.
    """
    damaged = workspace.open_directory(blobs, "/".join(BLOBS), *_TO_DAMAGED, create=True, mode=DIRECTORY_MODE)
    try:
        name = digest.hex
        if name in os.listdir(damaged):
            name = f"{name}.{time.time_ns()}"
        os.rename(digest.hex, name, src_dir_fd=blobs, dst_dir_fd=damaged)
    finally:
        os.close(damaged)


def _is_stored(blobs: int, digest: Digest, size: int, is_sound: Callable[[int], bool]) -> bool:
    """Return what `is_sound` says of the descriptor of a blob; False if it has another length or cannot be read.

    Raises:
        FileNotFoundError: There is none.
    """
    try:
        with workspace.open_regular(digest.hex, blobs, digest) as blob:
            stored = blob.fileno()
            return os.fstat(stored).st_size == size and is_sound(stored)
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        return False
