"""Manifest and Index: what an image is made of, and which images there are. Spec: image-spec manifest.md, image-index.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Final, Self

from ocidiff.errors import DocumentError, UnsupportedError
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.encoding import NO_MEMBERS, NO_TEXTS, Members, in_key_order, indented, parse_object, present
from ocidiff.oci.media_type import Format
from ocidiff.values import dataclass

_SCHEMA_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class Manifest:
    """The configuration and the layers of one image.

    Attributes:
        config: Descriptor of the configuration.
        layers: Descriptors of the layers, base first.
        media_type: Media type of the manifest itself.
        annotations: Free text by key.
        extra: Other members (`subject`, `artifactType`, unknown ones), kept as they are.
    """

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = media_type.MANIFEST
    annotations: Mapping[str, str] = field(default_factory=lambda: NO_TEXTS)
    extra: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)

    @classmethod
    def parse(cls, data: bytes, expected: str, where: str) -> Self:
        """The manifest that a blob holds.

        Args:
            data: The blob.
            expected: Media type of the descriptor that led here.
            where: What is read, for messages.

        Raises:
            DocumentError: It is no manifest, is of another type than expected, or could be taken for an index too.
        """
        members = _members(data, expected, where, foreign="manifests")
        return cls(
            media_type=expected,
            config=members.one("config", Descriptor.parse),
            layers=members.each("layers", Descriptor.parse),
            annotations=members.text_map("annotations"),
            extra=members.rest(),
        )

    def in_format(self, family: Format) -> Self:
        """Return the manifest with all media types of one family; the blobs stay as they are.

        Raises:
            UnsupportedError: The family has no media type for a part of it.
        """
        return replace(
            self,
            media_type=media_type.counterpart(self.media_type, family) or self.media_type,
            config=_in_format(self.config, family),
            layers=tuple(_in_format(layer, family) for layer in self.layers),
        )

    def document(self) -> dict[str, object]:
        """The JSON object, members in Moby's order."""
        return {
            "mediaType": self.media_type,
            "schemaVersion": _SCHEMA_VERSION,
            "config": self.config.document(),
            "layers": [layer.document() for layer in self.layers],
            **present([("annotations", in_key_order(self.annotations))]),
            **self.extra,
        }

    def encode(self) -> bytes:
        """The bytes to store."""
        return indented(self.document())


@dataclass(frozen=True, slots=True)
class Index:
    """Descriptors of images: of one image for several platforms, or of all that a layout holds.

    Attributes:
        manifests: The descriptors, in order.
        media_type: Media type of the index itself; empty where the document does not say it.
        annotations: Free text by key.
        extra: Other members, kept as they are.
    """

    manifests: tuple[Descriptor, ...] = ()
    media_type: str = media_type.INDEX
    annotations: Mapping[str, str] = field(default_factory=lambda: NO_TEXTS)
    extra: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)

    @classmethod
    def parse(cls, data: bytes, expected: str, where: str) -> Self:
        """The index that a blob or `index.json` holds; arguments and errors as in `Manifest.parse`."""
        members = _members(data, expected, where, foreign="layers")
        return cls(
            media_type=expected,
            manifests=members.each("manifests", Descriptor.parse),
            annotations=members.text_map("annotations"),
            extra=members.rest(),
        )

    def document(self) -> dict[str, object]:
        """The JSON object, members in Go's order."""
        return {
            "schemaVersion": _SCHEMA_VERSION,
            "mediaType": self.media_type,
            "manifests": [manifest.document() for manifest in self.manifests],
            **present([("annotations", in_key_order(self.annotations))]),
            **self.extra,
        }

    def encode(self) -> bytes:
        """The bytes to store."""
        return indented(self.document())


def _in_format(descriptor: Descriptor, family: Format) -> Descriptor:
    kind = media_type.counterpart(descriptor.media_type, family)
    if kind is None:
        raise UnsupportedError(
            f"blob {descriptor.digest}: media type {descriptor.media_type[:100]!r}: the {family} format has none for it"
        )
    return descriptor if kind == descriptor.media_type else replace(descriptor, media_type=kind)


def _members(data: bytes, expected: str, where: str, *, foreign: str) -> Members:
    document = parse_object(data, where)
    if foreign in document:
        raise DocumentError(f"{where}: has {foreign!r}, so that it could be taken for another kind of document")
    members = Members(document, where)
    actual = members.text("mediaType")
    if actual not in ("", expected):
        members.fail("mediaType", f"is {actual[:100]!r}, expected {expected!r}")
    if members.size("schemaVersion") != _SCHEMA_VERSION:
        members.fail("schemaVersion", f"is not {_SCHEMA_VERSION}")
    return members
