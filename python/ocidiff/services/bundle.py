"""The services of one store, in one bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from ocidiff.errors import NotFoundError
from ocidiff.oci.digest import Digest
from ocidiff.services import labels
from ocidiff.services.containers import ContainerStore
from ocidiff.services.content import ContentStore
from ocidiff.services.diff import Differ
from ocidiff.services.images import ImageStore
from ocidiff.services.leases import CONTENT, Lease, LeaseManager, snapshots_of
from ocidiff.services.snapshots import Snapshotter
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Services:
    """The services that use-cases work on. Every kind of store has the same bundle.

    Attributes:
        content: Blobs.
        images: Names of images.
        containers: Containers.
        leases: Leases.
        differ: Turns trees into layers, and layers into trees.
        snapshotter: Returns the snapshotter of that name; None for the best one that works here.
        private_directory: Yields the path of an empty directory that only this process knows, and removes it.
        under: Returns the same services, whose content and snapshots belong to a lease.
        lease: The lease that these services work under.
        unpacks: Make the snapshot of an image when it is committed, since whoever runs it expects that.
    """

    content: ContentStore
    images: ImageStore
    containers: ContainerStore
    leases: LeaseManager
    differ: Differ
    snapshotter: Callable[[str | None], Snapshotter]
    private_directory: Callable[[], AbstractContextManager[str]]
    under: Callable[[Lease], Services]
    lease: Lease | None = None
    unpacks: bool = False

    @contextmanager
    def leased(self) -> Iterator[Services]:
        """Yield the services under a lease, which ends with the block unless they are under one already."""
        if self.lease is not None:
            yield self
            return
        with self.leases.hold() as lease:
            yield self.under(lease)

    def keep_blob(self, digest: Digest) -> None:
        """Keep a blob, and what it refers to, until the lease ends."""
        if self.lease is not None:
            self.leases.add(self.lease, CONTENT, digest)

    def keep_snapshot(self, snapshots: Snapshotter, name: str) -> bool:
        """Keep a snapshot and its parents until the lease ends; False if there is no such snapshot."""
        # Kept before it is looked for, so that no collection comes between.
        if self.lease is not None:
            self.leases.add(self.lease, snapshots_of(snapshots.name), name)
        with suppress(NotFoundError):
            snapshots.stat(name)
            return True
        return False

    def add_gc_reference(self, digest: Digest, snapshots: Snapshotter, name: str) -> None:
        """Keep a snapshot for as long as something needs a blob."""
        label = f"{labels.REFERS_SNAPSHOT}.{snapshots.name}"
        if self.content.info(digest).labels.get(label) != name:
            self.content.update_labels(digest, {label: name})
