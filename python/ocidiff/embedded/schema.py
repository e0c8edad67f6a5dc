"""The tables of `ocidiff.db`, and the steps from each version to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

# Marks the file as ours: `ocid`.
APPLICATION_ID: Final = 0x6F636964
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
    # Blobs are found by a label, once for each layer of a commit.
    "CREATE INDEX content_label_of_value ON content_label (name, value)",
)
VERSION: Final = len(_MIGRATIONS)
# Tables to copy from a damaged database, parents before children; and those of leases, which end with it.
SALVAGED: Final = ("image", "content", "content_label", "snapshot", "snapshot_label", "container")
ENDING: Final = ("lease", "lease_resource")


def run_steps(connection: sqlite3.Connection, number: int) -> None:
    """Bring the database from version `number` to the next, within the running transaction."""
    for statement in _MIGRATIONS[number].split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {number + 1}")
