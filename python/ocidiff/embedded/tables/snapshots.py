"""Rows of snapshots in the metadata. Everything here works within a transaction of the caller."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ocidiff.errors import InUseError, NotFoundError
from ocidiff.services.snapshots import Kind, Snapshot
from ocidiff.values import dataclass

if TYPE_CHECKING:
    import sqlite3

# Snapshots of a call begin so; they end with its lease.
TEMPORARY: Final = ("extract-", "view-")

# Of the snapshot of a container: as which committed snapshot it may serve, the bound in seconds of that one's times, and as
# how many layers its change was written.
LABEL_OFFERS: Final = "ocidiff/offers"
LABEL_OFFERS_UNTIL: Final = "ocidiff/offers.until"
LABEL_OFFERS_LAYERS: Final = "ocidiff/offers.layers"
OFFERS: Final = (LABEL_OFFERS, LABEL_OFFERS_UNTIL, LABEL_OFFERS_LAYERS)
# Of the snapshot of a container whose removal failed: what could not be removed, and why. Files of it may be missing.
LABEL_PARTLY_REMOVED: Final = "ocidiff/partly-removed"

# A row and its ancestors, the nearest first.
_ANCESTRY: Final = """
    WITH RECURSIVE ancestor AS (
        SELECT snapshot.*, 0 AS depth FROM snapshot WHERE id = ?
        UNION ALL
        SELECT snapshot.*, depth + 1 FROM ancestor JOIN snapshot ON snapshot.id = ancestor.parent_id
    )
    SELECT * FROM ancestor ORDER BY depth
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One snapshot.

    Attributes:
        id: Number of its directory, never used twice.
        driver: Which driver it is of.
        key: Its key, or its name once it is committed.
        kind: What may be done with it.
        parent_id: Number of the snapshot it grows on.
        created_ns, updated_ns: Nanoseconds since 1970.
        unsynced_boot_id: The run of the kernel that has it in memory only, as far as is known; None once it is on disk.
    """

    id: int
    driver: str
    key: str
    kind: Kind
    parent_id: int | None
    created_ns: int
    updated_ns: int
    unsynced_boot_id: str | None


def find(connection: sqlite3.Connection, driver: str, key: str) -> Row | None:
    """The row of a key or name."""
    query = "SELECT * FROM snapshot WHERE driver = ? AND key = ?"
    found = connection.execute(query, (driver, key)).fetchone()
    return None if found is None else _row(found)


def require(connection: sqlite3.Connection, driver: str, key: str) -> Row:
    """The row of a key or name.

    Raises:
        NotFoundError: There is none.
    """
    row = find(connection, driver, key)
    if row is None:
        raise NotFoundError(f"no {driver} snapshot {key}")
    return row


def insert(connection: sqlite3.Connection, driver: str, key: str, kind: Kind, parent: Row | None, now_ns: int) -> int:
    """Add a row; its number."""
    added = connection.execute(
        "INSERT INTO snapshot (driver, key, kind, parent_id, created_ns, updated_ns) VALUES (?, ?, ?, ?, ?, ?)",
        (driver, key, kind, None if parent is None else parent.id, now_ns, now_ns),
    )
    return int(added.lastrowid or 0)


def restore(connection: sqlite3.Connection, row: Row, labels: Mapping[str, str]) -> bool:
    """Add a row again that was dropped, under its number; false if its parent was dropped meanwhile."""
    parent = connection.execute("SELECT 1 FROM snapshot WHERE id = ?", (row.parent_id,)).fetchone()
    if row.parent_id is not None and parent is None:
        return False
    connection.execute(
        "INSERT INTO snapshot VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (row.id, row.driver, row.key, row.kind, row.parent_id, row.created_ns, row.updated_ns, row.unsynced_boot_id),
    )
    set_labels(connection, row.id, labels)
    return True


def commit(connection: sqlite3.Connection, number: int, name: str, unsynced_boot_id: str) -> None:
    """Let an active snapshot become a committed one."""
    connection.execute(
        "UPDATE snapshot SET kind = ?, key = ?, updated_ns = ?, unsynced_boot_id = ? WHERE id = ?",
        (Kind.COMMITTED, name, time.time_ns(), unsynced_boot_id, number),
    )


def mark_synced(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Note that snapshots are on disk."""
    connection.executemany("UPDATE snapshot SET unsynced_boot_id = NULL WHERE id = ?", [(number,) for number in numbers])


