"""Garbage collection: what nothing needs goes. Reachability, and nothing else.

Needed is what image names, live leases, working containers and root labels lead to: through documents, through labels, and
from a snapshot to its parents. Law: marking and moving aside happen in one transaction, which every new lease and every
writer's record has to come before or after; who comes before is seen, who comes after finds what is gone missing, and writes
it again. Documents never change under their digest, so that they are read before, and others wait a moment only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ocidiff.embedded import ingest as ingests
from ocidiff.embedded import trees
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.leases import Leases
from ocidiff.embedded.tables import content as records
from ocidiff.embedded.tables import snapshots as rows
from ocidiff.embedded.tables.snapshots import LABEL_PARTLY_REMOVED, Row
from ocidiff.errors import DigestMismatchError, DocumentError, NotFoundError
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.oci.references import mentioned
from ocidiff.oci.timestamp import NS_PER_SECOND
from ocidiff.services import labels
from ocidiff.services.leases import CONTENT

if TYPE_CHECKING:
    import sqlite3

# Other tools add a blob to the index only once it is complete.
YOUNG_SECONDS: Final = 3600.0
# As containerd has it for ingests that no lease holds.
STALE_SECONDS: Final = 24 * 3600.0

_SNAPSHOTS: Final = "snapshots/"
_REMEDY: Final = "what it needs is not known; pull, load or commit the image again, or let `verify --repair` move it away"


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of a collection: what was freed, or would be.

    Attributes:
        blobs, blob_bytes: Blobs that nothing needs.
        snapshots, snapshot_bytes: Snapshots that nothing needs, with their size on disk.
        ingests, ingest_bytes: Resumable ingests that nobody has written to for long.
        leases: Leases whose owner has ended.
        young: Blobs of other tools that nothing needs yet, kept because they are young.
        leftovers: What could not be removed, with the cause: `PATH: CAUSE`.
        unread: What may not be read, with the cause. An estimate counts what only it needs as not needed.
    """

    blobs: int
    blob_bytes: int
    snapshots: int
    snapshot_bytes: int
    ingests: int
    ingest_bytes: int
    leases: int
    young: int
    leftovers: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def freed_bytes(self) -> int:
        """Bytes that were freed, or would be."""
        return self.blob_bytes + self.snapshot_bytes + self.ingest_bytes

    def to_dict(self) -> dict[str, object]:
        """Return the object that `gc --json` prints, which adds `dryRun`."""
        return {
            "freedBytes": self.freed_bytes,
            "blobs": {"count": self.blobs, "bytes": self.blob_bytes},
            "snapshots": {"count": self.snapshots, "bytes": self.snapshot_bytes},
            "ingests": {"count": self.ingests, "bytes": self.ingest_bytes},
            "leases": self.leases,
            "youngBlobsKept": self.young,
            "leftovers": list(self.leftovers),
            "unread": list(self.unread),
        }


@dataclass(slots=True)
class _Needed:
    content: set[AnyDigest] = field(default_factory=set)
    snapshots: set[int] = field(default_factory=set)


def collect(layout: Layout, *, young_seconds: float = YOUNG_SECONDS, stale_seconds: float = STALE_SECONDS) -> Collected:
    """Remove what nothing needs; readers and writers go on meanwhile.

    Args:
        layout: The store.
        young_seconds: How long blobs of other tools are left alone.
        stale_seconds: How long resumable ingests are left alone.

    Raises:
        DocumentError, DigestMismatchError: The index or a document that is needed is damaged: what it needs is not known.
    """
    documents, database, leases = _Documents(layout), layout.database(), Leases(layout.database)
    with database.reading() as connection:
        _mark(layout, connection, documents, _live(leases, connection))
    with layout.ingest_dir() as ingest_dir, layout.set_aside() as set_aside:
        ingest_count, ingest_bytes = ingests.drop_stale(ingest_dir, _before(stale_seconds), dry_run=False)
        # On disk before anything goes: a row of a snapshot without its directory is a fault.
        with database.transaction(durable=True) as connection:
            ended, live = leases.end(connection)
            found = _unneeded(layout, connection, _mark(layout, connection, documents, live), young_seconds)
            for digest, _ in found.blobs:
                records.forget(connection, digest)
                set_aside(digest)
            for row in reversed(found.snapshots):
                rows.delete(connection, row)
        snapshot_bytes = sum(_size(layout, row) for row in found.snapshots)
        trees.discard(layout, [row.id for row in found.snapshots])
    layout.segments.drop_orphans()
    return found.collected(snapshot_bytes, ingest_count, ingest_bytes, ended, leftovers(layout))


