"""Metadata: the store's database `ocidiff.db`, for what the files of a layout cannot say.

Law: the files are the truth and the rows describe them. A row is written before what it protects becomes visible, and is
deleted before what it describes is removed, so that a process that dies at any moment leaves rubbish and never a loss.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

from ocidiff.errors import BusyError, DocumentError, UnsupportedError

# Marks the file as ours: `ocid`.
_APPLICATION_ID: Final = 0x6F636964
# A collection holds the write lock for as long as it moves rubbish aside.
_LOCK_SECONDS: Final = 120.0
_MODE: Final = 0o644

# Each step leads from its position to the next version; what was released is never changed.
_MIGRATIONS: Final = (
    """
    CREATE TABLE image (
        position INTEGER PRIMARY KEY,
        name TEXT,
        descriptor TEXT NOT NULL
    ) STRICT;
    CREATE TABLE content (
        digest TEXT PRIMARY KEY,
        size INTEGER NOT NULL,
        created_ns INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE content_label (
        digest TEXT NOT NULL REFERENCES content (digest) ON DELETE CASCADE,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (digest, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE lease (
        id TEXT PRIMARY KEY,
        created_ns INTEGER NOT NULL,
        expires_ns INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        pid_namespace INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        started_ticks INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE lease_resource (
        lease_id TEXT NOT NULL REFERENCES lease (id) ON DELETE CASCADE,
        type TEXT NOT NULL,
        key TEXT NOT NULL,
        PRIMARY KEY (type, key, lease_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX lease_resource_of_lease ON lease_resource (lease_id);
    CREATE TABLE snapshot (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        driver TEXT NOT NULL,
        key TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('active', 'committed', 'view')),
        parent_id INTEGER REFERENCES snapshot (id),
        created_ns INTEGER NOT NULL,
        updated_ns INTEGER NOT NULL,
        unsynced_boot_id TEXT,
        UNIQUE (driver, key)
    ) STRICT;
    CREATE INDEX snapshot_of_parent ON snapshot (parent_id);
    CREATE TABLE snapshot_label (
        snapshot_id INTEGER NOT NULL REFERENCES snapshot (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (snapshot_id, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE container (
        name TEXT PRIMARY KEY,
        snapshot_id INTEGER NOT NULL UNIQUE REFERENCES snapshot (id),
        image TEXT NOT NULL,
        manifest TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        mounted_boot_id TEXT
    ) STRICT, WITHOUT ROWID;
    """,
    # A lease is its locked file; those from before have none.
    """
    DELETE FROM lease;
    ALTER TABLE lease DROP COLUMN expires_ns;
    ALTER TABLE lease DROP COLUMN boot_id;
    ALTER TABLE lease DROP COLUMN pid_namespace;
    ALTER TABLE lease DROP COLUMN pid;
    ALTER TABLE lease DROP COLUMN started_ticks;
    """,
)
VERSION: Final = len(_MIGRATIONS)


class Database:
    """The database of one store. Safe from several threads, and from several processes."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._mutex = threading.RLock()

    @classmethod
    def open(cls, path: str) -> Self:
        """The database of a store, made when it is missing.

        Args:
            path: Its absolute path.

        Raises:
            UnsupportedError: A newer version of ocidiff made it.
            DocumentError: The file is no database, or is of something else.
        """
        with _translated(path):
            if not os.path.exists(path):
                _create(path)
            connection = _connect(path)
            try:
                database = cls(path, connection)
                database._migrate()
            except BaseException:
                connection.close()
                raise
        return database

    @property
    def path(self) -> str:
        """Path of the file."""
        return self._path

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction that may write: kept when the block ends, undone when it raises. One at a time in the whole store.

        Args:
            durable: Have it on disk when this returns, with all that came before; else a power failure may undo it.
        """
        with self._mutex, _translated(self._path):
            # Not allowed within a transaction, where it would be ignored.
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk ends the transaction by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent state, however many queries look at it; writers go on meanwhile."""
        with self._mutex, _translated(self._path):
            nested = self._connection.in_transaction
            if not nested:
                self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                if not nested and self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    def problems(self) -> list[str]:
        """What the database itself finds wrong with its pages and references; nothing when all is well."""
        with self.reading() as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
            broken = [f"{row[0]} row refers to a missing {row[2]}" for row in connection.execute("PRAGMA foreign_key_check")]
        return [text for text in found if text != "ok"] + broken

    def close(self) -> None:
        """Let go of the file."""
        with self._mutex:
            self._connection.close()

    def _migrate(self) -> None:
        version = self._version()
        if version == VERSION:
            return
        with self.transaction(durable=True) as connection:
            # Another process may have been faster.
            for number in range(self._version(), VERSION):
                _run_steps(connection, number)

    def _version(self) -> int:
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        owner = int(self._connection.execute("PRAGMA application_id").fetchone()[0])
        if owner != _APPLICATION_ID:
            raise DocumentError(f"{self._path}: the database of something else")
        if version > VERSION:
            raise UnsupportedError(
                f"{self._path}: has version {version}, made by a newer ocidiff (this one knows {VERSION})"
            )
        return version


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _create(path: str) -> None:
    """Make the database under a private name and give it its own once it is whole: nobody ever sees it half made."""
    temporary = f"{path}.{os.urandom(8).hex()}"
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        # SQLite gives the files beside it the same mode, whatever the umask is.
        os.fchmod(file, _MODE)
    finally:
        os.close(file)
    try:
        connection = _connect(temporary)
        try:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute("PRAGMA journal_mode = WAL")
            for number in range(VERSION):
                connection.execute("BEGIN IMMEDIATE")
                _run_steps(connection, number)
                connection.execute("COMMIT")
        finally:
            connection.close()
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(temporary + suffix)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _run_steps(connection: sqlite3.Connection, number: int) -> None:
    """Bring the database from version `number` to the next, within the running transaction."""
    for statement in _MIGRATIONS[number].split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {number + 1}")


# By the primary code, the low byte.
_ERRNOS: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Failures of SQLite as the package's own, or the system's."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary in _ERRNOS:
            number = _ERRNOS[primary]
            raise OSError(number, os.strerror(number), path) from error
        if primary == sqlite3.SQLITE_CANTOPEN:
            raise _why_not_open(path) from error
        if primary in _BUSY:
            raise BusyError(f"{path}: locked by another process for more than {_LOCK_SECONDS:.0f} s") from error
        if primary in _BROKEN:
            raise DocumentError(f"{path}: {error}") from error
        raise


def _why_not_open(path: str) -> OSError:
    """What the system says to opening the file, which SQLite keeps to itself."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error
    number = errno.EACCES if not os.access(os.path.dirname(path), os.W_OK) else errno.EMFILE
    return OSError(number, os.strerror(number), path)
