"""Mutate: new documents from old ones. Pure: nothing is read, written or changed in place."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from ocidiff.layer.layer import Layer
from ocidiff.oci import media_type
from ocidiff.oci.config import History, ImageConfig
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.manifest import Manifest


def extend_config(base: ImageConfig, layer: Layer | None, entry: History) -> ImageConfig:
    """The configuration with one step more; created and author are those of the step.

    Args:
        base: Configuration to begin with; all that is not said here stays as it is.
        layer: What the step added; None for a step without layer.
        entry: The step.

    Spec: image-spec config.md, "history": entries that are not empty pair with the layers.
    """
    diff_ids = base.rootfs.diff_ids if layer is None else (*base.rootfs.diff_ids, layer.diff_id)
    return replace(
        base,
        created=entry.created,
        author=entry.author,
        rootfs=replace(base.rootfs, diff_ids=diff_ids),
        history=(*base.history, *_unrecorded_steps(base), replace(entry, empty_layer=layer is None)),
    )


def extend_manifest(base: Manifest | None, config: Descriptor, layer: Layer | None) -> Manifest:
    """The OCI manifest with one layer more.

    Layers keep their blobs; those of a base in Docker's format get the media types of OCI, since a manifest has one family.
    The link to a subject is dropped: it says that the base is an attachment of something, which the new image is not.

    Args:
        base: Manifest to begin with; None for no layers.
        config: Descriptor of the new configuration.
        layer: What is added; None for nothing.
    """
    start = Manifest(config, ()) if base is None else base
    extended = replace(
        start,
        config=config,
        layers=start.layers if layer is None else (*start.layers, layer.descriptor),
        extra=MappingProxyType({name: value for name, value in start.extra.items() if name != "subject"}),
    )
    return extended.in_format(media_type.Format.OCI)


def without_history(config: ImageConfig) -> ImageConfig:
    """The configuration, silent on how the image came about."""
    return replace(config, history=())


def recorded_layers(config: ImageConfig) -> int:
    """How many layers the history accounts for."""
    return sum(not entry.empty_layer for entry in config.history)


def _unrecorded_steps(config: ImageConfig) -> tuple[History, ...]:
    """Blank steps for layers without history, so that the next step is not taken for theirs."""
    return (History(),) * (len(config.rootfs.diff_ids) - recorded_layers(config))
