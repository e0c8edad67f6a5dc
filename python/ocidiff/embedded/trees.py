"""The directories of snapshots on disk: found, measured, swept and removed.

    snapshots/ID/fs      the tree, or what was changed
    snapshots/ID/work    what overlayfs needs beside it

Law: a directory without a row is rubbish and is swept; a row without its directory is a fault. Therefore a new directory is
complete before its row is, and a row is gone before its directory is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocidiff import opening, workspace
from ocidiff.embedded.files import TREES, TREES_MODE
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.leases import Leases, boot_id
from ocidiff.embedded.tables import snapshots as rows
from ocidiff.embedded.tables.snapshots import Row
from ocidiff.services.snapshots import Kind, Usage
from ocidiff.walk import Cursor, walk

if TYPE_CHECKING:
    import sqlite3

# Within the directory of a snapshot.
TREE: Final = "fs"


def discard(layout: Layout, numbers: Sequence[int]) -> None:
    """Remove the directories of rows that are gone. What cannot be removed stays in `ingest/`; see `Layout.sweep`."""
    if numbers:
        with open_trees(layout) as trees, layout.ingest_dir() as ingest_dir:
            _remove_aside(layout, ingest_dir, [workspace.adopt(ingest_dir, trees, str(number)) for number in numbers])


def discard_or_restore(layout: Layout, number: int, restore: Callable[[sqlite3.Connection, str], bool]) -> None:
    """Remove the directory of a row that is gone; if that fails, move what is left back to its place.

    Args:
        layout: The store.
        number: Of the directory.
        restore: Writes the row again, within a transaction; its second argument says what cannot be removed, and why. If
            it returns false, the directory stays in `ingest/`.

    Raises:
        OSError: Something in the directory cannot be removed.
    """
    with open_trees(layout) as trees, layout.ingest_dir() as ingest_dir:
        aside = workspace.adopt(ingest_dir, trees, str(number))
        if aside is None:
            return
        try:
            workspace.discard(ingest_dir, aside, os.path.join(trees_path(layout), str(number)))
        except OSError as error:
            # In one transaction: a directory without a row is swept.
            with layout.database().transaction(durable=True) as connection:
                if restore(connection, f"{error.filename}: {error.strerror}"):
                    os.rename(aside, str(number), src_dir_fd=ingest_dir, dst_dir_fd=trees)
                    os.fsync(trees)
            raise


def _remove_aside(layout: Layout, ingest_dir: int, names: Iterable[str | None]) -> None:
    """Remove what was moved into `ingest/`, as far as that can be."""
    for name in filter(None, names):
        # It is rubbish that is swept again by every call, and told by `gc` and `verify`.
        with suppress(OSError):
            workspace.discard(ingest_dir, name, os.path.join(layout.ingest_path, name))


def sweep(layout: Layout) -> None:
    """Remove the directories that have no row: what processes left that died between the two."""
    with ExitStack() as stack:
        try:
            trees = stack.enter_context(open_trees(layout))
        except FileNotFoundError:
            # No snapshot was ever made.
            return
        ingest_dir = stack.enter_context(layout.ingest_dir())
        # Nobody makes a directory visible meanwhile.
        with layout.database().transaction() as connection:
            known = {str(row.id) for row in rows.walk(connection)}
            orphans = [name for name in workspace.names_in(trees) if name not in known]
            aside = [workspace.adopt(ingest_dir, trees, name) for name in orphans]
        _remove_aside(layout, ingest_dir, aside)


def sweep_leftovers(layout: Layout) -> None:
    """Remove what processes left that died, and what a failure of power may have torn."""
    if not layout.has_database():
        return
    database = layout.database()
    leases = Leases(layout.database)
    with database.reading() as connection:
        rubbish = any(lease.is_over() for lease in leases.read(connection)) or rows.leftovers(connection, boot_id())
    if rubbish:
        with database.transaction(durable=True) as connection:
            leases.end(connection)
            gone = [row for row in rows.leftovers(connection, boot_id()) if rows.delete_unused(connection, row)]
        discard(layout, [row.id for row in gone])
    sweep(layout)


def tree_of(layout: Layout, number: int) -> str:
    """Return the path of what the snapshot of that number itself holds."""
    return os.path.join(trees_path(layout), str(number), TREE)


def trees_path(layout: Layout) -> str:
    """Return the path of the directory that holds all snapshots."""
    return os.path.join(os.path.abspath(layout.path), TREES)


def is_present(layout: Layout, row: Row) -> bool:
    """Return True if a snapshot has its directory, with a tree in it; a view may be without.

    Raises:
        OSError: It cannot be read, which is not the same as missing.
    """
    tree = tree_of(layout, row.id)
    try:
        return stat.S_ISDIR(os.stat(os.path.dirname(tree) if row.kind is Kind.VIEW else tree).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def disk_usage(path: str) -> Usage:
    """Return what a tree takes on disk."""
    with Cursor(path) as here:
        top = os.fstat(here.fd)
        sizes = {(top.st_dev, top.st_ino): top.st_blocks}
        for _, info, _ in walk(here):
            sizes[info.st_dev, info.st_ino] = info.st_blocks
    # In units of 512 bytes, whatever the file system's own are.
    return Usage(sum(sizes.values()) * 512, len(sizes))


@contextmanager
def open_trees(layout: Layout, *, create: bool = False) -> Iterator[int]:
    """Open the directory that holds all snapshots.

    Args:
        layout: The store.
        create: Make it if it does not exist.
    """
    path = trees_path(layout)
    if create:
        with suppress(FileExistsError):
            os.mkdir(path, TREES_MODE)
    descriptor = os.open(path, opening.DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
