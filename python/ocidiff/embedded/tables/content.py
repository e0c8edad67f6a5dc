"""Records of blobs in the metadata: which ones this store has written, and their labels. All within a transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ocidiff.embedded.leases import protect
from ocidiff.errors import UsageError
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.services.leases import CONTENT

if TYPE_CHECKING:
    import sqlite3

_MAX_LABEL_BYTES: Final = 4096  # key and value, as containerd has it


def record(
    connection: sqlite3.Connection, digest: Digest, size: int, labels: Mapping[str, str] | None, lease_id: str | None
) -> None:
    """Note a blob before it becomes visible, merge its labels, and put it under a lease."""
    connection.execute(
        "INSERT INTO content VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET size = excluded.size",
        (digest, size, time.time_ns()),
    )
    if labels:
        merge_labels(connection, digest, labels)
    if lease_id is not None:
        protect(connection, lease_id, CONTENT, digest)


def merge_labels(connection: sqlite3.Connection, digest: Digest, labels: Mapping[str, str]) -> None:
    """Add labels to those of a recorded blob; an empty value takes one away."""
    for name, value in labels.items():
        if not name or len(name.encode()) + len(value.encode()) > _MAX_LABEL_BYTES:
            raise UsageError(f"label {name[:100]!r}: must be 1 to {_MAX_LABEL_BYTES} bytes of name and value")
        if value:
            connection.execute(
                "INSERT INTO content_label VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (digest, name, value),
            )
        else:
            connection.execute("DELETE FROM content_label WHERE digest = ? AND name = ?", (digest, name))


def labels_of(connection: sqlite3.Connection, digest: AnyDigest) -> dict[str, str]:
    """Return the labels of a blob."""
    query = "SELECT name, value FROM content_label WHERE digest = ? ORDER BY name"
    return dict(connection.execute(query, (digest,)).fetchall())


def created_ns(connection: sqlite3.Connection, digest: Digest) -> int | None:
    """Return the time at which this store wrote a blob; None if another tool did."""
    row = connection.execute("SELECT created_ns FROM content WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else int(row[0])


def unprotected(connection: sqlite3.Connection) -> list[Digest]:
    """Return the recorded blobs that no lease holds: no writer is about to bring them."""
    query = """
        SELECT digest FROM content WHERE NOT EXISTS (
            SELECT 1 FROM lease_resource WHERE type = ? AND key = digest
        )
    """
    return [Digest(found[0]) for found in connection.execute(query, (CONTENT,))]


def forget(connection: sqlite3.Connection, digest: Digest) -> None:
    """Drop the record of a blob and its labels."""
    connection.execute("DELETE FROM content WHERE digest = ?", (digest,))


def labelled(connection: sqlite3.Connection, label: str, value: str) -> list[Digest]:
    """Return the blobs that have this label."""
    query = "SELECT digest FROM content_label WHERE name = ? AND value = ?"
    return [Digest(found[0]) for found in connection.execute(query, (label, value))]


def is_referred_to(connection: sqlite3.Connection, label: str, value: str) -> bool:
    """Return True if a blob has this label."""
    query = "SELECT 1 FROM content_label WHERE name = ? AND value = ?"
    return connection.execute(query, (label, value)).fetchone() is not None
