"""Image: a manifest and a configuration, read together. No writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ocidiff.errors import DocumentError, NotFoundError, UnsupportedError
from ocidiff.layer.layer import Layer
from ocidiff.oci import media_type
from ocidiff.oci.config import History, ImageConfig
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import NO_MEMBERS, NO_TEXTS
from ocidiff.oci.index import Index
from ocidiff.oci.manifest import Manifest
from ocidiff.oci.platform import Platform, best_match
from ocidiff.services.content import Provider
from ocidiff.sizes import size
from ocidiff.values import dataclass

# Real images have an index of manifests; some tools put one index into another.
_MAX_INDEX_DEPTH: Final = 4
# Platforms in a message.
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform.

    Attributes:
        name: The name it was asked for or stored under.
        descriptor: Of its manifest.
        manifest: Its layers.
        config: What it says about itself.
        layers: The layers that the call wrote, lowest first: that of the change, that of `upper`, and that of `additions`.
        seconds: Wall time of the call; 0 where nothing was done but reading.
    """

    name: str
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    layers: tuple[Layer, ...] = ()
    seconds: float = 0.0

    @property
    def layer(self) -> Layer | None:
        """The first of `layers`, which is the only one unless there is an `upper` or are `additions`; None for none."""
        return self.layers[0] if self.layers else None

    @property
    def config_digest(self) -> Digest:
        """The digest of the configuration, which some tools call the image ID."""
        return self.manifest.config.digest

    @property
    def size(self) -> int:
        """Bytes of manifest, configuration and layers as stored."""
        return sum(part.size for part in (self.descriptor, self.manifest.config, *self.manifest.layers))

    @property
    def digest(self) -> Digest:
        """The digest of the manifest."""
        return self.descriptor.digest

    def __repr__(self) -> str:
        layers = len(self.manifest.layers)
        return (
            f"<Image {self.name} {self.digest} {self.config.platform}, {layers} {'layer' if layers == 1 else 'layers'}, "
            f"{size(self.size)}>"
        )

    def to_dict(self) -> dict[str, object]:
        """Return the object that `commit --json` prints: the image, and the layers that the call wrote."""
        return {
            "name": self.name,
            "mediaType": self.descriptor.media_type,
            "digest": self.digest,
            "size": self.descriptor.size,
            "configDigest": self.config_digest,
            "layer": self.layer and self.layer.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "seconds": round(self.seconds, 6),
        }

    def documents(self) -> dict[str, object]:
        """Return its documents: `name`, `descriptor` (of the manifest), `manifest` and `config`."""
        return {
            "name": self.name,
            "descriptor": self.descriptor.document(),
            "manifest": self.manifest.document(),
            "config": self.config.document(),
        }

    def steps(self) -> list[tuple[History, Descriptor | None]]:
        """Return its history, the first step first, each with the layer that it added, if it added one.

        Layers that no step accounts for come last, with a blank step each.
        """
        layers = iter(self.manifest.layers)
        steps = [(step, None if step.empty_layer else next(layers, None)) for step in self.config.history]
        return [*steps, *((History(), layer) for layer in layers)]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One line of a listing.

    Attributes:
        name: Its name; None for an image without one.
        digest: Of its manifest or index, as the index of the store has it; None where it has none.
        created: RFC 3339 time; None when unknown.
        size: Bytes of manifest, configuration and layers as stored; None when the image cannot be read.
        platform: What it runs on; None when the image cannot be read.
        platforms: What all of its images run on, if it is for several platforms.
    """

    name: str | None
    digest: str | None
    created: str | None
    size: int | None
    platform: Platform | None
    platforms: tuple[Platform, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the object that `images --json` prints."""
        return {
            "name": self.name,
            "digest": self.digest,
            "created": self.created,
            "size": self.size,
            "platform": str(self.platform or "") or None,
            "platforms": list(map(str, self.platforms)),
        }


