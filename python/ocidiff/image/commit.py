"""Commit: a tree, as one layer more on a base image. Children are written before parents, the name last."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ocidiff.content import workspace
from ocidiff.content.layout import Layout
from ocidiff.content.store import LABEL_REFERS_CONTENT, LABEL_UNCOMPRESSED, ContentStore
from ocidiff.image import mutate
from ocidiff.image.image import Image
from ocidiff.layer.differ import write_layer
from ocidiff.layer.engine import Engine, Lower
from ocidiff.layer.layer import Layer
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import ApplyOptions, LayerOptions, OverlayMode
from ocidiff.log import Logger
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.oci import media_type
from ocidiff.oci.config import History, ImageConfig
from ocidiff.oci.manifest import Manifest
from ocidiff.oci.platform import Platform
from ocidiff.oci.timestamp import timestamp
from ocidiff.values import dataclass

CREATED_BY: Final = "ocidiff commit"

_NS_PER_SECOND: Final = 10**9
_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """What the history says of a commit.

    Attributes:
        author: Who did it; empty for the author of the base.
        comment: Free text.
        created: RFC 3339 time; empty for now, or for the source date epoch.
        created_by: The command.
        omit_history: Leave out the history of the base, and this step.
    """

    author: str = ""
    comment: str = ""
    created: str = ""
    created_by: str = CREATED_BY
    omit_history: bool = False


def commit(
    content: ContentStore,
    name: str,
    lower: Lower | None,
    upper: bytes | OverlayLayers,
    *,
    base: Image | None,
    platform: Platform,
    step: Step,
    engine: Engine,
    options: LayerOptions,
    monitor: Monitor,
    overlay: OverlayMode,
) -> Image:
    """Store the image that has what turns `lower` into `upper` on top of `base`. It has no name in the store yet.

    Args:
        content: Where the blobs go.
        name: What the image will be called.
        lower: Path of the tree of the base, or an index of it; None for no parent tree.
        upper: Path of the changed tree; or an overlay, whose lowerdirs are then the parent tree, and `lower` is None.
        base: Image to build on; None for none.
        platform: What the image runs on, where no base says it.
        step: What the history says.
        engine: What writes the layer.
        options: What the layer shall be.
        monitor: Sees progress, and stops the call.
        overlay: Whether the upperdir of a mounted overlay is read in place of what it shows.

    Spec: commit-semantics sections 6 and 7.
    """
    started = time.monotonic()
    layer = _store_layer(content, lower, upper, engine=engine, options=options, monitor=monitor, overlay=overlay)
    config = ImageConfig(platform) if base is None else base.config
    if mutate.recorded_layers(config) > len(config.rootfs.diff_ids):
        _log.warning("%s: the history of the base accounts for more layers than there are", name)
    config = mutate.extend_config(config, layer, _entry(step, config, options.source_date_epoch))
    if step.omit_history:
        config = mutate.without_history(config)
    config_descriptor = content.write(config.encode(), media_type.CONFIG)
    manifest = mutate.extend_manifest(None if base is None else base.manifest, config_descriptor, layer)
    descriptor = content.write(manifest.encode(), media_type.MANIFEST, _references(manifest))
    return Image(name, descriptor, manifest, config, layer, time.monotonic() - started)


@contextmanager
def unpacked(store: Layout, base: Image, engine: Engine, monitor: Monitor) -> Iterator[bytes]:
    """The path of the tree of an image, private to this process; removed at the end, whatever happens."""
    from ocidiff.image.unpack import apply_layers, check_layers

    check_layers(store, base)
    with store.temporary_directory() as private:
        # A layer may open up the mode of the directory it is applied onto, not of the one around it.
        tree = os.path.join(private, "tree")
        workspace.make_root(tree)
        apply_layers(store, base, tree, engine=engine, options=ApplyOptions(), monitor=monitor)
        yield os.fsencode(tree)


def _store_layer(
    content: ContentStore,
    lower: Lower | None,
    upper: bytes | OverlayLayers,
    *,
    engine: Engine,
    options: LayerOptions,
    monitor: Monitor,
    overlay: OverlayMode,
) -> Layer | None:
    """The layer, stored while it is written; None when nothing changed, and then nothing is stored."""
    with content.ingest() as ingest:
        sink = ingest.fileno()
        layer = write_layer(engine, lower, upper, sink, options=options, monitor=monitor.of("diff"), overlay=overlay)
        if layer.empty:
            return None
        ingest.commit(layer.descriptor.size, layer.descriptor.digest, {LABEL_UNCOMPRESSED: layer.diff_id})
        return layer


def _references(manifest: Manifest) -> dict[str, str]:
    """What a manifest needs, as labels, for collectors that read no documents. Spec: commit-semantics section 7."""
    layers = {f"{LABEL_REFERS_CONTENT}.l.{number}": layer.digest for number, layer in enumerate(manifest.layers)}
    return {f"{LABEL_REFERS_CONTENT}.config": manifest.config.digest, **layers}


def _entry(step: Step, base: ImageConfig, source_date_epoch: int | None) -> History:
    now = time.time_ns() if source_date_epoch is None else source_date_epoch * _NS_PER_SECOND
    return History(
        created=step.created or timestamp(now),
        created_by=step.created_by,
        author=step.author or base.author,
        comment=step.comment,
    )
