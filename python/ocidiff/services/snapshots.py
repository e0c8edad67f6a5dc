"""Snapshots: trees that grow on one another.

An active snapshot is written to and known by a key. Committing it gives it a name, under which it never changes and may be a
parent. A view is read only and is never committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Final, Protocol

from ocidiff.mounts.mount import Mount
from ocidiff.values import dataclass

PLAIN: Final = "directory"
"""Name of a snapshotter that takes any number of layers, in stores that have one."""


class Kind(StrEnum):
    """Kinds of snapshots: an active one can be changed, a committed one can be a parent, a view can only be read."""

    ACTIVE = "active"
    COMMITTED = "committed"
    VIEW = "view"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Facts of a snapshot.

    Attributes:
        kind: What may be done with it.
        key: Its key, or its name once it is committed.
        parent: Name of the snapshot that it grows on; None for none.
        created_ns, updated_ns: When it was made and last changed its kind or labels, nanoseconds since 1970.
        labels: Its labels.
    """

    kind: Kind
    key: str
    parent: str | None
    created_ns: int
    updated_ns: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Usage:
    """Space that a snapshot takes without its parents.

    Attributes:
        bytes: Bytes allocated on disk, each inode once.
        inodes: Files and directories.
    """

    bytes: int
    inodes: int


class Snapshotter(Protocol):
    """Keeps trees. A new snapshot belongs to the lease that the snapshotter works under."""

    @property
    def name(self) -> str:
        """Name of the snapshotter, as leases and labels use it."""
        ...

    @property
    def max_parents(self) -> int | None:
        """Number of parents that a mount takes; None for any number."""
        ...

    @property
    def shares_parents(self) -> bool:
        """True if a snapshot takes only the space of what differs from its parent."""
        ...

    @property
    def one_for_each_layer(self) -> bool:
        """True if there should be a snapshot for every layer, since others look for them."""
        ...

    def prepare(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Make an active snapshot and return its mounts.

        Args:
            key: Key of the new snapshot.
            parent: Name of the snapshot to grow on; None for an empty tree.
            labels: Labels of the new snapshot. `labels.SNAPSHOT_REF` asks for a committed snapshot of that name instead, if
                the snapshotter has it or can make it by itself.

        Raises:
            AlreadyExistsError: The key is taken, or the committed snapshot that was asked for exists now.
            NotFoundError: There is no such parent.
            UsageError: The parent is not committed.
        """
        ...

    def view(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Make a view and return its mounts; errors as in `prepare`."""
        ...

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        """Turn the active snapshot `key` into the committed snapshot `name`.

        Raises:
            AlreadyExistsError: The name is taken; the active snapshot stays.
            NotFoundError: There is no such key.
            UsageError: It is no active snapshot.
        """
        ...

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return the mounts of an active snapshot or a view.

        Raises:
            NotFoundError: There is no such key.
            UsageError: It is committed.
        """
        ...

    def reading(self, key: str) -> AbstractContextManager[tuple[Mount, ...]]:
        """Yield mounts that show a snapshot of any kind and write nothing; what they need ends with the block.

        Raises:
            NotFoundError: There is no such snapshot.
        """
        ...

    def stat(self, key: str) -> Snapshot:
        """Return what is known of a snapshot of any kind.

        Raises:
            NotFoundError: There is no such snapshot.
        """
        ...

    def usage(self, key: str) -> Usage:
        """Return the space that it takes; errors as in `stat`."""
        ...

    def update_labels(self, key: str, labels: Mapping[str, str]) -> None:
        """Set labels of a snapshot; an empty value removes a label. Errors as in `stat`."""
        ...

    def walk(self) -> Iterator[Snapshot]:
        """Yield all snapshots, parents before children."""
        ...

    def remove(self, key: str) -> None:
        """Remove a snapshot.

        Raises:
            NotFoundError: There is no such snapshot.
            InUseError: Another snapshot grows on it, or a container uses it.
        """
        ...