def read_image(content: Provider, name: str, descriptor: Descriptor, platform: Platform | None = None) -> Image:
    """The image that a descriptor leads to; out of an index, the one for `platform`, else for this machine.

    Raises:
        NotFoundError: A document is missing, or no image is for `platform`.
        DigestMismatchError: A document is not the one that was named.
        DocumentError: A document is malformed, or layers and diff_ids do not pair.
        UnsupportedError: It is something else than an image.
    """
    if descriptor.media_type not in media_type.INDEXES:
        image = read_manifest(content, name, descriptor)
        if platform is not None and image.config.platform.rank(platform) is None:
            raise NotFoundError(f"{name}: is for {image.config.platform}, not for {platform}")
        return image
    wanted = platform or Platform.of_machine()
    candidates = list(_candidates(content, name, descriptor))
    best = best_match([have for have, _ in candidates], wanted)
    if best is None:
        there = ", ".join(str(have) for have, _ in candidates[:_SHOWN]) or "nothing"
        raise NotFoundError(f"{name}: no image for {wanted}; there is {there}")
    return read_manifest(content, name, candidates[best][1])


def platforms_of(content: Provider, name: str, descriptor: Descriptor) -> tuple[Platform, ...]:
    """Return what the images of an index run on, each once; errors as in `manifests_of`."""
    return tuple(dict.fromkeys(platform for platform, _ in _candidates(content, name, descriptor)))


def manifests_of(content: Provider, name: str, descriptor: Descriptor) -> Iterator[Descriptor]:
    """Return the manifests that a descriptor leads to, also through indexes in an index; each once.

    Members that are not understood or of another kind are skipped.

    Raises:
        NotFoundError: The document of the descriptor itself is missing.
        DigestMismatchError, DocumentError: An index is not the one that was named, or malformed.
    """
    yield from _manifests_of(content, name, descriptor, {descriptor.digest}, 1)


def _manifests_of(
    content: Provider, name: str, descriptor: Descriptor, seen: set[Digest], depth: int
) -> Iterator[Descriptor]:
    if descriptor.media_type not in media_type.INDEXES:
        yield descriptor
        return
    if depth > _MAX_INDEX_DEPTH:
        raise DocumentError(f"{name}: indexes nest more than {_MAX_INDEX_DEPTH} deep")
    where = f"index {descriptor.digest}"
    for member in Index.parse(content.read(descriptor), descriptor.media_type, where).manifests:
        if member.digest in seen:
            continue
        seen.add(member.digest)
        # An image may be kept for some platforms only.
        is_index = member.media_type in media_type.INDEXES and content.contains(member.digest)
        if is_index or member.media_type in media_type.MANIFESTS:
            yield from _manifests_of(content, name, member, seen, depth + 1)


def read_manifest(content: Provider, name: str, descriptor: Descriptor) -> Image:
    """Return the image of a manifest; errors as in `read_image`."""
    if descriptor.media_type not in media_type.MANIFESTS:
        raise UnsupportedError(f"{name}: media type {descriptor.media_type[:100]!r} is not an image")
    manifest = Manifest.parse(content.read(descriptor), descriptor.media_type, f"manifest {descriptor.digest}")
    if manifest.config.media_type not in media_type.CONFIGS:
        raise UnsupportedError(f"{name}: media type {manifest.config.media_type[:100]!r} is not an image configuration")
    data = content.read(manifest.config)
    if data.strip() == b"{}":
        raise UnsupportedError(f"{name}: is an artifact, not an image: its configuration is empty")
    config = ImageConfig.parse(data, f"config {manifest.config.digest}")
    layers, diff_ids = len(manifest.layers), len(config.rootfs.diff_ids)
    if layers != diff_ids:
        raise DocumentError(f"{name}: the manifest has {layers} layers, the configuration {diff_ids} diff_ids")
    # The annotation that names an image in its index is not part of the image.
    return Image(name, replace(descriptor, annotations=NO_TEXTS, extra=NO_MEMBERS), manifest, config)


def _candidates(content: Provider, name: str, descriptor: Descriptor) -> Iterator[tuple[Platform, Descriptor]]:
    """The images of an index and of those in it, with what they run on."""
    for member in manifests_of(content, name, descriptor):
        platform = _stated(member)
        if platform is None and content.contains(member.digest):
            # One that is no image is not what was asked for.
            with suppress(DocumentError, UnsupportedError, NotFoundError):
                platform = read_manifest(content, name, member).config.platform
        if platform is not None:
            yield platform, member


def _stated(member: Descriptor) -> Platform | None:
    """Return the platform that an index tells of a member; None if it tells none that is understood."""
    try:
        platform = Platform.parse(member.extra.get("platform"), "platform")
    except DocumentError:
        return None
    return platform if platform.os and platform.architecture else None
