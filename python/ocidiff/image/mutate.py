"""Mutate: new documents from old ones. Pure: nothing is read, written or changed in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ocidiff.frozen import FrozenMapping
from ocidiff.layer.layer import Layer
from ocidiff.oci.config import ExecConfig, History, ImageConfig
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import DiffID
from ocidiff.oci.encoding import NO_TEXTS
from ocidiff.oci.manifest import Manifest
from ocidiff.oci.media_type import Format

# Spec: image-spec annotations.md.
_OF_BASE: Final = ("org.opencontainers.image.base.digest", "org.opencontainers.image.base.name")
# In Moby's order.
_HEALTHCHECK: Final = ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


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


def extend_manifest(
    base: Manifest | None,
    config: Descriptor,
    layer: Layer | None,
    family: Format = Format.OCI,
    annotations: Mapping[str, str] = NO_TEXTS,
) -> Manifest:
    """Return the manifest with one layer more.

    Layers keep their blobs; those of a base in the other format get the media types of this one, since a manifest has one
    family. The link to a subject is dropped: it says that the base is an attachment of something, which the image is not.

    Args:
        base: Manifest to begin with; None for no layers.
        config: Descriptor of the new configuration.
        layer: What is added; None for nothing.
        family: Media types of the manifest and of all that it names. Docker's has no annotations of a manifest.
        annotations: What is said of the manifest, beside what the base says.

    Raises:
        UnrepresentableError: The family has no media type for a layer.
    """
    start = Manifest(config, ()) if base is None else base
    extended = replace(
        start,
        config=config,
        layers=start.layers if layer is None else (*start.layers, layer.descriptor),
        annotations=NO_TEXTS if family is Format.DOCKER else FrozenMapping({**start.annotations, **annotations}),
        extra=FrozenMapping({name: value for name, value in start.extra.items() if name != "subject"}),
    )
    return extended.in_format(family)


def squash_config(base: ImageConfig, count: int, diff_id: DiffID) -> ImageConfig:
    """Return the configuration whose last `count` layers have become one.

    The last of their steps keeps the layer, and those before are empty now, as `docker build --squash` tells of them.
    """
    kept = base.rootfs.diff_ids[:-count]
    history, layers = list[History](), 0
    for entry in base.history:
        layers += not entry.empty_layer
        is_merged = not entry.empty_layer and len(kept) < layers < len(base.rootfs.diff_ids)
        history.append(replace(entry, empty_layer=True) if is_merged else entry)
    return replace(base, rootfs=replace(base.rootfs, diff_ids=(*kept, diff_id)), history=tuple(history))


def first_layers(base: Manifest, count: int) -> Manifest:
    """Return the manifest with its first `count` layers; without any, it names no base image."""
    annotations = base.annotations
    if not count:
        annotations = FrozenMapping({key: text for key, text in annotations.items() if key not in _OF_BASE})
    return replace(base, layers=base.layers[:count], annotations=annotations)


def merge_exec(own: ExecConfig, base: ExecConfig) -> ExecConfig:
    """Fill what a configuration leaves open from another one, as `docker commit` does: spec commit-semantics section 8.

    Sets are joined. The base's command is kept if neither a command nor an entrypoint is given.
    """
    named = {entry.partition("=")[0] for entry in own.env}
    checked = {**base.healthcheck, **{name: value for name, value in own.healthcheck.items() if value}}
    return replace(
        own,
        user=own.user or base.user,
        exposed_ports=FrozenMapping({**base.exposed_ports, **own.exposed_ports}),
        env=(*own.env, *[entry for entry in base.env if entry.partition("=")[0] not in named]),
        entrypoint=own.entrypoint or base.entrypoint,
        cmd=own.cmd if own.cmd or own.entrypoint else base.cmd,
        volumes=FrozenMapping({**base.volumes, **own.volumes}),
        working_dir=own.working_dir or base.working_dir,
        labels=FrozenMapping({**base.labels, **own.labels}),
        stop_signal=own.stop_signal or base.stop_signal,
        healthcheck=FrozenMapping({name: checked[name] for name in (*_HEALTHCHECK, *checked) if name in checked}),
    )


def without_history(config: ImageConfig) -> ImageConfig:
    """The configuration, silent on how the image came about."""
    return replace(config, history=())


def recorded_layers(config: ImageConfig) -> int:
    """Return the number of layers that the history accounts for."""
    return sum(not entry.empty_layer for entry in config.history)


def _unrecorded_steps(config: ImageConfig) -> tuple[History, ...]:
    """Blank steps for layers without history, so that the next step is not taken for theirs."""
    return (History(),) * (len(config.rootfs.diff_ids) - recorded_layers(config))