def estimate(layout: Layout, *, young_seconds: float = YOUNG_SECONDS, stale_seconds: float = STALE_SECONDS) -> Collected:
    """Return what `collect` would free. Nothing is written, so that who may only read a store can ask, as far as that goes.

    Arguments and errors as in `collect`.
    """
    unread = dict[str, None]()
    documents, leases = _Documents(layout, unread), Leases(layout.database)
    with layout.database().reading() as connection:
        live = _live(leases, connection)
        ended = len(leases.read(connection)) - len(live)
        found = _unneeded(layout, connection, _mark(layout, connection, documents, live), young_seconds, unread)
        left = _partly_removed(connection)
    snapshot_bytes = 0
    for row in found.snapshots:
        with _noting(unread, trees.trees_path(layout)):
            snapshot_bytes += _size(layout, row)
    ingest_count = ingest_bytes = 0
    with _noting(unread, layout.ingest_path), layout.reading_ingests() as ingest_dir:
        if ingest_dir is not None:
            ingest_count, ingest_bytes = ingests.drop_stale(ingest_dir, _before(stale_seconds), dry_run=True)
    return found.collected(snapshot_bytes, ingest_count, ingest_bytes, ended, left, tuple(unread))


@dataclass(slots=True)
class _Unneeded:
    """Blobs with their lengths, and snapshots, parents first."""

    blobs: list[tuple[Digest, int]] = field(default_factory=list)
    young: int = 0
    snapshots: list[Row] = field(default_factory=list)

    def collected(
        self,
        snapshot_bytes: int,
        ingest_count: int,
        ingest_bytes: int,
        ended: int,
        left: tuple[str, ...],
        unread: tuple[str, ...] = (),
    ) -> Collected:
        blob_bytes = sum(size for _, size in self.blobs)
        return Collected(
            *(len(self.blobs), blob_bytes, len(self.snapshots), snapshot_bytes, ingest_count, ingest_bytes, ended),
            *(self.young, left, unread),
        )


def _unneeded(
    layout: Layout,
    connection: sqlite3.Connection,
    needed: _Needed,
    young_seconds: float,
    unread: dict[str, None] | None = None,
) -> _Unneeded:
    """Return what is not needed; what may not be read is an error, unless it shall be noted in `unread`."""
    found = _Unneeded(snapshots=[row for row in rows.walk(connection) if row.id not in needed.snapshots])
    for digest in [digest for digest in layout.walk() if digest not in needed.content]:
        with _noting(unread):
            try:
                size = layout.info(digest).size
            except DigestMismatchError:
                # It is no regular file.
                size = 0
            is_foreign = records.created_ns(connection, digest) is None
            if is_foreign and layout.changed_ns(digest) > _before(young_seconds):
                found.young += 1
            else:
                found.blobs.append((digest, size))
    return found


@contextmanager
def _noting(unread: dict[str, None] | None, path: str | None = None) -> Iterator[None]:
    """Note what may not be read in place of failing, if there is somewhere to note it."""
    try:
        yield
    except PermissionError as error:
        if unread is None:
            raise
        unread[f"{path or error.filename}: {error.strerror}"] = None


def leftovers(layout: Layout) -> tuple[str, ...]:
    """Try again to remove what could not be removed before; return what is left, with the cause."""
    left = tuple(f"{error.filename}: {error.strerror}" for error in layout.sweep())
    with layout.database().reading() as connection:
        return left + _partly_removed(connection)


def _partly_removed(connection: sqlite3.Connection) -> tuple[str, ...]:
    query = "SELECT value FROM snapshot_label WHERE name = ? ORDER BY snapshot_id"
    return tuple(str(found[0]) for found in connection.execute(query, (LABEL_PARTLY_REMOVED,)))


