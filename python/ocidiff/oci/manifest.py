"""Manifest: what an image is made of. Spec: image-spec manifest.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Self

from ocidiff.errors import UnrepresentableError
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.encoding import (
    NO_MEMBERS,
    NO_TEXTS,
    SCHEMA_VERSION,
    in_key_order,
    indented,
    members_of_kind,
    parse_object,
    present,
)
from ocidiff.oci.media_type import Format
from ocidiff.values import dataclass


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
        members = members_of_kind(parse_object(data, where), expected, where, foreign="manifests")
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
            UnrepresentableError: The family has no media type for a part of it.
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
            "schemaVersion": SCHEMA_VERSION,
            "config": self.config.document(),
            "layers": [layer.document() for layer in self.layers],
            **present([("annotations", in_key_order(self.annotations))]),
            **self.extra,
        }

    def encode(self) -> bytes:
        """The bytes to store."""
        return indented(self.document())


def _in_format(descriptor: Descriptor, family: Format) -> Descriptor:
    kind = media_type.counterpart(descriptor.media_type, family)
    if kind is None:
        raise UnrepresentableError(
            f"blob {descriptor.digest}: media type {descriptor.media_type[:100]!r}: the {family} format has none for it"
        )
    return descriptor if kind == descriptor.media_type else replace(descriptor, media_type=kind)
