"""Connections to a SQLite file, and its failures as errors of the package or the system."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ocidiff.embedded.schema import APPLICATION_ID, VERSION, run_steps
from ocidiff.errors import BusyError, DocumentError

# A collection holds the write lock for as long as it moves rubbish aside.
_LOCK_SECONDS: Final = 120.0
# Suffixes of the logs of a database.
LOGS: Final = ("-wal", "-shm")
REMEDY: Final = "run 'ocidiff verify --repair', which sets it aside and makes it again from the files"


def is_there(path: str) -> bool:
    """Return True if a database has this path."""
    return os.path.exists(path)


def connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
    """Open a database to write to, for several threads that take turns.

    Args:
        path: Its path, or its URI.
        uri: True for a URI.
    """
    connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False, uri=uri)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def connect_for_reading(path: str) -> sqlite3.Connection:
    """Open a database without writing anything, not even the files that SQLite keeps beside it."""
    try:
        has_log = os.stat(path + LOGS[0]).st_size > 0
    except FileNotFoundError:
        has_log = False
    if not has_log:
        return connect(f"{_uri(path)}?immutable=1", uri=True)
    try:
        connection = connect(f"{_uri(path)}?mode=ro", uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException:
            connection.close()
            raise
    except sqlite3.OperationalError as error:
        if primary_code(error) not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            raise
        return _connect_to_copy(path)
    return connection


def _connect_to_copy(path: str) -> sqlite3.Connection:
    """Open a copy, since its writer died, and only who may write can join the log with the file."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ocidiff-") as place:
        copy = os.path.join(place, os.path.basename(path))
        # The log first: what is in it goes into the file and never back.
        for suffix in (LOGS[0], ""):
            shutil.copyfile(path + suffix, copy + suffix)
        connection = connect(copy)
        # From here on all files are open, and need no name.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return connection


def connect_to_nothing() -> sqlite3.Connection:
    """Open a database without rows, for a store that another tool made."""
    connection = connect(":memory:")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for number in range(VERSION):
        run_steps(connection, number)
    return connection


def _uri(path: str) -> str:
    """Spec: sqlite.org/uri.html, section 3.1."""
    return "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


# By the whole code where it tells more, else by the primary code, the low byte.
ERRNOS: Final = {
    # The shared index of the log could not grow.
    sqlite3.SQLITE_IOERR_SHMSIZE: errno.ENOSPC,
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Failures of SQLite as the package's own, or the system's."""
    try:
        yield
    except sqlite3.Error as error:
        primary = primary_code(error)
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_DBMOVED:
            raise replaced(path) from error
        number = _errno(error)
        if number is not None:
            raise OSError(number, os.strerror(number), path) from error
        if primary in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            raise _why_not_open(path) from error
        if primary in _BUSY:
            raise BusyError(f"{path}: locked by another process for more than {_LOCK_SECONDS:.0f} s") from error
        if primary in _BROKEN or str(error).startswith("no such"):
            raise DocumentError(f"{path}: {error}: {REMEDY}") from error
        raise


def _errno(error: sqlite3.Error) -> int | None:
    """Return the number of the system's error behind one of SQLite; None if there is none."""
    primary = primary_code(error)
    return None if primary is None else ERRNOS.get(error.sqlite_errorcode) or ERRNOS.get(primary)


def primary_code(error: sqlite3.Error) -> int | None:
    """Return the primary result code of SQLite behind an error; None if there is none."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def replaced(path: str) -> BusyError:
    """Return the error of a call whose database has lost its name."""
    return BusyError(f"{path}: was removed or replaced while this call ran: run it again")


def _why_not_open(path: str) -> OSError:
    """Return the error of the system for opening the file, which SQLite does not tell."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error
    number = errno.EACCES if not os.access(os.path.dirname(path), os.W_OK) else errno.EMFILE
    return OSError(number, os.strerror(number), path)
