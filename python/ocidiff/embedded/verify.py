"""Verify: everything in a store is read again and compared, and repaired on request. Nothing is thrown away.

A blob with other bytes than its name says is moved to `damaged/`, so that the right one can take its place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

from ocidiff.embedded import trees
from ocidiff.embedded.containers import Containers
from ocidiff.embedded.drivers.select import snapshotter
from ocidiff.embedded.gc import leftovers
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.open import Embedded, services_of
from ocidiff.embedded.stored import UNREADABLE
from ocidiff.embedded.tables import snapshots as rows
from ocidiff.embedded.tables.snapshots import Row
from ocidiff.embedded.verified import Fault, Verified
from ocidiff.errors import DigestMismatchError, DocumentError, NotFoundError, OcidiffError, UnsupportedError
from ocidiff.image.chain import Extraction, ImageLayer
from ocidiff.image.image import Image, manifests_of, read_manifest
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import LayerMeasure
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import ChainID, DiffID, Digest, chain_ids
from ocidiff.services import labels
from ocidiff.services.content import BLOCK_BYTES
from ocidiff.services.home import reading
from ocidiff.services.snapshots import Kind

_KINDS: Final = media_type.MANIFESTS | media_type.INDEXES
_MOVED: Final = "; moved to damaged/"


def verify(home: Embedded, *, repair: bool, limits: Limits, engine: Engine, monitor: Monitor) -> Verified:
    """Read everything and compare it; what nothing refers to is no fault.

    Args:
        home: The store.
        repair: Repair what can be repaired.
        limits: What the layers of an image may not pass, as in `unpack`.
        engine: What decompresses layers.
        monitor: Sees progress, and stops the call.
    """
    if repair:
        home.layout.require_writable()
    faults = _check_database(home.layout, repair=repair)
    if not all(fault.repaired for fault in faults):
        # Without a database there is no lease, and nothing else can be judged.
        return Verified(0, 0, 0, 0, 0, tuple(faults))
    with reading(home, engine, monitor) as services:
        layout = home.layout if services.lease is None else home.layout.under(services.lease.id)
        verified = _Verification(layout, repair=repair, limits=limits, engine=engine, monitor=monitor).run()
    return replace(verified, faults=(*faults, *verified.faults))


def _check_database(layout: Layout, *, repair: bool) -> list[Fault]:
    """Return what is wrong with the database itself, which all else needs; on request it is set aside and made again.

    Args:
        layout: The store, under no lease yet.
        repair: Make it again.
    """
    path = layout.database_path
    if layout.refusal is not None and not layout.has_database():
        # As another tool left it.
        return []
    try:
        problems = layout.database().damage()
    except DocumentError as error:
        problems = [str(error).removeprefix(f"{path}: ")]
    if not problems or not repair:
        return [Fault("database", path, problem, repaired=False) for problem in problems]
    renewed = layout.renew_database()
    told = [f"{problems[0]}; set aside as {renewed.aside}, and made again from the files"]
    if renewed.lost:
        told.append(f"not all could be read of {', '.join(renewed.lost)}")
    told += [f"trees that it does not know are now in {place}" for place in renewed.trees]
    return [Fault("database", path, "; ".join(told), repaired=True)]


class _Verification:
    def __init__(self, layout: Layout, *, repair: bool, limits: Limits, engine: Engine, monitor: Monitor) -> None:
        self._layout = layout
        self._repair = repair
        self._limits = limits
        self._engine = engine
        self._monitor = monitor
        self._is_read_only = layout.refusal is not None
        self._faults: list[Fault] = []
        # In order, and each once.
        self._unread: dict[str, None] = {}
        self._measured: dict[Digest, LayerMeasure | OcidiffError | OSError] = {}
        self._damaged: set[Digest] = set()
        self._chains: dict[str, list[tuple[ChainID, tuple[Descriptor, DiffID]]]] = {}
        self._blob_bytes = 0
        self._verified_images = 0

    def run(self) -> Verified:
        has_database = not self._is_read_only or self._layout.has_database()
        for problem in self._layout.database().broken_references() if has_database else ():
            self._fault("database", self._layout.database().path, problem)
        self._index()
        blobs = self._blobs()
        for digest, problem in self._layout.segments.faults(repair=self._repair):
            done = "; removed" if self._repair else ""
            self._fault("segments", digest, f"{problem}{done}", repaired=self._repair)
        images = self._images()
        containers = self._containers()
        snapshots = self._snapshots() if has_database else 0
        for path, _, cause in (left.rpartition(": ") for left in self._leftovers()):
            self._fault("leftover", path, f"cannot be removed: {cause}")
        return Verified(blobs, self._blob_bytes, images, snapshots, containers, tuple(self._faults), tuple(self._unread))

    def _leftovers(self) -> tuple[str, ...]:
        return () if self._is_read_only else leftovers(self._layout)

    def _note_unread(self, error: PermissionError, path: str | None = None) -> None:
        self._unread[f"{path or error.filename}: {error.strerror}"] = None

    @contextmanager
    def _telling(self, kind: str, where: str, what: str = "") -> Iterator[None]:
        """Tell a failure as a fault in place of raising it, and note what may not be read; a cancelled call ends."""
        try:
            yield
        except PermissionError as error:
            self._note_unread(error)
        except (OcidiffError, OSError) as error:
            self._monitor.check()
            self._fault(kind, where, f"{what}{error}")

    def _fault(self, kind: str, where: str, problem: str, *, repaired: bool = False) -> None:
        self._faults.append(Fault(kind, where, problem, repaired))

    def _index(self) -> None:
        """The index can be read; the database has the same names."""
        try:
            if self._is_read_only:
                self._layout.names.index()
            else:
                self._layout.names.mirror()
        except (DocumentError, FileNotFoundError) as error:
            if self._repair:
                self._layout.names.restore()
            done = "; made again from the database, what was there is in damaged/" if self._repair else ""
            self._fault("index", self._layout.path, str(error) + done, repaired=self._repair)

    def _blobs(self) -> int:
        """Every blob has the bytes that its name says."""
        if not self._is_read_only:
            self._layout.forget_missing()
        digests = sorted(self._layout.walk())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for digest, problem in zip(digests, pool.map(self._damage, digests), strict=True):
                if problem is not None:
                    self._damaged.add(digest)
                    done = self._move_to_damaged(digest) if self._repair else ""
                    self._fault("blob", digest, problem + done, repaired=done == _MOVED)
        return len(digests)

    def _move_to_damaged(self, digest: Digest) -> str:
        """Move a blob out of the way; return what to say of it."""
        try:
            self._layout.move_to_damaged(digest)
        except OSError as error:
            return f"; cannot be moved to damaged/: {error.strerror}"
        return _MOVED

    def _damage(self, digest: Digest) -> str | None:
        """Return the fault of a blob; None for a sound one."""
        self._monitor.check()
        try:
            with self._layout.open_blob(self._layout.describe(digest, "")) as blob:
                sha256 = hashlib.sha256()
                while block := blob.read(BLOCK_BYTES):
                    self._monitor.check()
                    sha256.update(block)
                size = blob.tell()
        except NotFoundError:
            # Collected in the meantime.
            return None
        except PermissionError as error:
            self._note_unread(error)
            return None
        except DigestMismatchError as error:
            return str(error).removeprefix(f"blob {digest}: ")
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            return error.strerror or str(error)
        self._blob_bytes += size
        return None if sha256.hexdigest() == digest.hex else f"holds sha256:{sha256.hexdigest()}"

    def _images(self) -> int:
        """Every name leads to a whole image, whose layers are those that its configuration names.

        What is no image for us (artifacts, other algorithms, unknown kinds) is no fault: it is as its author left it.
        """
        begun: set[Digest] = set()
        seen: set[Digest] = set()
        for name, entry in self._named():
            self._monitor.check()
            if entry.digest in begun or entry.media_type not in _KINDS:
                continue
            begun.add(entry.digest)
            with self._telling("image", name):
                for manifest in manifests_of(self._layout, name, entry):
                    # Members that are missing are of platforms that the store was not given.
                    if manifest.digest not in seen and (manifest is entry or self._layout.contains(manifest.digest)):
                        seen.add(manifest.digest)
                        self._manifest(name, manifest)
        return self._verified_images

    def _manifest(self, name: str, manifest: Descriptor) -> None:
        with self._telling("image", name), suppress(UnsupportedError):
            image = read_manifest(self._layout, name, manifest)
            self._verified_images += 1
            self._image(name, image)

    def _named(self) -> list[tuple[str, Descriptor]]:
        """The images that have a name, under the lease; those that lost it before they were are left out."""
        found = self._entries()
        self._layout.protect(*{descriptor.digest for _, descriptor in found})
        still = {descriptor.digest for _, descriptor in self._entries()}
        return [(name, descriptor) for name, descriptor in found if descriptor.digest in still]

    def _entries(self) -> list[tuple[str, Descriptor]]:
        try:
            entries = self._layout.names.index().entries
        except (DocumentError, FileNotFoundError):
            # Told already.
            return []
        return [(entry.name or entry.descriptor.digest, entry.descriptor) for entry in entries if entry.descriptor]

    def _image(self, name: str, image: Image) -> None:
        self._note_layers(image)
        left = self._limits
        for descriptor, diff_id in zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True):
            self._monitor.check()
            if descriptor.media_type not in media_type.LAYERS:
                # Of an attestation, say, which nobody unpacks.
                continue
            with self._telling("image", name, f"layer {descriptor.digest}: "):
                measure = self._measure(descriptor)
                left = left.less(measure.uncompressed_size + measure.holes, measure.entries)
                if measure.diff_id != diff_id:
                    raise DigestMismatchError(f"its tar is {measure.diff_id}, expected {diff_id}")

    def _note_layers(self, image: Image) -> None:
        """Note which layers the snapshots of an image are made from."""
        diff_ids = image.config.rootfs.diff_ids
        chain = list(zip(chain_ids(diff_ids), zip(image.manifest.layers, diff_ids, strict=True), strict=True))
        self._chains |= dict.fromkeys((name for name, _ in chain), chain)

    def _measure(self, descriptor: Descriptor) -> LayerMeasure:
        """Return what a layer is; each is read once, however many images have it."""
        found = self._measured.get(descriptor.digest)
        if found is None:
            found = self._measured[descriptor.digest] = self._read_layer(descriptor)
        if isinstance(found, LayerMeasure):
            return found
        raise found

    def _read_layer(self, descriptor: Descriptor) -> LayerMeasure | OcidiffError | OSError:
        if descriptor.digest in self._damaged:
            return DigestMismatchError("is damaged")
        try:
            with self._layout.open_blob(descriptor) as blob:
                found = self._engine.measure_layer(blob.fileno(), self._limits, self._monitor)
        except (OcidiffError, OSError) as error:
            return error
        self._label(descriptor.digest, found.diff_id)
        return found

    def _label(self, digest: Digest, diff_id: DiffID) -> None:
        said = self._layout.info(digest).labels.get(labels.UNCOMPRESSED)
        if said not in (None, diff_id):
            if self._repair:
                self._layout.update_labels(digest, {labels.UNCOMPRESSED: diff_id})
            done = "; label corrected" if self._repair else ""
            self._fault("database", digest, f"is labelled {said}, but its tar is {diff_id}{done}", repaired=self._repair)

    def _snapshots(self) -> int:
        """Every snapshot has its directory, and a committed parent."""
        database = self._layout.database()
        if not self._is_read_only:
            trees.sweep(self._layout)
        with database.reading() if self._is_read_only else database.transaction(durable=True) as connection:
            found = rows.walk(connection)
            kinds = {row.id: row.kind for row in found}
            broken = []
            # Children first, so that a broken pair can go.
            for row in reversed(found):
                if row.parent_id is not None and kinds[row.parent_id] is not Kind.COMMITTED:
                    self._fault("snapshot", row.key, f"grows on one that is {kinds[row.parent_id]}")
                try:
                    if trees.is_present(self._layout, row):
                        continue
                except PermissionError as error:
                    self._note_unread(error, trees.trees_path(self._layout))
                    continue
                except OSError as error:
                    self._fault("snapshot", row.key, f"cannot be read: {error.filename}: {error.strerror}")
                    continue
                gone = self._repair and rows.delete_unused(connection, row)
                if gone or not self._repair:
                    done = "; dropped: it is made again when it is needed" if gone else ""
                    self._fault("snapshot", row.key, f"its directory {row.id} is missing{done}", repaired=gone)
                else:
                    broken.append(row)
        if self._repair:
            # A dropped row may have left a directory without a tree.
            trees.sweep(self._layout)
        for row in reversed(broken):
            why = self._why_not_restored(row)
            done = why or "; made again from its layers"
            self._fault("snapshot", row.key, f"its directory {row.id} is missing{done}", repaired=not why)
        return len(found)

    def _why_not_restored(self, row: Row) -> str:
        """Make a snapshot again that something grows on; empty when that is done."""
        if row.kind is not Kind.COMMITTED:
            return "; what was changed in it is lost"
        chain = self._chains.get(row.key)
        if chain is None:
            return "; something grows on it, and no image has its layers"
        try:
            self._restore(row, chain)
        except (OcidiffError, OSError) as error:
            self._monitor.check()
            return f"; something grows on it, and it cannot be made again: {error}"
        return ""

    def _restore(self, row: Row, chain: Sequence[tuple[ChainID, ImageLayer]]) -> None:
        """Make the tree of a committed snapshot again, on that of its parent; what grows on it stays as it is."""
        snapshots = snapshotter(self._layout, row.driver)
        parent = snapshots.stat(row.key).parent
        names = [name for name, _ in chain]
        start = 0 if parent is None else names.index(ChainID(parent)) + 1
        layers = [layer for _, layer in chain[start : names.index(ChainID(row.key)) + 1]]
        services = services_of(self._layout, self._engine, self._monitor)
        extraction = Extraction(services, snapshots, self._limits, self._monitor)
        with extraction.tree(layers, parent, ChainID(row.key)) as (key, _):
            snapshots.replace(row.key, key)

    def _containers(self) -> int:
        """Every working container has the image that it was made from."""
        containers = Containers(self._layout).list()
        for container in containers:
            try:
                self._note_layers(read_manifest(self._layout, container.image, container.manifest))
            except (OcidiffError, OSError) as error:
                # Unless it went in the meantime.
                with suppress(NotFoundError):
                    Containers(self._layout).get(container.name)
                    self._fault("container", container.name, f"its image: {error}")
        return len(containers)
