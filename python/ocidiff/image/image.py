"""Image: a manifest and a configuration, read together. No writing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ocidiff.content.store import ContentStore
from ocidiff.errors import DocumentError, NotFoundError, UnsupportedError
from ocidiff.layer.layer import Layer
from ocidiff.oci import media_type
from ocidiff.oci.config import ImageConfig
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.manifest import Index, Manifest
from ocidiff.oci.platform import Platform, best_match
from ocidiff.values import dataclass

# Real images have an index of manifests; some tools put one index into another.
_MAX_INDEX_DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform.

    Attributes:
        name: The name it was asked for or stored under.
        descriptor: Of its manifest.
        manifest: Its layers.
        config: What it says about itself.
        layer: The layer that the call added; None when it added none.
        seconds: Wall time of the call; 0 where nothing was done but reading.
    """

    name: str
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    layer: Layer | None = None
    seconds: float = 0.0

    @property
    def config_digest(self) -> Digest:
        """The digest of the configuration, which some tools call the image ID."""
        return self.manifest.config.digest

    @property
    def size(self) -> int:
        """Bytes of manifest, configuration and layers as stored."""
        return sum(part.size for part in (self.descriptor, self.manifest.config, *self.manifest.layers))


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One line of a listing.

    Attributes:
        name: Its name; None for an image without one.
        digest: Of its manifest or index.
        created: RFC 3339 time; None when unknown.
        size: Bytes of manifest, configuration and layers as stored; None when the image cannot be read.
        platform: What it runs on; None when the image cannot be read.
    """

    name: str | None
    digest: Digest
    created: str | None
    size: int | None
    platform: Platform | None


def read_image(content: ContentStore, name: str, descriptor: Descriptor, platform: Platform | None = None) -> Image:
    """The image that a descriptor leads to; out of an index, the one for `platform`, else for this machine.

    Raises:
        NotFoundError: A document is missing, or no image is for `platform`.
        DigestMismatchError: A document is not the one that was named.
        DocumentError: A document is malformed, or layers and diff_ids do not pair.
        UnsupportedError: It is something else than an image.
    """
    if descriptor.media_type not in media_type.INDEXES:
        image = _read_single(content, name, descriptor)
        if platform is not None and image.config.platform.rank(platform) is None:
            raise NotFoundError(f"{name}: is for {image.config.platform}, not for {platform}")
        return image
    wanted = platform or Platform.of_machine()
    candidates = list(_candidates(content, name, descriptor, {descriptor.digest}))
    best = best_match([have for have, _ in candidates], wanted)
    if best is None:
        there = ", ".join(str(have) for have, _ in candidates) or "nothing"
        raise NotFoundError(f"{name}: no image for {wanted}; there is {there}")
    return _read_single(content, name, candidates[best][1])


def images_of(content: ContentStore, name: str, descriptor: Descriptor) -> Iterator[Image]:
    """All images that a descriptor leads to, also those that no platform is said of; errors as in `read_image`.

    Members of an index that are not there are passed over: an image may be kept for some platforms only.
    """
    yield from _images_of(content, name, descriptor, {descriptor.digest})


def _images_of(
    content: ContentStore, name: str, descriptor: Descriptor, seen: set[Digest], depth: int = 1
) -> Iterator[Image]:
    if descriptor.media_type not in media_type.INDEXES:
        yield _read_single(content, name, descriptor)
        return
    if depth > _MAX_INDEX_DEPTH:
        raise DocumentError(f"{name}: indexes nest more than {_MAX_INDEX_DEPTH} deep")
    where = f"index {descriptor.digest}"
    for entry in Index.parse(content.read(descriptor), descriptor.media_type, where).manifests:
        known = entry.media_type in media_type.INDEXES or entry.media_type in media_type.MANIFESTS
        if known and entry.digest not in seen and content.contains(entry.digest):
            seen.add(entry.digest)
            yield from _images_of(content, name, entry, seen, depth + 1)


def _read_single(content: ContentStore, name: str, descriptor: Descriptor) -> Image:
    if descriptor.media_type not in media_type.MANIFESTS:
        raise UnsupportedError(f"{name}: media type {descriptor.media_type!r} is no image")
    manifest = Manifest.parse(content.read(descriptor), descriptor.media_type, f"manifest {descriptor.digest}")
    if manifest.config.media_type not in media_type.CONFIGS:
        raise UnsupportedError(f"{name}: media type {manifest.config.media_type!r} is no image configuration")
    config = ImageConfig.parse(content.read(manifest.config), f"config {manifest.config.digest}")
    layers, diff_ids = len(manifest.layers), len(config.rootfs.diff_ids)
    if layers != diff_ids:
        raise DocumentError(f"{name}: the manifest has {layers} layers, the configuration {diff_ids} diff_ids")
    # What names an image within its index is no part of the image.
    return Image(name, replace(descriptor, annotations={}, extra={}), manifest, config)


def _candidates(
    content: ContentStore, name: str, descriptor: Descriptor, seen: set[Digest], depth: int = 1
) -> Iterator[tuple[Platform, Descriptor]]:
    """The images of an index and of those in it, with what they run on."""
    if depth > _MAX_INDEX_DEPTH:
        raise DocumentError(f"{name}: indexes nest more than {_MAX_INDEX_DEPTH} deep")
    where = f"index {descriptor.digest}"
    for entry in Index.parse(content.read(descriptor), descriptor.media_type, where).manifests:
        if entry.digest in seen:
            continue
        seen.add(entry.digest)
        if entry.media_type in media_type.INDEXES:
            yield from _candidates(content, name, entry, seen, depth + 1)
        elif entry.media_type in media_type.MANIFESTS:
            stated = entry.extra.get("platform")
            if stated is not None:
                yield Platform.parse(stated, f"{where}: platform"), entry
            elif content.contains(entry.digest):
                yield _read_single(content, name, entry).config.platform, entry
