"""Leases: what a garbage collection must keep while a call works, although nothing refers to it yet."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final, Protocol

CONTENT: Final = "content"
"""Resource type of blobs; the key is the digest."""
INGESTS: Final = "ingests"
"""Resource type of blobs that are being written; the key is the ref."""


def snapshots_of(snapshotter: str) -> str:
    """Return the resource type of a snapshotter's snapshots, as containerd names it; the key is the snapshot's."""
    return f"snapshots/{snapshotter}"


class Lease(Protocol):
    """A lease that is held."""

    @property
    def id(self) -> str:
        """Its number now. A store whose leases cannot be renewed replaces one by another, so that this may change."""
        ...


class LeaseManager(Protocol):
    """Makes leases, and puts things under them."""

    def hold(self) -> AbstractContextManager[Lease]:
        """Hold a lease until the block ends, however long that takes; it is released on every way out."""
        ...

    def add(self, lease: Lease, kind: str, key: str) -> None:
        """Keep a resource until the lease ends.

        Raises:
            NotFoundError: The lease has ended.
        """
        ...

    def resources(self, lease: Lease) -> list[tuple[str, str]]:
        """Return type and key of everything that a lease keeps, sorted."""
        ...

    def held(self) -> list[str]:
        """Return the numbers of all leases."""
        ...
