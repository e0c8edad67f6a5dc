"""Commit: a tree, as one layer more on a base image. Children are written before parents, the name last."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Self

from ocidiff.content import workspace
from ocidiff.content.layout import Layout
from ocidiff.content.store import LABEL_REFERS_CONTENT, LABEL_UNCOMPRESSED, ContentStore
from ocidiff.errors import UsageError
from ocidiff.image import mutate
from ocidiff.image.changes import ConfigChanges, apply_changes, check_text
from ocidiff.image.image import Image
from ocidiff.layer.differ import write_layer
from ocidiff.layer.engine import Engine, Lower
from ocidiff.layer.layer import Layer
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import ApplyOptions, Compression, LayerOptions, Limits, OverlayMode
from ocidiff.log import Logger
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.oci import media_type
from ocidiff.oci.config import ExecConfig, History, ImageConfig
from ocidiff.oci.manifest import Manifest
from ocidiff.oci.media_type import Format
from ocidiff.oci.platform import Platform
from ocidiff.oci.timestamp import is_timestamp, timestamp
from ocidiff.values import dataclass

_CREATED_BY: Final = "ocidiff commit"
_NS_PER_SECOND: Final = 10**9
_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """What the history says of a commit.

    Attributes:
        author: Who did it; empty for the author of the base.
        comment: Free text.
        created: RFC 3339 time; empty for now, or for the source date epoch.
        created_by: The command; empty for what a container of the base runs, else `ocidiff commit`.
        omit_history: Leave out the history of the base, and this step.
    """

    author: str = ""
    comment: str = ""
    created: str = ""
    created_by: str = ""
    omit_history: bool = False

    @classmethod
    def of(
        cls, author: str | None, message: str | None, created: str | None, created_by: str | None, *, omit_history: bool
    ) -> Self:
        """Return what loose arguments say.

        Raises:
            UsageError: The time is none of RFC 3339, or a text is not UTF-8.
        """
        if created is not None and not is_timestamp(created):
            raise UsageError(f"created {created[:100]!r}: takes an RFC 3339 time")
        check_text("author or message", author or "", message or "", created_by or "")
        return cls(author or "", message or "", created or "", created_by or "", omit_history)


def commit(
    content: ContentStore,
    name: str,
    lower: Lower | None,
    upper: bytes | OverlayLayers,
    *,
    base: Image | None,
    platform: Platform,
    step: Step,
    changes: ConfigChanges,
    annotations: Mapping[str, str],
    family: Format,
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
        platform: What the image runs on if the base does not say it.
        step: What the history says.
        changes: How the image is to be run, beside what the base says.
        annotations: What is said of the manifest, beside what the base says.
        family: Media types of the manifest and of all that it names.
        engine: What writes the layer.
        options: What the layer shall be.
        monitor: Sees progress, and stops the call.
        overlay: Whether the upperdir of a mounted overlay is read in place of what it shows.

    Raises:
        UsageError: A change is refused with the values of the base.
        UnsupportedError: The family has no media type for a layer of the base.

    Spec: commit-semantics sections 6 to 8.
    """
    started = time.monotonic()
    config = ImageConfig(platform) if base is None else base.config
    config = replace(config, platform=config.platform.completed(platform))
    step = step if step.created_by else replace(step, created_by=_command(config.config))
    # Before the tree is read, which takes longest.
    config = apply_changes(config, changes)
    parent = None if base is None else base.manifest.in_format(family)
    layer = _store_layer(content, lower, upper, engine=engine, options=options, monitor=monitor, overlay=overlay)
    if mutate.recorded_layers(config) > len(config.rootfs.diff_ids):
        _log.warning("%s: the history of the base accounts for more layers than there are", name)
    config = mutate.extend_config(config, layer, _entry(step, config, options.source_date_epoch))
    if step.omit_history:
        config = mutate.without_history(config)
    config_descriptor = content.write(config.encode(), media_type.CONFIG)
    manifest = mutate.extend_manifest(parent, config_descriptor, layer, family, annotations)
    descriptor = content.write(manifest.encode(), manifest.media_type, _references(manifest))
    return Image(name, descriptor, manifest, config, layer, time.monotonic() - started)


def image_format(name: str, compression: Compression, annotations: Mapping[str, str]) -> Format:
    """Return the format of that name.

    Raises:
        UsageError: There is no such format, or it cannot have such layers or annotations; a text is not UTF-8.
    """
    if name not in set(Format):
        raise UsageError(f"format {name[:100]!r}: must be {' or '.join(Format)}")
    family = Format(name)
    if family is Format.DOCKER and compression is Compression.ZSTD:
        raise UsageError("format docker: has no zstd layers; take gzip or none, or the format oci")
    check_text("annotation", *annotations, *annotations.values())
    if family is Format.DOCKER and annotations:
        raise UsageError("format docker: has no annotations; take labels, or the format oci")
    return family


@contextmanager
def unpacked(store: Layout, base: Image, limits: Limits, engine: Engine, monitor: Monitor) -> Iterator[bytes]:
    """The path of the tree of an image, private to this process; removed at the end, whatever happens."""
    from ocidiff.image.unpack import apply_layers, check_layers

    check_layers(store, base)
    with store.temporary_directory() as private:
        # A layer may open up the mode of the directory it is applied onto, not of the one around it.
        tree = os.path.join(private, "tree")
        workspace.make_root(tree)
        apply_layers(store, base, tree, engine=engine, options=ApplyOptions(limits=limits), monitor=monitor)
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
    options = replace(options, spool=content.spool)
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


def _command(config: ExecConfig) -> str:
    """Return what a container of the base runs, for the history."""
    return " ".join((*config.entrypoint, *config.cmd)) or _CREATED_BY


def _entry(step: Step, base: ImageConfig, source_date_epoch: int | None) -> History:
    now = time.time_ns() if source_date_epoch is None else source_date_epoch * _NS_PER_SECOND
    return History(
        created=step.created or timestamp(now),
        created_by=step.created_by,
        author=step.author or base.author,
        comment=step.comment,
    )
