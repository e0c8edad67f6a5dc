"""Split: one change as several layers, of which a later commit writes those that it touches.

Law: the layers depend on the trees and the options alone. A layer of the store is taken if its tar and the way it was
compressed are the same, so that it has the digest that writing it again would give.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ocidiff.errors import DigestMismatchError, NotFoundError
from ocidiff.layer.differ import layer_media_type
from ocidiff.layer.engine import Engine, Lower
from ocidiff.layer.layer import NOTHING_SKIPPED, Layer
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import DEFAULT_LEVELS, LayerOptions, Reuse
from ocidiff.log import Logger
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import ChainID, Digest
from ocidiff.services.bundle import Services
from ocidiff.services.content import BLOCK_BYTES

LABEL_LAYER: Final = "ocidiff/split"
"""On a layer of a split change: its diff ID, and how it was compressed."""
LABEL_SIZE: Final = "ocidiff/split.size"
"""On a layer of a split change: its length in bytes."""
LABEL_BASE: Final = "ocidiff/split.base"
"""On a layer of a split change: how many layers there are, and what they grow on."""

_log = Logger(__name__)


def split(
    services: Services,
    lower: Lower | None,
    upper: bytes | OverlayLayers,
    *,
    count: int,
    chain: ChainID | None,
    options: LayerOptions,
    engine: Engine,
    monitor: Monitor,
) -> tuple[Layer, ...]:
    """Store the change from `lower` to `upper` as `count` layers or fewer, lowest first; none if nothing changed.

    If the store has layers of an earlier split over this base, the layers are measured first: the trees are compared and
    read, and nothing is compressed or stored. Those that are new are written then. Without reuse, all are written.

    Args:
        services: The store, under a lease.
        lower: See `Differ.compare`.
        upper: See `Differ.compare`.
        count: Most layers, 2 or more.
        chain: Chain ID of the base; None for no base.
        options: What the layers shall be.
        engine: What the differ uses.
        monitor: Sees progress, and stops the call.

    Raises:
        DigestMismatchError: A layer is damaged in a store that does not read it before, and `proves_reuse` is set.
    """
    content, differ = services.content, services.differ
    options = replace(options, spool=content.spool)
    base, recipe = f"{count} {chain or 'scratch'}", _recipe(options, engine)
    wanted, placement, known = [True] * count, b"", dict[int, Layer]()
    passes = list[Sequence[Layer | None]]()
    if options.reuse is not Reuse.NEVER and content.labelled(LABEL_BASE, base):
        measured = differ.measure(lower, upper, count, options, monitor.of("measure"))
        placement = measured.placement
        passes.append(measured.layers)
        for number, layer in enumerate(measured.layers):
            wanted[number] = layer is not None and not layer.empty
            if layer is None or not wanted[number]:
                continue
            if (found := _find_stored(services, layer, recipe, options, monitor)) is not None:
                known[number], wanted[number] = found, False
        if not any(wanted):
            return _in_order(known, passes)
    written = differ.split(lower, upper, wanted, content, options, monitor.of("diff"))
    passes.append(written.layers)
    if placement and placement != written.placement:
        _log.debug("hard links or large files changed while the trees were read; all layers are written")
        known = {}
        written = differ.split(lower, upper, [True] * count, content, options, monitor.of("diff"))
        passes.append(written.layers)
    new = {number: layer for number, layer in enumerate(written.layers) if layer is not None and not layer.empty}
    content.label_all(
        {
            layer.descriptor.digest: {
                LABEL_LAYER: f"{layer.diff_id} {recipe}",
                LABEL_SIZE: str(layer.descriptor.size),
                LABEL_BASE: base,
            }
            for layer in new.values()
        }
    )
    return _in_order(known | new, passes)


def _in_order(layers: dict[int, Layer], passes: Sequence[Sequence[Layer | None]]) -> tuple[Layer, ...]:
    """Return layers in order; the first tells what the last pass left out of the whole change, and the time of all."""
    whole = next((layer for layer in passes[-1] if layer is not None), None)
    found = [replace(layers[number], skipped=NOTHING_SKIPPED, retried=0, vanished=0, seconds=0) for number in sorted(layers)]
    if whole is not None and found:
        seconds = sum(layer.seconds for layers_of_pass in passes for layer in layers_of_pass if layer is not None)
        found[0] = replace(found[0], skipped=whole.skipped, retried=whole.retried, vanished=whole.vanished, seconds=seconds)
    return tuple(found)


def _find_stored(services: Services, measured: Layer, recipe: str, options: LayerOptions, monitor: Monitor) -> Layer | None:
    """Return the layer of the store with this tar, compressed like this, under the lease; None if there is none."""
    for digest in services.content.labelled(LABEL_LAYER, f"{measured.diff_id} {recipe}"):
        services.keep_blob(digest)
        try:
            info = services.content.info(digest)
        except (NotFoundError, DigestMismatchError, PermissionError):
            # One that cannot be read is damaged too.
            continue
        with suppress(NotFoundError):
            descriptor = Descriptor(layer_media_type(options.compression), digest, info.size)
            # A damaged one is written again, and replaced.
            if info.labels.get(LABEL_SIZE) == str(info.size) and services.content.is_intact(descriptor, monitor.check):
                is_unread = options.proves_reuse and not services.content.reads_blobs
                if is_unread and not _has_its_digest(services, descriptor, monitor):
                    raise DigestMismatchError(f"blob {digest}: is damaged in the store; remove the images that have it")
                return replace(measured, descriptor=descriptor, reused_bytes=measured.uncompressed_size)
    return None


def _has_its_digest(services: Services, descriptor: Descriptor, monitor: Monitor) -> bool:
    """Read a blob, and return True if it has its digest."""
    import hashlib

    found = hashlib.sha256()
    with services.content.open_blob(descriptor) as blob:
        while data := os.read(blob.fileno(), BLOCK_BYTES):
            monitor.check()
            found.update(data)
    return descriptor.digest == Digest(f"sha256:{found.hexdigest()}")


def _recipe(options: LayerOptions, engine: Engine) -> str:
    """Return the compression, level and encoder, which decide the bytes of a blob with its tar."""
    level = options.level or DEFAULT_LEVELS.get(options.compression, 0)
    return f"{options.compression} {level} {engine.encoder}"
