"""Files of a layout, reached by directory handles: nothing in it is followed out of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import Final

from ocidiff import opening, workspace
from ocidiff.errors import DocumentError, UsageError
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES, Members, compact, parse_object
from ocidiff.oci.index import Index

INDEX: Final = "index.json"
INGEST: Final = "ingest"
TREES: Final = "snapshots"
# Programs in there may have any rights: only who may use them all may reach them.
TREES_MODE: Final = 0o700
BLOBS: Final = ("blobs", "sha256")
DAMAGED: Final = "damaged"

# Other tools and users read the layout.
DIRECTORY_MODE: Final = 0o755
_VERSION: Final = "1.0.0"
_MARKER: Final = "oci-layout"
# The owner of what a user namespace knows no owner of.
_UNKNOWN_USER: Final = 65534
_LOCK: Final = "index.lock"
# Names that a layout may have before its marker is there.
_OWN: Final = frozenset({INDEX, INGEST, _LOCK, BLOBS[0]})
# Other users read the layout.
_FILE_MODE: Final = 0o644


class Files:
    """The files of one layout, by their names in it.

    Args:
        path: Its directory.

    Raises:
        FileNotFoundError, NotADirectoryError: It is missing, or is no directory.
    """

    def __init__(self, path: str) -> None:
        self.path: Final = path
        self._root: int | None = os.open(path, opening.ROOT)

    @property
    def root(self) -> int:
        """The descriptor of the directory.

        Raises:
            UsageError: It is closed.
        """
        if self._root is None:
            raise UsageError(f"store {self.path}: is closed")
        return self._root

    def close(self) -> None:
        """Close the directory."""
        if self._root is not None:
            os.close(self._root)
            self._root = None

    def begin(self, *, create: bool) -> None:
        """Check that this is a layout, making it one if that is wanted and it is empty or half made.

        Raises:
            DocumentError: It is something else.
        """
        try:
            self._check_marker()
        except FileNotFoundError:
            if not create or not _OWN.issuperset(os.listdir(self.root)):
                raise DocumentError(f"{self.path}: not an OCI image layout: no {_MARKER} file") from None
            self._initialise()

    @contextlib.contextmanager
    def directory(self, *names: str, create: bool = True) -> Iterator[int]:
        """Descriptor of a directory; see `open_directory`."""
        descriptor = workspace.open_directory(self.root, self.path, *names, create=create)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, name: str) -> bytes:
        """Return the bytes of a document, at most one more than is allowed, so that its parser refuses it."""
        with workspace.open_regular(name, self.root, f"{self.path}/{name}") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)

    def replace(self, name: str, data: bytes) -> None:
        """Replace a file whole: readers see the old or the new one, also after a power failure."""
        with self.directory(INGEST) as ingest_dir:
            temporary, file = workspace.create_file(ingest_dir)
            try:
                with os.fdopen(file, "wb", closefd=False) as stream:
                    stream.write(data)
                os.fsync(file)
                os.fchmod(file, _FILE_MODE)
                os.rename(temporary, name, src_dir_fd=ingest_dir, dst_dir_fd=self.root)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=ingest_dir)
                raise
            finally:
                os.close(file)
        os.fsync(self.root)

    def refusal(self, *names: str) -> OSError | None:
        """Return why this process may not write to the layout; None if it may.

        Args:
            names: Files in it that it must be allowed to write to, if they are there.
        """
        if os.fstatvfs(self.root).f_flag & os.ST_RDONLY:
            return OSError(errno.EROFS, os.strerror(errno.EROFS), self.path)
        places = {".": os.W_OK | os.X_OK, INGEST: os.W_OK | os.X_OK, "/".join(BLOBS): os.W_OK | os.X_OK}
        for name, wanted in (places | dict.fromkeys(names, os.W_OK)).items():
            if not os.access(name, wanted, dir_fd=self.root, effective_ids=True) and self._is_there(name):
                return self._denied(name)
        return None

    def _denied(self, name: str) -> OSError:
        """Return the refusal to write to a file of the layout: it says whose it is, if it is somebody else's."""
        why = os.strerror(errno.EACCES)
        owner = os.stat(name, dir_fd=self.root, follow_symlinks=False).st_uid
        if owner != os.geteuid():
            why += f": the store belongs to {_user(owner)}; use one of your own (--store), or only read this one"
        return OSError(errno.EACCES, why, self.path if name == "." else f"{self.path}/{name}")

    def _is_there(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else replaces the index meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            lock = os.open(_LOCK, flags, _FILE_MODE, dir_fd=self.root)
        except OSError as error:
            raise self.refusal() or OSError(error.errno, error.strerror, f"{self.path}/{_LOCK}") from None
        try:
            if stat.S_IMODE(os.fstat(lock).st_mode) != _FILE_MODE:
                # It was made under another umask; only its owner may say so.
                with contextlib.suppress(PermissionError):
                    os.fchmod(lock, _FILE_MODE)
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _initialise(self) -> None:
        with self.locked():
            for names in ((INGEST,), BLOBS):
                os.close(workspace.open_directory(self.root, self.path, *names, create=True))
            if INDEX not in os.listdir(self.root):
                self.replace(INDEX, Index().encode())
            # The marker comes last: a directory without it is no layout yet.
            self.replace(_MARKER, compact({"imageLayoutVersion": _VERSION}))

    def _check_marker(self) -> None:
        where = f"{self.path}/{_MARKER}"
        members = Members(parse_object(self.read(_MARKER), where), where)
        version = members.text("imageLayoutVersion")
        if version != _VERSION:
            members.fail("imageLayoutVersion", f"is {version[:100]!r}, expected {_VERSION!r}")


def _user(uid: int) -> str:
    from pwd import getpwuid

    if uid == _UNKNOWN_USER:
        return "another user"
    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