def _live(leases: Leases, connection: sqlite3.Connection) -> set[str]:
    return {lease.id for lease in leases.read(connection) if not lease.is_over()}


def _mark(layout: Layout, connection: sqlite3.Connection, documents: _Documents, live: set[str]) -> _Needed:
    """Mark what the roots and the live leases lead to."""
    needed = _Needed()
    by_key = {(row.driver, row.key): row for row in rows.walk(connection)}
    by_id = {row.id: row for row in by_key.values()}
    pending: list[AnyDigest | Row] = []
    for entry in layout.names.index().entries:
        # Also of an entry that is not understood.
        pending += mentioned(entry.text.encode(errors="surrogateescape"))
    pending += _roots(connection, by_key, by_id, live)
    by_name: dict[str, list[Row]] = {}
    for row in by_id.values():
        by_name.setdefault(row.key, []).append(row)
    while pending:
        item = pending.pop()
        if isinstance(item, Row):
            if item.id in needed.snapshots:
                continue
            needed.snapshots.add(item.id)
            labels = rows.labels(connection, item.id)
            if item.parent_id is not None:
                pending.append(by_id[item.parent_id])
        else:
            if item in needed.content:
                continue
            needed.content.add(item)
            labels = records.labels_of(connection, item)
            pending += documents.children(item)
        for name, value in labels.items():
            pending += _labelled(name, value, by_name.get(value, ()))
    return needed


def _roots(
    connection: sqlite3.Connection, by_key: dict[tuple[str, str], Row], by_id: dict[int, Row], live: set[str]
) -> Iterator[AnyDigest | Row]:
    for lease_id, kind, key in connection.execute("SELECT lease_id, type, key FROM lease_resource"):
        if lease_id not in live:
            continue
        if kind == CONTENT:
            yield Digest(key)
        elif kind.startswith(_SNAPSHOTS) and (kind.removeprefix(_SNAPSHOTS), key) in by_key:
            yield by_key[kind.removeprefix(_SNAPSHOTS), key]
    for number, manifest in connection.execute("SELECT snapshot_id, manifest ->> 'digest' FROM container"):
        yield by_id[number]
        yield Digest(manifest)
    for (digest,) in connection.execute("SELECT digest FROM content_label WHERE name = ?", (labels.ROOT,)):
        yield Digest(digest)
    for (number,) in connection.execute("SELECT snapshot_id FROM snapshot_label WHERE name = ?", (labels.ROOT,)):
        yield by_id[number]


def _labelled(name: str, value: str, named: Iterable[Row]) -> Iterator[AnyDigest | Row]:
    """Return what a label refers to; `named` are the snapshots with its value as their name."""
    if _is_under(name, labels.REFERS_CONTENT):
        try:
            yield AnyDigest(value)
        except DocumentError:
            return
    for row in named:
        if _is_under(name, f"{labels.REFERS_SNAPSHOT}.{row.driver}"):
            yield row


def _is_under(name: str, prefix: str) -> bool:
    """Return True if a label is `prefix`, or that and a part of its own. Spec: containerd, docs/garbage-collection.md."""
    return name.startswith(prefix) and name[len(prefix) :][:1] in {"", ".", "/"}


class _Documents:
    """References of blobs; each blob is read once."""

    def __init__(self, layout: Layout, unread: dict[str, None] | None = None) -> None:
        self._layout = layout
        self._unread = unread
        self._children: dict[AnyDigest, set[AnyDigest]] = {}

    def children(self, digest: AnyDigest) -> set[AnyDigest]:
        """Return what a blob refers to; nothing if it is missing, or not a document."""
        if digest not in self._children:
            try:
                with _noting(self._unread):
                    data = self._layout.document(digest)
                    self._children[digest] = set() if data is None else mentioned(data)
            except NotFoundError:
                # It may be there when it is looked for again.
                return set()
            except DigestMismatchError as error:
                error.add_note(_REMEDY)
                raise
        return self._children.get(digest, set())


def _before(seconds: float) -> int:
    return time.time_ns() - round(seconds * NS_PER_SECOND)


def _size(layout: Layout, row: Row) -> int:
    try:
        return trees.disk_usage(os.path.dirname(trees.tree_of(layout, row.id))).bytes
    except FileNotFoundError:
        return 0
