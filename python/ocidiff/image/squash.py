"""Squash: the newest layers of an image become one, read from their blobs and never unpacked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import BinaryIO, Self

from ocidiff.errors import NotFoundError, UnsupportedError
from ocidiff.frozen import FrozenMapping
from ocidiff.image.drafts import Drafts
from ocidiff.image.merge import Merge
from ocidiff.layer.applier import verify
from ocidiff.layer.differ import layer_media_type
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import Layer
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Compression, LayerOptions
from ocidiff.oci import media_type
from ocidiff.oci.config import ImageConfig
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import DiffID
from ocidiff.oci.manifest import Manifest
from ocidiff.services import labels
from ocidiff.services.content import ContentStore, Ingester
from ocidiff.services.damage import reading_stored

ImageLayer = tuple[Descriptor, DiffID]
"""Descriptor of a layer, and the digest of its tar."""


class Merging:
    """A commit that merges layers: where its new layers go, and what becomes of all of them.

    New layers that are merged in any case are kept aside.

    Args:
        content: Where layers are, and where the merged one goes.
        merge: Which layers are merged; None for none.
        parent: Manifest of the base; None for no layers.
        new_count: How many layers the commit adds at most.

    Raises:
        NotFoundError: Layers of the base that will be merged are not in the store.
        UnsupportedError: One is of a kind that cannot be applied.
    """

    def __init__(self, content: ContentStore, merge: Merge | None, parent: Manifest | None, new_count: int) -> None:
        self._content = content
        self._merge = merge
        self._base = () if parent is None else parent.layers
        self._drafts = Drafts(content.spool)
        self._has_drafts = merge is not None and merge.takes_all(len(self._base), new_count)
        if merge is not None:
            count = merge.count([*(layer.size for layer in self._base), *[0] * new_count]) - new_count
            _check(content, self._base[-count:] if count > 0 else ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drafts.close()

    @property
    def target(self) -> Ingester:
        """The store that new layers go to."""
        return self._drafts if self._has_drafts else self._content

    def options(self, options: LayerOptions) -> LayerOptions:
        """Return how new layers are written, of how the layers of the image shall be."""
        if not self._has_drafts or self._merge is None or self._merge.max_layers is not None:
            # A limit of layers compares sizes, and those of the base are compressed.
            return options
        return replace(options, compression=Compression.NONE, level=None)

    def merged(
        self,
        config: ImageConfig,
        new: Sequence[Layer],
        *,
        options: LayerOptions,
        limits: Limits,
        engine: Engine,
        monitor: Monitor,
    ) -> tuple[int, Layer] | None:
        """Store the layer that several become; return how many, and the layer. None if there is nothing to merge.

        Arguments and errors as in `squash`; `config` is that of the image with the new layers.
        """
        layers = [*self._base, *(layer.descriptor for layer in new)]
        count = 0 if self._merge is None else self._merge.count([layer.size for layer in layers])
        if not count:
            return None
        parts = tuple(zip(layers, config.rootfs.diff_ids, strict=True))[-count:]
        onto_base, content = count < len(layers), self._content
        layer = squash(
            content,
            self._drafts,
            parts,
            onto_base=onto_base,
            options=options,
            limits=limits,
            engine=engine,
            monitor=monitor,
        )
        return count, _with_changes(layer, new[-count:])


def squash(
    content: ContentStore,
    drafts: Drafts,
    layers: Sequence[ImageLayer],
    *,
    onto_base: bool,
    options: LayerOptions,
    limits: Limits,
    engine: Engine,
    monitor: Monitor,
) -> Layer:
    """Store one layer that does what several do.

    Args:
        content: Where the layers are, and where the new one goes.
        drafts: Where those of the layers are that were made for this.
        layers: What to merge, base first; each is verified.
        onto_base: True if there are layers below.
        options: How the layer is compressed.
        limits: What the layers may not pass together.
        engine: What merges them.
        monitor: Sees progress, and stops the call.

    Returns:
        The layer. What it adds, modifies and deletes is not counted.

    Raises:
        NotFoundError: Some of the layers are not in the store.
        DigestMismatchError: One is not the layer that is named.
        UnsupportedError: One is of a kind that cannot be applied, or has a hard link to a file of a layer below.
    """

    def open_layer(layer: Descriptor) -> BinaryIO:
        return (drafts if drafts.contains(layer.digest) else content).open_blob(layer)

    started = time.monotonic()
    _check(content, [layer for layer, _ in layers if not drafts.contains(layer.digest)])
    merged = engine.squash(onto_base=onto_base)
    reading = monitor.of("read", sum(layer.size for layer, _ in layers))
    for layer, diff_id in layers:
        monitor.check()
        with reading_stored(layer.digest):
            with open_layer(layer) as blob:
                measure = merged.add(blob.fileno(), limits, replace(reading, done=replace(reading.done, item=layer.digest)))
            verify(measure, layer.digest, diff_id)
        limits = limits.after(measure.uncompressed_size + measure.holes, measure.entries)
        now = reading.done
        plain, stored = now.bytes_plain + measure.uncompressed_size, now.bytes_blob + measure.size
        reading = reading.working_on("", now.entries + measure.entries, plain, stored)
    options = replace(options, spool=content.spool)
    with ExitStack() as stack:
        wanted = zip(layers, merged.content_bytes(), strict=True)
        sources = [stack.enter_context(open_layer(layer)).fileno() if count else None for (layer, _), count in wanted]
        ingest = stack.enter_context(content.ingest())
        done = merged.write(sources, ingest.fileno(), options, monitor.of("squash"))
        monitor.check()
        ingest.commit(done.size, done.digest, {labels.UNCOMPRESSED: done.diff_id}, monitor.check)
    return Layer(
        descriptor=Descriptor(layer_media_type(options.compression), done.digest, done.size),
        diff_id=done.diff_id,
        uncompressed_size=done.uncompressed_size,
        added=0,
        modified=0,
        deleted=0,
        empty=done.entries == 0,
        skipped=done.skipped,
        seconds=time.monotonic() - started,
    )


def _with_changes(layer: Layer, changes: Sequence[Layer]) -> Layer:
    """Return a merged layer with the counts of the changes that became a part of it."""
    skipped: Mapping[str, int] = layer.skipped
    for change in changes:
        skipped = {
            reason: skipped.get(reason, 0) + change.skipped.get(reason, 0) for reason in {**skipped, **change.skipped}
        }
    return replace(
        layer,
        added=sum(change.added for change in changes),
        modified=sum(change.modified for change in changes),
        deleted=sum(change.deleted for change in changes),
        skipped=FrozenMapping(skipped),
        seconds=layer.seconds + sum(change.seconds for change in changes),
        retried=sum(change.retried for change in changes),
        vanished=sum(change.vanished for change in changes),
    )


def _check(content: ContentStore, layers: Sequence[Descriptor]) -> None:
    absent = [layer.digest for layer in layers if not content.contains(layer.digest)]
    if absent:
        raise NotFoundError(
            f"squash: layers of the base are not in the store: {', '.join(absent)}: pull the base again, or merge fewer"
        )
    for layer in layers:
        if layer.media_type not in media_type.LAYERS:
            raise UnsupportedError(f"squash: layer {layer.digest} has media type {layer.media_type[:100]!r}")