def set_labels(connection: sqlite3.Connection, number: int, labels: Mapping[str, str] | None) -> None:
    """Add labels to those of a snapshot; an empty value takes one away."""
    for name, value in (labels or {}).items():
        if value:
            connection.execute(
                "INSERT INTO snapshot_label VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (number, name, value),
            )
        else:
            connection.execute("DELETE FROM snapshot_label WHERE snapshot_id = ? AND name = ?", (number, name))
    if labels:
        connection.execute("UPDATE snapshot SET updated_ns = ? WHERE id = ?", (time.time_ns(), number))


def delete(connection: sqlite3.Connection, row: Row) -> None:
    """Drop a row.

    Raises:
        InUseError: Another one grows on it, or a working container uses it.
    """
    child = connection.execute("SELECT key FROM snapshot WHERE parent_id = ?", (row.id,)).fetchone()
    if child is not None:
        raise InUseError(f"snapshot {row.key}: in use as the parent of {child[0]}")
    container = container_of(connection, row.id)
    if container is not None:
        raise InUseError(f"snapshot {row.key}: in use by working container {container}")
    connection.execute("DELETE FROM snapshot WHERE id = ?", (row.id,))


def delete_unused(connection: sqlite3.Connection, row: Row) -> bool:
    """Drop a row, unless something needs it."""
    try:
        delete(connection, row)
    except InUseError:
        return False
    return True


def leftovers(connection: sqlite3.Connection, boot_id: str) -> list[Row]:
    """The temporary snapshots that no lease holds, and committed ones that a power failure may have torn; children first."""
    query = f"""
        SELECT * FROM snapshot WHERE ({" OR ".join("key GLOB ?" for _ in TEMPORARY)}) AND NOT EXISTS (
            SELECT 1 FROM lease_resource WHERE type = 'snapshots/' || driver AND lease_resource.key = snapshot.key
        ) OR unsynced_boot_id <> ? ORDER BY id DESC
    """  # noqa: S608 - as many question marks as there are prefixes
    patterns = [prefix + "*" for prefix in TEMPORARY]
    return [_row(found) for found in connection.execute(query, (*patterns, boot_id))]


def container_of(connection: sqlite3.Connection, number: int) -> str | None:
    """The working container whose tree a snapshot is."""
    found = connection.execute("SELECT name FROM container WHERE snapshot_id = ?", (number,)).fetchone()
    return None if found is None else str(found[0])


def parents(connection: sqlite3.Connection, number: int) -> list[int]:
    """The numbers of the ancestors of a snapshot, the nearest first."""
    return [int(found[0]) for found in connection.execute(_ANCESTRY, (number,))][1:]


def ancestry(connection: sqlite3.Connection, driver: str, key: str) -> list[Row]:
    """A snapshot and its ancestors, the nearest first."""
    return [_row(found) for found in connection.execute(_ANCESTRY, (require(connection, driver, key).id,))]


def walk(connection: sqlite3.Connection, driver: str | None = None) -> list[Row]:
    """All rows, of all drivers or of one, parents before children: a parent is always the older one."""
    if driver is None:
        return [_row(found) for found in connection.execute("SELECT * FROM snapshot ORDER BY id")]
    query = "SELECT * FROM snapshot WHERE driver = ? ORDER BY id"
    return [_row(found) for found in connection.execute(query, (driver,))]


def labels(connection: sqlite3.Connection, number: int) -> dict[str, str]:
    """The labels of a snapshot."""
    query = "SELECT name, value FROM snapshot_label WHERE snapshot_id = ? ORDER BY name"
    return dict(connection.execute(query, (number,)).fetchall())


def labelled(connection: sqlite3.Connection, driver: str, name: str, value: str) -> list[str]:
    """The keys of the snapshots that have a label."""
    query = """
        SELECT key FROM snapshot JOIN snapshot_label ON snapshot_id = snapshot.id
        WHERE driver = ? AND name = ? AND value = ? ORDER BY id
    """
    return [str(found[0]) for found in connection.execute(query, (driver, name, value))]


def snapshot(connection: sqlite3.Connection, row: Row) -> Snapshot:
    """Return the snapshot of a row."""
    parent = connection.execute("SELECT key FROM snapshot WHERE id = ?", (row.parent_id,)).fetchone()
    return Snapshot(
        row.kind,
        row.key,
        None if parent is None else str(parent[0]),
        row.created_ns,
        row.updated_ns,
        labels(connection, row.id),
    )


def _row(found: tuple[Any, ...]) -> Row:
    number, driver, key, kind, parent_id, created_ns, updated_ns, unsynced_boot_id = found[:8]
    return Row(number, driver, key, Kind(kind), parent_id, created_ns, updated_ns, unsynced_boot_id)
