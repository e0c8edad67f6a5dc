"""The snapshotter of a store: rows in its database, a numbered directory each, and a driver that says what is in them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ocidiff import workspace
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.leases import boot_id, protect
from ocidiff.embedded.tables import snapshots as rows
from ocidiff.embedded.tables.snapshots import Row
from ocidiff.embedded.trees import TREE, discard, disk_usage, open_trees, sweep, trees_path
from ocidiff.errors import AlreadyExistsError, InUseError, UsageError
from ocidiff.mounts.kernel import sync_file_system
from ocidiff.mounts.mount import Mount
from ocidiff.oci.digest import ChainID
from ocidiff.services.labels import REFERS_SNAPSHOT, SNAPSHOT_REF
from ocidiff.services.leases import snapshots_of
from ocidiff.services.snapshots import Kind, Snapshot, Usage

if TYPE_CHECKING:
    import sqlite3


class Driver(Protocol):
    """Makes and mounts the directories of snapshots."""

    @property
    def name(self) -> str:
        """Name of the driver, under which its snapshots are listed."""
        ...

    @property
    def max_parents(self) -> int | None:
        """Most parents of a mount; None for any number."""
        ...

    @property
    def shares_parents(self) -> bool:
        """True if a snapshot takes only the space of what differs from its parent."""
        ...

    def fill(self, directory: str, parents: Sequence[str], kind: Kind) -> None:
        """Make what a new snapshot has.

        Args:
            directory: Its directory, which is empty.
            parents: The trees of its parents, the nearest first.
            kind: Active or view.
        """
        ...

    def mounts(self, directory: str, parents: Sequence[str], kind: Kind) -> tuple[Mount, ...]:
        """Return the mounts of a snapshot; a committed one is mounted like a view of it."""
        ...

    def finalize(self, directory: str) -> None:
        """Remove what only an active snapshot needs."""
        ...


Reuse = Callable[["LocalSnapshotter", ChainID], bool]
"""Makes a committed snapshot from the tree of a container; False if no container offers that tree."""


class LocalSnapshotter:
    """A `Snapshotter` in a store.

    Args:
        layout: The store; under a lease, where new snapshots shall be kept by it.
        driver: What is in the directories.
        reuse: What makes a snapshot that `prepare` is asked for by `SNAPSHOT_REF`; None for nothing.
    """

    def __init__(self, layout: Layout, driver: Driver, reuse: Reuse | None = None) -> None:
        self._layout = layout
        self._driver = driver
        self._reuse = reuse
        self._root = trees_path(layout)

    @property
    def name(self) -> str:
        """See `Snapshotter.name`."""
        return self._driver.name

    @property
    def max_parents(self) -> int | None:
        """See `Driver.max_parents`."""
        return self._driver.max_parents

    @property
    def shares_parents(self) -> bool:
        """See `Driver.shares_parents`."""
        return self._driver.shares_parents

    @property
    def one_for_each_layer(self) -> bool:
        """See `Snapshotter.one_for_each_layer`: nobody else looks here."""
        return False

    def prepare(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """See `Snapshotter.prepare`."""
        said = dict(labels or {})
        wanted = said.pop(SNAPSHOT_REF, None)
        # A container's tree has a parent. Without one, the caller wants all layers in one snapshot, because a mount takes no
        # more of them.
        if wanted and parent is not None and self._reuse is not None and self._reuse(self, ChainID(wanted)):
            raise AlreadyExistsError(f"snapshot {wanted} already exists")
        return self._make(key, parent, Kind.ACTIVE, said)

    def view(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """See `Snapshotter.view`."""
        return self._make(key, parent, Kind.VIEW, labels)

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        """See `Snapshotter.commit`."""
        _check_key(name)
        active = self._row(key)
        if active.kind is not Kind.ACTIVE:
            raise UsageError(f"snapshot {key}: is {active.kind}, and only an active one is committed")
        self._driver.finalize(self._directory(active.id))
        with self._layout.database().transaction() as connection:
            row = rows.require(connection, self.name, key)
            self._require_free(connection, name)
            if rows.container_of(connection, row.id) is not None:
                raise InUseError(f"snapshot {key}: in use by a working container")
            rows.commit(connection, row.id, name, boot_id())
            rows.set_labels(connection, row.id, labels)
            self._protect(connection, name)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """See `Snapshotter.mounts`."""
        with self._layout.database().reading() as connection:
            row = rows.require(connection, self.name, key)
            if row.kind is Kind.COMMITTED:
                raise UsageError(f"snapshot {key}: is committed; a view of it can be mounted")
            return self._mounts(connection, row)

    @contextmanager
    def reading(self, key: str) -> Iterator[tuple[Mount, ...]]:
        """See `Snapshotter.reading`; the caller keeps the snapshot in place."""
        with self._layout.database().reading() as connection:
            row = rows.require(connection, self.name, key)
            kind = Kind.VIEW if row.kind is Kind.VIEW else Kind.COMMITTED
            mounts = self._driver.mounts(self._directory(row.id), self._parents(connection, row), kind)
        yield mounts

    def stat(self, key: str) -> Snapshot:
        """See `Snapshotter.stat`."""
        with self._layout.database().reading() as connection:
            return rows.snapshot(connection, rows.require(connection, self.name, key))

    def usage(self, key: str) -> Usage:
        """See `Snapshotter.usage`."""
        return disk_usage(self.tree(key))

    def walk(self) -> Iterator[Snapshot]:
        """See `Snapshotter.walk`."""
        with self._layout.database().reading() as connection:
            found = [rows.snapshot(connection, row) for row in rows.walk(connection, self.name)]
        yield from found

    def add_to_lease(self, name: str) -> None:
        """Put a snapshot that is there under the lease too.

        Raises:
            NotFoundError: There is none.
        """
        with self._layout.database().transaction() as connection:
            rows.require(connection, self.name, name)
            self._protect(connection, name)

    def replace(self, name: str, key: str) -> None:
        """Give a committed snapshot the tree of an active one, which ends, in place of its own; what grows on it stays.

        Args:
            name: What is committed; its tree may be missing.
            key: What has grown on the same parent.

        Raises:
            NotFoundError: One of them is missing.
        """
        self._driver.finalize(self._directory(self._row(key).id))
        # A container may be made on this snapshot, and its changes cannot be made again.
        sync_file_system(self._root)
        with open_trees(self._layout) as trees, self._layout.ingest_dir() as ingest_dir:
            with self._layout.database().transaction(durable=True) as connection:
                row, active = rows.require(connection, self.name, name), rows.require(connection, self.name, key)
                aside = workspace.adopt(ingest_dir, trees, str(row.id))
                os.rename(str(active.id), str(row.id), src_dir_fd=trees, dst_dir_fd=trees)
                os.fsync(trees)
                rows.mark_synced(connection, [row.id])
                rows.delete(connection, active)
            if aside is not None:
                workspace.discard(ingest_dir, aside, os.path.join(self._layout.ingest_path, aside))

    def remove(self, key: str) -> None:
        """See `Snapshotter.remove`."""
        # On disk before the directory goes: a row without one is a fault.
        with self._layout.database().transaction(durable=True) as connection:
            row = rows.require(connection, self.name, key)
            rows.delete(connection, row)
        discard(self._layout, [row.id])

    def update_labels(self, key: str, labels: Mapping[str, str]) -> None:
        """Say more of a snapshot; an empty value takes a label away."""
        with self._layout.database().transaction() as connection:
            rows.set_labels(connection, rows.require(connection, self.name, key).id, labels)

    def labelled(self, name: str, value: str) -> list[str]:
        """The keys of the snapshots that have a label."""
        with self._layout.database().reading() as connection:
            return rows.labelled(connection, self.name, name, value)

    def directory(self, key: str) -> str:
        """Path of the directory of a snapshot."""
        return self._directory(self._row(key).id)

    def tree(self, key: str) -> str:
        """Path of what a snapshot itself holds: its tree, or what it changes."""
        return os.path.join(self.directory(key), TREE)

    def lineage(self, key: str) -> list[str]:
        """Paths of what the snapshot and its parents hold, the nearest first."""
        with self._layout.database().reading() as connection:
            row = rows.require(connection, self.name, key)
            return [os.path.join(self._directory(row.id), TREE), *self._parents(connection, row)]

    def make_durable(self, name: str) -> None:
        """Have a committed snapshot and its parents on disk, before something is built on them that cannot be made again."""
        with self._layout.database().reading() as connection:
            unsynced = [row.id for row in rows.ancestry(connection, self.name, name) if row.unsynced_boot_id is not None]
        if unsynced:
            sync_file_system(self._root)
            with self._layout.database().transaction(durable=True) as connection:
                rows.mark_synced(connection, unsynced)

    def _make(self, key: str, parent: str | None, kind: Kind, labels: Mapping[str, str] | None) -> tuple[Mount, ...]:
        _check_key(key)
        is_lasting = not key.startswith(rows.TEMPORARY)
        if parent is not None and is_lasting:
            self.make_durable(parent)
        with self._layout.database().reading() as connection:
            self._require_free(connection, key)
            above = [] if parent is None else self._committed(connection, parent)
        with open_trees(self._layout, create=True) as trees, self._layout.ingest_dir() as ingest_dir:
            name, directory = workspace.create_directory(ingest_dir)
            try:
                self._driver.fill(os.path.join(self._layout.ingest_path, name), above, kind)
                if is_lasting:
                    os.fsync(directory)
                with self._layout.database().transaction() as connection:
                    row = self._insert(connection, key, parent, kind, labels)
                    # Left by a process that died before its row was there.
                    workspace.adopt(ingest_dir, trees, str(row.id))
                    os.rename(name, str(row.id), src_dir_fd=ingest_dir, dst_dir_fd=trees)
                    if is_lasting:
                        os.fsync(trees)
                    return self._mounts(connection, row)
            except BaseException:
                self._undo(ingest_dir, name, directory)
                raise
            finally:
                os.close(directory)

    def _insert(
        self, connection: sqlite3.Connection, key: str, parent: str | None, kind: Kind, labels: Mapping[str, str] | None
    ) -> Row:
        """Write the row of a new snapshot, which the lease keeps."""
        self._require_free(connection, key)
        parent_row = None if parent is None else rows.require(connection, self.name, parent)
        number = rows.insert(connection, self.name, key, kind, parent_row, time.time_ns())
        rows.set_labels(connection, number, labels)
        self._protect(connection, key)
        return rows.require(connection, self.name, key)

    def _require_free(self, connection: sqlite3.Connection, key: str) -> None:
        if rows.find(connection, self.name, key) is not None:
            raise AlreadyExistsError(f"snapshot {key} already exists")

    def _undo(self, ingest_dir: int, name: str, directory: int) -> None:
        try:
            os.stat(name, dir_fd=ingest_dir)
        except FileNotFoundError:
            # It has its place already, and goes from there unless the row was kept nevertheless.
            sweep(self._layout)
        else:
            workspace.remove(ingest_dir, name, directory)

    def _protect(self, connection: sqlite3.Connection, key: str) -> None:
        if self._layout.lease_id is not None:
            protect(connection, self._layout.lease_id, snapshots_of(self.name), key)

    def _row(self, key: str) -> Row:
        with self._layout.database().reading() as connection:
            return rows.require(connection, self.name, key)

    def _committed(self, connection: sqlite3.Connection, name: str) -> list[str]:
        """The trees of a parent and of its parents, the nearest first."""
        row = rows.require(connection, self.name, name)
        if row.kind is not Kind.COMMITTED:
            raise UsageError(f"snapshot {name}: is {row.kind}, and only a committed one is a parent")
        return [os.path.join(self._directory(row.id), TREE), *self._parents(connection, row)]

    def _parents(self, connection: sqlite3.Connection, row: Row) -> list[str]:
        return [os.path.join(self._directory(number), TREE) for number in rows.parents(connection, row.id)]

    def _mounts(self, connection: sqlite3.Connection, row: Row) -> tuple[Mount, ...]:
        return self._driver.mounts(self._directory(row.id), self._parents(connection, row), row.kind)

    def _directory(self, number: int) -> str:
        return os.path.join(self._root, str(number))


def label_of_reference(driver: str) -> str:
    """Return the label of a blob that needs a snapshot of that driver."""
    return f"{REFERS_SNAPSHOT}.{driver}"


def _check_key(key: str) -> None:
    if not 0 < len(key) <= 1024 or not key.isprintable():
        raise UsageError(f"snapshot {key[:100]!r}: must be 1 to 1024 printable characters")
