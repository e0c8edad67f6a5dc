"""Renewal: a database that is missing or damaged is made, and the trees that the new one does not know are kept."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final

from ocidiff import opening
from ocidiff.embedded.connection import ERRNOS, LOGS, connect, is_there, primary_code, translated
from ocidiff.embedded.files import DAMAGED, TREES, TREES_MODE, Files
from ocidiff.embedded.schema import APPLICATION_ID, SALVAGED, VERSION, run_steps
from ocidiff.log import Logger
from ocidiff.values import dataclass

_MODE: Final = 0o644
# A database that is being made, after the name of the one it becomes.
_TEMPORARY: Final = r"\.[0-9a-f]{16}(?:-wal|-shm|-journal)?"

# Told which snapshots a new database has, before others see it.
OnNew = Callable[[frozenset[int]], None]

_log = Logger(__name__)


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


def renew_database(files: Files, path: str) -> Renewed:
    """Set a damaged database aside, and make it again with what can still be read of it.

    Args:
        files: The layout, locked.
        path: Path of the database, which nobody in this process has open.
    """
    with files.directory(DAMAGED):
        aside = f"{files.path}/{DAMAGED}/{os.path.basename(path)}.{time.time_ns()}"
        trees: list[str] = []
        lost = renew(path, os.path.abspath(aside), lambda known: trees.extend(_keep_trees(files, known)))
        return Renewed(aside, tuple(lost), tuple(trees))


def set_trees_aside(files: Files, path: str, known: frozenset[int]) -> None:
    """Move the trees that a new database does not know aside, and warn. The new one replaces a missing database.

    Args:
        files: The layout.
        path: Path of the database.
        known: Numbers of the snapshots that the database knows.
    """
    for place in _keep_trees(files, known):
        name = os.path.basename(path)
        _log.warning("%s: was missing, so that nothing is known of the trees that are now in %s", name, place)


def _keep_trees(files: Files, known: frozenset[int]) -> list[str]:
    """Move the trees that a new database does not know into `damaged/`, since what was changed in them is nowhere else.

    Returns:
        Where they are; nothing if there were none.
    """
    try:
        with files.directory(TREES, create=False) as trees:
            names = set(map(str, known))
            unknown = [name for name in os.listdir(trees) if name not in names]
            if not unknown:
                return []
            name = f"{TREES}.{time.time_ns()}"
            with files.directory(DAMAGED) as damaged:
                os.mkdir(name, TREES_MODE, dir_fd=damaged)
            with files.directory(DAMAGED, name, create=False) as kept:
                for tree in unknown:
                    os.rename(tree, tree, src_dir_fd=trees, dst_dir_fd=kept)
                os.fsync(kept)
            return [f"{files.path}/{DAMAGED}/{name}"]
    except FileNotFoundError:
        # No snapshot was ever made.
        return []


def renew(path: str, aside: str, on_new: OnNew) -> list[str]:
    """Set a damaged database aside, and make it again with what can still be read of it.

    Args:
        path: Its absolute path.
        aside: Where the damaged one goes; its log goes beside it.
        on_new: See `Database.open`; called with the snapshots that could be read.

    Returns:
        The tables of which something could not be read.
    """
    with translated(path), _alone(path), closing(connect(path)) as old:
        with suppress(sqlite3.DatabaseError):
            # Running work ends first, and no new work begins.
            old.execute("BEGIN IMMEDIATE")
        lost: list[str] = []
        with _whole_database(path, lambda new: lost.extend(_salvage(old, new))) as (temporary, snapshots):
            on_new(snapshots)
            # The log first: it must never lie beside the new database.
            for suffix in LOGS:
                with suppress(FileNotFoundError):
                    os.rename(path + suffix, aside + suffix)
            os.link(path, aside)
            os.rename(temporary, path)
        return lost


def create(path: str, on_new: OnNew) -> None:
    """Make a database, unless another process has made it. Nobody ever sees it half made.

    Args:
        path: Its absolute path.
        on_new: See `Database.open`.
    """
    with _alone(path):
        if is_there(path):
            return
        with _whole_database(path, lambda _: None) as (temporary, snapshots):
            on_new(snapshots)
            for suffix in LOGS:
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
        with closing(connect(temporary)) as connection:
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
        with closing(connect(temporary)) as written:
            if written.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise OSError(errno.EIO, "the new database was not written whole", path)
        yield temporary, snapshots
    finally:
        os.close(file)
        for suffix in ("", *LOGS):
            with suppress(FileNotFoundError):
                os.unlink(temporary + suffix)
    _sync_directory(path)


def _salvage(old: sqlite3.Connection, new: sqlite3.Connection) -> Iterator[str]:
    """Copy the rows that can be read; yield the tables of which some cannot, or refer to rows that are lost."""
    for table in SALVAGED:
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
            if primary_code(error) in ERRNOS:
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


def _sync_directory(path: str) -> None:
    directory = os.open(os.path.dirname(path), opening.ROOT)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
