"""Metadata: the store's database `ocidiff.db`, for what the files of a layout cannot say.

Law: the files are the truth and the rows describe them. A row is written before what it protects becomes visible, and is
deleted before what it describes is removed, so that a process that dies at any moment leaves rubbish and never a loss.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final, Self

from ocidiff import opening
from ocidiff.embedded.schema import APPLICATION_ID, VERSION, run_steps
from ocidiff.errors import BusyError, DocumentError, UnsupportedError
from ocidiff.values import dataclass

# A collection holds the write lock for as long as it moves rubbish aside.
_LOCK_SECONDS: Final = 120.0
_MODE: Final = 0o644
# Suffix of the log of a database.
_LOGS: Final = ("-wal", "-shm")
# A database that is being made, after the name of the one it becomes.
_TEMPORARY: Final = r"\.[0-9a-f]{16}(?:-wal|-shm|-journal)?"
# Tables to copy from a damaged database, parents before children; and those of leases, which end with it.
_SALVAGED: Final = ("image", "content", "content_label", "snapshot", "snapshot_label", "container")
_ENDING: Final = ("lease", "lease_resource")
_REMEDY: Final = "run 'ocidiff verify --repair', which sets it aside and makes it again from the files"

# Told which snapshots a new database has, before others see it.
OnNew = Callable[[frozenset[int]], None]


@dataclass(frozen=True, slots=True)
class Renewed:
    """The result of repairing a damaged database.

    Attributes:
        aside: Where it is now.
        lost: The tables of which something could not be read.
        trees: Where the trees are that the new database does not know.
    """

    aside: str
    lost: tuple[str, ...]
    trees: tuple[str, ...]


class Database:
    """The database of one store. Safe from several threads, and from several processes."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._mutex = threading.RLock()
        self._identity = _identity(path)
        self._refusal: OSError | None = None

    @classmethod
    def open(cls, path: str, on_new: OnNew = lambda _: None) -> Self:
        """The database of a store, made when it is missing.

        Args:
            path: Its absolute path.
            on_new: Called with the numbers of its snapshots (none) before a new database can be seen by others.

        Raises:
            UnsupportedError: A newer version of ocidiff made it.
            DocumentError: The file is no database, is damaged, or is of something else.
        """
        with _translated(path):
            if not _is_there(path):
                with _alone(path):
                    if not _is_there(path):
                        _create(path, on_new)
            connection = _connect(path)
            try:
                database = cls(path, connection)
                database._migrate()
            except BaseException:
                connection.close()
                raise
        return database

    @classmethod
    def open_for_reading(cls, path: str, refusal: OSError) -> Self:
        """Open the database of a store that this process may not write to. A missing one has no rows.

        Args:
            path: Its absolute path.
            refusal: Why nothing may be written: what a transaction raises.

        Raises:
            UnsupportedError: Another version of ocidiff made it.
            DocumentError: The file is no database, is damaged, or is of something else.
        """
        with _translated(path):
            connection = _connect_for_reading(path) if _is_there(path) else _connect_to_nothing()
            try:
                database = cls(path, connection)
                database._refusal = refusal
                version = database._version()
                if version != VERSION:
                    raise UnsupportedError(f"{path}: has version {version}, and cannot be brought to {VERSION} here")
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
        if self._refusal is not None:
            raise self._refusal
        with self._mutex, _translated(self._path):
            # Not allowed within a transaction, where it would be ignored.
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if _identity(self._path) != self._identity:
                    raise _replaced(self._path)
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

    def damage(self) -> list[str]:
        """Return what is wrong with the pages and tables of the database; nothing if all is well."""
        with self.reading() as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
            tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        missing = [f"no table {name}" for name in (*_SALVAGED, *_ENDING) if name not in tables]
        return [text for text in found if text != "ok"] + missing

    def broken_references(self) -> list[str]:
        """Return what is wrong with the references between its rows; nothing if all is well."""
        with self.reading() as connection:
            return [f"{row[0]} row refers to a missing {row[2]}" for row in connection.execute("PRAGMA foreign_key_check")]

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
                run_steps(connection, number)

    def _version(self) -> int:
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        owner = int(self._connection.execute("PRAGMA application_id").fetchone()[0])
        if owner != APPLICATION_ID:
            raise DocumentError(f"{self._path}: not a database of ocidiff: {_REMEDY}")
        if version > VERSION:
            raise UnsupportedError(
                f"{self._path}: has version {version}, made by a newer ocidiff (this one knows {VERSION})"
            )
        return version


