"""Metadata: the store's database `ocidiff.db`, for what the files of a layout cannot say.

Law: the files are the truth and the rows describe them. A row is written before what it protects becomes visible, and is
deleted before what it describes is removed, so that a process that dies at any moment leaves rubbish and never a loss.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from ocidiff.embedded.connection import (
    REMEDY,
    connect,
    connect_for_reading,
    connect_to_nothing,
    is_there,
    replaced,
    translated,
)
from ocidiff.embedded.schema import APPLICATION_ID, ENDING, SALVAGED, VERSION, run_steps
from ocidiff.errors import DocumentError, UnsupportedError

if TYPE_CHECKING:
    import sqlite3

    from ocidiff.embedded.renewal import OnNew


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
        with translated(path):
            if not is_there(path):
                from ocidiff.embedded.renewal import create

                create(path, on_new)
            connection = connect(path)
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
        with translated(path):
            connection = connect_for_reading(path) if is_there(path) else connect_to_nothing()
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
        with self._mutex, translated(self._path):
            # Not allowed within a transaction, where it would be ignored.
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if _identity(self._path) != self._identity:
                    raise replaced(self._path)
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
        with self._mutex, translated(self._path):
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
        missing = [f"no table {name}" for name in (*SALVAGED, *ENDING) if name not in tables]
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
            raise DocumentError(f"{self._path}: not a database of ocidiff: {REMEDY}")
        if version > VERSION:
            raise UnsupportedError(
                f"{self._path}: has version {version}, made by a newer ocidiff (this one knows {VERSION})"
            )
        return version


def _identity(path: str) -> tuple[int, int] | None:
    """Return which file has the path; None if there is none."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino
