"""What a snapshotter promises: trees that grow on one another, in containerd's model.

An active snapshot is written to and known by a key. Committing gives it a name, under which it never changes and may be a
parent. A view is read only, and is never committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Protocol

from ocidiff.mounts.mount import Mount
from ocidiff.values import dataclass


class Kind(StrEnum):
    """What may be done with a snapshot."""

    ACTIVE = "active"
    COMMITTED = "committed"
    VIEW = "view"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a snapshot.

    Attributes:
        kind: What may be done with it.
        key: Its key, or its name once it is committed.
        parent: Name of the snapshot that it grows on; None for none.
        created_ns, updated_ns: When it was made and last changed its kind or labels, nanoseconds since 1970.
        labels: What was said of it.
    """

    kind: Kind
    key: str
    parent: str | None
    created_ns: int
    updated_ns: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a snapshot takes without its parents.

    Attributes:
        bytes: Allocated on disk, each inode once.
        inodes: Files and directories.
    """

    bytes: int
    inodes: int


class Snapshotter(Protocol):
    """Where trees live."""

    @property
    def name(self) -> str:
        """Of the driver, as `lease` resources and gc labels have it."""
        ...

    def prepare(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """A new active snapshot, and how to mount it.

        Raises:
            AlreadyExistsError: The key is taken.
            NotFoundError: There is no such parent.
            UsageError: The parent is not committed.
        """
        ...

    def view(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """A new view, and how to mount it; errors as in `prepare`."""
        ...

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        """Let the active snapshot `key` never change any more, under `name`.

        Raises:
            AlreadyExistsError: The name is taken; the active snapshot stays.
            NotFoundError: There is no such key.
            UsageError: It is no active snapshot.
        """
        ...

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """How to mount an active snapshot or a view.

        Raises:
            NotFoundError: There is no such key.
            UsageError: It is committed.
        """
        ...

    def stat(self, key: str) -> Snapshot:
        """What is known of a snapshot of any kind.

        Raises:
            NotFoundError: There is none.
        """
        ...

    def usage(self, key: str) -> Usage:
        """What it takes; errors as in `stat`."""
        ...

    def walk(self) -> Iterator[Snapshot]:
        """All snapshots, parents before children."""
        ...

    def remove(self, key: str) -> None:
        """Remove a snapshot.

        Raises:
            NotFoundError: There is none.
            InUseError: Another one grows on it, or a working container uses it.
        """
        ...