def _connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False, uri=uri)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _connect_for_reading(path: str) -> sqlite3.Connection:
    """Open a database without writing anything, not even the files that SQLite keeps beside it."""
    try:
        has_log = os.stat(path + _LOGS[0]).st_size > 0
    except FileNotFoundError:
        has_log = False
    if not has_log:
        return _connect(f"{_uri(path)}?immutable=1", uri=True)
    try:
        connection = _connect(f"{_uri(path)}?mode=ro", uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException:
            connection.close()
            raise
    except sqlite3.OperationalError as error:
        if _primary_code(error) not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
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
        for suffix in (_LOGS[0], ""):
            shutil.copyfile(path + suffix, copy + suffix)
        connection = _connect(copy)
        # From here on all files are open, and need no name.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return connection


def _connect_to_nothing() -> sqlite3.Connection:
    """Open a database without rows, for a store that another tool made."""
    connection = _connect(":memory:")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for number in range(VERSION):
        run_steps(connection, number)
    return connection


def _uri(path: str) -> str:
    """Spec: sqlite.org/uri.html, section 3.1."""
    return "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def renew(path: str, aside: str, on_new: OnNew) -> list[str]:
    """Set a damaged database aside, and make it again with what can still be read of it.

    Args:
        path: Its absolute path.
        aside: Where the damaged one goes; its log goes beside it.
        on_new: See `Database.open`; called with the snapshots that could be read.

    Returns:
        The tables of which something could not be read.
    """
    with _translated(path), _alone(path), closing(_connect(path)) as old:
        with suppress(sqlite3.DatabaseError):
            # Running work ends first, and no new work begins.
            old.execute("BEGIN IMMEDIATE")
        lost: list[str] = []
        with _whole_database(path, lambda new: lost.extend(_salvage(old, new))) as (temporary, snapshots):
            on_new(snapshots)
            # The log first: it must never lie beside the new database.
            for suffix in _LOGS:
                with suppress(FileNotFoundError):
                    os.rename(path + suffix, aside + suffix)
            os.link(path, aside)
            os.rename(temporary, path)
        return lost


def _create(path: str, on_new: OnNew) -> None:
    """Make the database, which nobody else makes meanwhile. Nobody ever sees it half made."""
    with _whole_database(path, lambda _: None) as (temporary, snapshots):
        on_new(snapshots)
        for suffix in _LOGS:
            # The log of a database that was removed would be taken for ours.
            with suppress(FileNotFoundError):
                os.unlink(path + suffix)
        os.link(temporary, path)


@contextmanager
def _whole_database(path: str, fill: Callable[[sqlite3.Connection], None]) -> Iterator[tuple[str, frozenset[int]]]:
    """A new database under a private name beside `path`, on disk and checked, and the numbers of its snapshots.

    It is filled without a log: a log that could not be copied into the file on a full disk would leave it malformed.
    """
    temporary = f"{path}.{os.urandom(8).hex()}"
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        # Independent of the umask; a log gets the mode of its database.
        os.fchmod(file, _MODE)
        with closing(_connect(temporary)) as connection:
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("BEGIN IMMEDIATE")
            for number in range(VERSION):
                run_steps(connection, number)
            fill(connection)
            connection.execute("COMMIT")
            snapshots = frozenset(int(row[0]) for row in connection.execute("SELECT id FROM snapshot"))
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise OSError(errno.EIO, "SQLite keeps no write-ahead log here", path)
        os.fsync(file)
        with closing(_connect(temporary)) as written:
            if written.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise OSError(errno.EIO, "the new database was not written whole", path)
        yield temporary, snapshots
    finally:
        os.close(file)
        for suffix in ("", *_LOGS):
            with suppress(FileNotFoundError):
                os.unlink(temporary + suffix)
    _sync_directory(path)


def _salvage(old: sqlite3.Connection, new: sqlite3.Connection) -> Iterator[str]:
    """Copy the rows that can be read; yield the tables of which some cannot, or refer to rows that are lost."""
    for table in _SALVAGED:
        names = ", ".join(row[1] for row in new.execute(f"PRAGMA table_info({table})"))
        places = ", ".join("?" * (names.count(",") + 1))
        is_whole = True
        try:
            # In the order of the key, or SQLite may read another index, which may be damaged where the table is not.
            rows = old.execute(f"SELECT {names} FROM {table} ORDER BY 1")  # noqa: S608 - our own names
            while (row := rows.fetchone()) is not None:
                try:
                    new.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", row)  # noqa: S608
                except sqlite3.IntegrityError:
                    is_whole = False
        except sqlite3.DatabaseError as error:
            if _primary_code(error) in _ERRNOS:
                raise
            is_whole = False
        if not is_whole:
            yield table


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Nobody else makes or replaces the database meanwhile; what was left half made is removed."""
    place, base = os.path.split(path)
    directory = os.open(place, opening.ROOT)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        for name in os.listdir(directory):
            if re.fullmatch(re.escape(base) + _TEMPORARY, name):
                os.unlink(name, dir_fd=directory)
        yield
    finally:
        os.close(directory)


def _is_there(path: str) -> bool:
    return os.path.exists(path)


def _identity(path: str) -> tuple[int, int] | None:
    """Return which file has the path; None if there is none."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino


def _sync_directory(path: str) -> None:
    directory = os.open(os.path.dirname(path), opening.ROOT)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# By the whole code where it tells more, else by the primary code, the low byte.
_ERRNOS: Final = {
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
def _translated(path: str) -> Iterator[None]:
    """Failures of SQLite as the package's own, or the system's."""
    try:
        yield
    except sqlite3.Error as error:
        primary = _primary_code(error)
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_DBMOVED:
            raise _replaced(path) from error
        number = _errno(error)
        if number is not None:
            raise OSError(number, os.strerror(number), path) from error
        if primary in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            raise _why_not_open(path) from error
        if primary in _BUSY:
            raise BusyError(f"{path}: locked by another process for more than {_LOCK_SECONDS:.0f} s") from error
        if primary in _BROKEN or str(error).startswith("no such"):
            raise DocumentError(f"{path}: {error}: {_REMEDY}") from error
        raise


def _errno(error: sqlite3.Error) -> int | None:
    """Return the number of the system's error behind one of SQLite; None if there is none."""
    primary = _primary_code(error)
    return None if primary is None else _ERRNOS.get(error.sqlite_errorcode) or _ERRNOS.get(primary)


def _primary_code(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _replaced(path: str) -> BusyError:
    return BusyError(f"{path}: was removed or replaced while this call ran: run it again")


def _why_not_open(path: str) -> OSError:
    """Return the error of the system for opening the file, which SQLite does not tell."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error
    number = errno.EACCES if not os.access(os.path.dirname(path), os.W_OK) else errno.EMFILE
    return OSError(number, os.strerror(number), path)
