"""The services of one store, in one bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ocidiff.oci.digest import Digest
from ocidiff.services.containers import ContainerStore
from ocidiff.services.content import ContentStore
from ocidiff.services.diff import Differ
from ocidiff.services.images import ImageStore
from ocidiff.services.leases import CONTENT, DEFAULT_LEASE_SECONDS, Lease, LeaseManager, snapshots_of
from ocidiff.services.snapshots import Snapshot, Snapshotter
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Services:
    """What use-cases work on. The bundles of every kind of store are alike.

    Attributes:
        content: Blobs.
        images: Names of images.
        containers: Containers.
        leases: Leases.
        differ: Turns trees into layers, and layers into trees.
        snapshotter: Returns the snapshotter of that name; None for the best one that works here.
        under: Returns the same services, whose content and snapshots belong to a lease.
        lease: The lease that these services work under.
    """

    content: ContentStore
    images: ImageStore
    containers: ContainerStore
    leases: LeaseManager
    differ: Differ
    snapshotter: Callable[[str | None], Snapshotter]
    under: Callable[[Lease], Services]
    lease: Lease | None = None

    @contextmanager
    def leased(self, seconds: float = DEFAULT_LEASE_SECONDS) -> Iterator[Services]:
        """Yield the services under a lease of their own, which ends with the block; see `LeaseManager.hold`."""
        with self.leases.hold(seconds) as lease:
            yield self.under(lease)

    def keep_blob(self, digest: Digest) -> None:
        """Keep a blob, and what it refers to, until the lease ends."""
        if self.lease is not None:
            self.lease.add(CONTENT, digest)

    def keep_snapshot(self, snapshotter: Snapshotter, name: str) -> Snapshot:
        """Keep a snapshot and its parents until the lease ends, and return what is known of it.

        Raises:
            NotFoundError: There is no such snapshot.
        """
        # Looked at after it is kept: no collection comes between.
        if self.lease is not None:
            self.lease.add(snapshots_of(snapshotter.name), name)
        return snapshotter.stat(name)
