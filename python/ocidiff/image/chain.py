"""Chain: the tree of an image as committed snapshots, each under the chain ID of the layers up to it.

A snapshot holds all layers from its parent on. One is made for the whole image, and for each beginning that it has in common
with other images of the store (docs/decisions/0060-snapshots-where-images-end.md).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Final

from ocidiff.errors import AlreadyExistsError, NotFoundError, OcidiffError, UnsupportedError
from ocidiff.image.image import Image, manifests_of, read_manifest
from ocidiff.image.unpack import Done, check_layers
from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.mount import bind, unsynced
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import ChainID, DiffID, chain_ids
from ocidiff.oci.encoding import NO_TEXTS
from ocidiff.services import labels
from ocidiff.services.bundle import Services
from ocidiff.services.snapshots import Snapshotter
from ocidiff.values import dataclass

# Beginnings that an image has in common with others and that get a snapshot: each costs a mount.
_MAX_SHARED: Final = 8


class TooManyLayersError(UnsupportedError):
    """The snapshots of an image are more than a mount of the driver takes."""


ImageLayer = tuple[Descriptor, DiffID]
"""Descriptor of a layer, and the digest of its tar."""


def unpack_chain(
    services: Services, snapshots: Snapshotter, image: Image, *, limits: Limits, monitor: Monitor
) -> ChainID | None:
    """Have the tree of an image as a committed snapshot; what is there already is left as it is.

    Args:
        services: Where the layers are, under the lease that keeps the snapshots until something refers to them.
        snapshots: Where the trees go, under the same lease.
        image: What to unpack.
        limits: What the layers that are applied may not pass together.
        monitor: Sees progress over the layers that are applied, and stops the call.

    Returns:
        Name of the snapshot; None for an image without layers.

    Raises:
        NotFoundError, DigestMismatchError: As in `unpack`.
        UnsupportedError: As in `unpack`.
        TooManyLayersError: The snapshot is there, with more parents than a mount takes.
    """
    diff_ids = image.config.rootfs.diff_ids
    layers = tuple(zip(image.manifest.layers, diff_ids, strict=True))
    chain = chain_ids(diff_ids)
    done = _present(services, snapshots, chain)
    if done < len(chain):
        check_layers(services.content, image, done if has_room(snapshots, chain, done, 1) else 0)
    used = Done()
    monitor = monitor.of("unpack", sum(layer.size for layer in image.manifest.layers[done:]))
    extraction = Extraction(services, snapshots, limits, monitor)
    ends = list(_ends(services, snapshots, image, chain, done))
    is_offered = True
    if done and len(ends) > 1 and not snapshots.one_for_each_layer:
        # A container may offer the tree of all layers, and then no beginning of them is needed.
        is_offered = extraction.offered(chain[done - 1], chain[-1])
        ends = [] if is_offered else ends
    for end in ends:
        # Beyond what a mount takes, all layers are applied anew, onto nothing.
        start = done if has_room(snapshots, chain, done, 1) else 0
        parent = chain[start - 1] if start else None
        # What was refused above would be compared again in vain.
        asks = is_offered or end < len(chain)
        used = extraction.committed(layers[start:end], parent, chain[end - 1], used, asks=asks)
        done = end
    if not chain:
        return None
    if not has_room(snapshots, chain, len(chain), 0):
        raise TooManyLayersError(
            f"{image.name}: has more than {snapshots.max_parents} snapshots, which {snapshots.name} cannot mount: "
            "use the driver directory"
        )
    services.add_gc_reference(image.config_digest, snapshots, chain[-1])
    return chain[-1]


def _present(services: Services, snapshots: Snapshotter, chain: Sequence[ChainID]) -> int:
    """Return how many layers the deepest snapshot that is there has; it is kept, and so are its parents."""
    for count in range(len(chain), 0, -1):
        if _exists(snapshots, chain[count - 1]) and services.keep_snapshot(snapshots, chain[count - 1]):
            return count
    return 0


def _exists(snapshots: Snapshotter, name: ChainID) -> bool:
    with suppress(NotFoundError):
        snapshots.stat(name)
        return True
    return False


def has_room(snapshots: Snapshotter, chain: Sequence[ChainID], count: int, more: int) -> bool:
    """True if a mount takes the snapshot of the first `count` layers, its parents, and `more` snapshots on top of it."""
    if snapshots.max_parents is None or not count:
        return True
    depth, name = 0, str(chain[count - 1])
    with suppress(NotFoundError):
        while name and depth + more <= snapshots.max_parents:
            depth, name = depth + 1, snapshots.stat(name).parent or ""
    return depth + more <= snapshots.max_parents


def _ends(services: Services, snapshots: Snapshotter, image: Image, chain: Sequence[ChainID], done: int) -> Iterator[int]:
    """Yield how many layers each missing snapshot ends with, the fewest first."""
    if done == len(chain):
        return
    if snapshots.one_for_each_layer:
        yield from range(done + 1, len(chain) + 1)
        return
    if snapshots.shares_parents and done + 1 < len(chain):
        shared = Counter(_common(services, image.config.rootfs.diff_ids))
        between = [count for count in shared if done < count < len(chain)]
        # Those that most images have in common, and of these the longest.
        yield from sorted(sorted(between, key=lambda count: (-shared[count], -count))[:_MAX_SHARED])
    yield len(chain)


def _common(services: Services, diff_ids: Sequence[DiffID]) -> Iterator[int]:
    """Yield how many layers each image of the store has in common with an image."""
    for entry in services.images.list():
        # An image that cannot be read has nothing in common.
        with suppress(OcidiffError, OSError):
            if entry.descriptor is None:
                continue
            name = entry.descriptor.digest
            for manifest in manifests_of(services.content, name, entry.descriptor):
                other = read_manifest(services.content, name, manifest)
                pairs = zip(diff_ids, other.config.rootfs.diff_ids, strict=False)
                yield sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@dataclass(frozen=True, slots=True)
class Extraction:
    """Applies layers onto new snapshots.

    Attributes:
        services: Where the layers are, under a lease.
        snapshots: Where the trees go, under the same lease.
        limits: What all layers together may not pass.
        monitor: Sees progress, and stops the call.
    """

    services: Services
    snapshots: Snapshotter
    limits: Limits
    monitor: Monitor

    def committed(
        self, layers: Sequence[ImageLayer], parent: ChainID | None, name: ChainID, used: Done, *, asks: bool = True
    ) -> Done:
        """Make the committed snapshot `name`, unless the snapshotter has it or, if `asks` is set, makes it by itself.

        Other arguments as in `tree`; returns what is used up then.
        """
        wanted = {labels.SNAPSHOT_REF: str(name)} if asks else NO_TEXTS
        try:
            with self.tree(layers, parent, name, used, wanted) as (key, done):
                self.snapshots.commit(name, key)
                return done
        except AlreadyExistsError:
            # Offered by a container, or made by somebody else, with the same tree.
            if not self.services.keep_snapshot(self.snapshots, name):
                raise
            return used

    def offered(self, parent: ChainID | None, name: ChainID) -> bool:
        """Return True if the snapshotter has the committed snapshot `name`, or has made it by itself."""
        key = f"extract-{os.urandom(16).hex()} {name}"
        try:
            self.snapshots.prepare(key, parent, {labels.SNAPSHOT_REF: name})
        except AlreadyExistsError:
            return self.services.keep_snapshot(self.snapshots, name)
        self.snapshots.remove(key)
        return False

    @contextmanager
    def _named(self, tree: str) -> Iterator[None]:
        """Name the snapshotter in a failure to write, in place of a directory that nobody knows."""
        try:
            yield
        except OSError as error:
            path = os.fsdecode(error.filename or "")
            if path.startswith(tree):
                error.filename = f"snapshotter {self.snapshots.name}: {os.path.normpath(path.removeprefix(tree))}"
            raise

    @contextmanager
    def tree(
        self,
        layers: Sequence[ImageLayer],
        parent: str | None,
        name: ChainID,
        used: Done | None = None,
        wanted: Mapping[str, str] = NO_TEXTS,
    ) -> Iterator[tuple[str, Done]]:
        """Yield the key of an active snapshot with the tree of layers on that of its parent; it goes if the block fails.

        Args:
            layers: What to apply, verified.
            parent: Snapshot to begin with; None for an empty tree.
            name: Chain ID of the last layer.
            used: What the layers before have used up of the limits; None for nothing.
            wanted: Labels that ask the snapshotter for the committed snapshot instead.

        Raises:
            AlreadyExistsError: The snapshotter has the committed snapshot.
        """
        done, content = used or Done(), self.services.content
        key = f"extract-{os.urandom(16).hex()} {name}"
        mounts = unsynced(self.snapshots.prepare(key, parent, wanted))
        try:
            # Mounted once: an overlay without syncs cannot be mounted again.
            with directory_of(mounts) as tree, self._named(tree):
                for descriptor, diff_id in layers:
                    self.monitor.check()
                    place = (bind(tree, read_only=False),)
                    options = done.remaining(ApplyOptions(limits=self.limits))
                    seen = done.continued(self.monitor, descriptor.digest)
                    done = done.plus(self.services.differ.apply(descriptor, diff_id, place, content, options, seen))
            content.label_all({layer.digest: {labels.UNCOMPRESSED: diff_id} for layer, diff_id in layers})
            yield key, done
        except BaseException:
            with suppress(NotFoundError):
                self.snapshots.remove(key)
            raise
