"""Segment cache: what layers in a containerd hold, in a bounded directory beside it.

    segments/   see `ocidiff.segments`
    blobs/HEX   a second name of the file in which containerd keeps a blob, so that it outlives the blob for a while
    ingest/     tables that are being written
    CACHEDIR.TAG   says that the directory is ours; backup tools that know the name leave it out

A blob whose file cannot have a second name, since it is on another file system, is read where containerd keeps it. The
directory belongs to one user alone, because its files decide which bytes are copied. It may be removed at any time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from itertools import islice
from typing import BinaryIO, Final

from ocidiff import opening, workspace
from ocidiff.errors import OcidiffError
from ocidiff.log import Logger
from ocidiff.oci.digest import Digest
from ocidiff.segments import MOST_TABLES, SegmentFiles

DEFAULT_BYTES: Final = 1 << 30
_INGEST: Final = "ingest"
_BLOBS: Final = "blobs"
_MODE: Final = 0o700
_OF_ROOT: Final = "/var/cache/ocidiff"
# Spec: Cache Directory Tagging Specification.
_TAG: Final = "CACHEDIR.TAG"
_SIGNATURE: Final = b"Signature: 8a477f597d28d172789f06886806bc55\n"
_OURS: Final = b"# Cache of ocidiff. It may be removed at any time.\n"
_CREATE_TAG: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TAG_MODE: Final = 0o644
_NO_DIRECTORY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})
_is_entry: Final = re.compile("[0-9a-f]{64}").fullmatch
_is_temporary: Final = re.compile("[0-9a-f]{32}").fullmatch

_log = Logger(__name__)


def default_directory() -> str:
    """Return the directory that `OCIDIFF_CACHE_DIR` names, else that of this user. Spec: XDG base directories."""
    if chosen := os.environ.get("OCIDIFF_CACHE_DIR"):
        return chosen
    if not os.geteuid():
        return _OF_ROOT
    caches = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(caches if os.path.isabs(caches) else os.path.expanduser("~/.cache"), "ocidiff")


class CacheDirectory:
    """A directory for its owner alone. It is opened anew each time, so that it may be removed meanwhile.

    Attributes:
        path: Its path.
    """

    def __init__(self, path: str) -> None:
        # The kernel would follow a symbolic link before a slash.
        self.path: Final = path.rstrip("/") or "/"

    def check(self) -> None:
        """Make the directory if it is missing.

        Raises:
            OSError: It cannot be made, is not this user's, others may write to it, or it holds what is not ours.
        """
        with self.directory(_INGEST):
            pass

    def fits(self) -> bool:
        """Check the directory as `check` does, but return False if the disk is full: a commit can do without a cache."""
        try:
            self.check()
        except OSError as error:
            if error.errno not in workspace.FULL:
                raise
            return False
        return True

    @contextlib.contextmanager
    def directory(self, *names: str, create: bool = True) -> Iterator[int]:
        """Yield the descriptor of a directory in it; arguments as in `open_directory`, errors as in `check`."""
        if create:
            os.makedirs(self.path, _MODE, exist_ok=True)
        root = self._open()
        try:
            self._require_private(root)
            self._require_own(root, create=create)
            descriptor = workspace.open_directory(root, self.path, *names, create=create, mode=_MODE)
        finally:
            os.close(root)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            return os.open(self.path, opening.DIRECTORY)
        except OSError as error:
            if error.errno in _NO_DIRECTORY:
                raise NotADirectoryError(errno.ENOTDIR, "must be a directory, not a link to one", self.path) from None
            raise

    def _require_own(self, root: int, *, create: bool) -> None:
        """Refuse a directory with what is not ours, since entries are removed; with `create`, mark an empty one."""
        if self._is_marked(root):
            return
        # Another process may mark it at the same moment.
        fcntl.flock(root, fcntl.LOCK_EX)
        if self._is_marked(root):
            return
        # A killed process may have left an empty tag.
        if os.listdir(root) not in ([], [_TAG]) or self._tag(root):
            raise FileExistsError(
                errno.EEXIST, "is not empty and not a cache of ocidiff; name an empty directory", self.path
            )
        if create:
            tag = os.open(_TAG, _CREATE_TAG, _TAG_MODE, dir_fd=root)
            try:
                os.write(tag, _SIGNATURE + _OURS)
            finally:
                os.close(tag)

    def _is_marked(self, root: int) -> bool:
        tag = self._tag(root)
        return tag.startswith(_SIGNATURE) and _OURS in tag

    def _tag(self, root: int) -> bytes:
        """Return what the tag says; nothing if there is none."""
        try:
            with workspace.open_regular(_TAG, root, os.path.join(self.path, _TAG)) as file:
                return file.read(len(_SIGNATURE + _OURS))
        except FileNotFoundError:
            return b""

    def _require_private(self, root: int) -> None:
        info = os.fstat(root)
        if info.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "the cache belongs to another user", self.path)
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(errno.EPERM, "others may write to the cache; remove it, or chmod 700", self.path)


class SegmentCache(SegmentFiles):
    """`SegmentTables` of blobs that another program keeps. Safe from several threads and processes.

    Args:
        place: The directory.
        store: Returns the directory of the content store, in which blobs are files below `blobs/sha256`; None for none.
        max_bytes: Bytes of tables and of second names of blobs at most; None for 1 GiB.
    """

    def __init__(self, place: CacheDirectory, store: Callable[[], str | None], max_bytes: int | None = None) -> None:
        super().__init__(place, _INGEST, (_BLOBS,))
        self._store = store
        self._max_bytes = DEFAULT_BYTES if max_bytes is None else max_bytes

    def _open_blob(self, blobs: int, name: str) -> BinaryIO:
        try:
            return super()._open_blob(blobs, name)
        except FileNotFoundError:
            path = self._path_of(name)
            return workspace.open_regular(path, blobs, path)

    def _add(self, digest: Digest, tables: int, waiting: int) -> None:
        super()._add(digest, tables, waiting)
        with self._files.directory(_BLOBS) as blobs:
            try:
                os.link(self._path_of(digest.hex), digest.hex, dst_dir_fd=blobs, follow_symlinks=False)
            except OSError as error:
                _log.debug("segments of %s: the blob is read where it is: %s", digest, error)
            self._bound(tables, blobs)
        workspace.sweep(waiting, lambda name: not _is_temporary(name), self._files.path)

    def _path_of(self, name: str) -> str:
        try:
            place = self._store()
        except OcidiffError as error:
            raise FileNotFoundError(errno.ENOENT, str(error), name) from None
        if place is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return os.path.join(place, "blobs", "sha256", name)

    def _bound(self, tables: int, blobs: int) -> None:
        """Remove the oldest entries beyond the bounds, and parts of entries that a killed process left."""
        # Listed first: a table is there before the second name of its blob.
        linked = set(filter(_is_entry, os.listdir(blobs)))
        there = set(filter(_is_entry, os.listdir(tables)))
        kept, kept_blobs, left, has_space = set[str](), set[str](), self._max_bytes, True
        for name in islice(filter(there.__contains__, self.newest(tables)), MOST_TABLES):
            table, blob = _size(tables, name), _size(blobs, name)
            if table > left:
                break
            kept.add(name)
            left -= table
            # If one has no space, older ones that are smaller go too. Their tables serve while containerd has the blobs.
            has_space = has_space and blob <= left
            if has_space:
                kept_blobs.add(name)
                left -= blob
        for directory, names in ((blobs, linked - kept_blobs), (tables, there - kept)):
            for name in names:
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(name, dir_fd=directory)


def _size(directory: int, name: str) -> int:
    """Return the size of a file; 0 if it is gone."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
