"""Descriptor: how one document names another. Spec: image-spec descriptor.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final, Self

from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import NO_MEMBERS, NO_TEXTS, Members, in_key_order, present
from ocidiff.values import dataclass

_BEFORE_ANNOTATIONS: Final = ("urls",)
_AFTER_ANNOTATIONS: Final = ("data", "platform", "artifactType")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Type, digest and size of a blob, and what its author says of it.

    Attributes:
        media_type: Media type of the blob.
        digest: Its digest.
        size: Its length in bytes.
        annotations: Free text by key.
        extra: Other members of the JSON object (`urls`, `data`, `platform`, unknown ones), kept as they are.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: NO_TEXTS)
    extra: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """The descriptor that a JSON value is.

        Raises:
            DocumentError: It is none.
        """
        members = Members(value, where)
        return cls(
            media_type=members.required_text("mediaType"),
            digest=members.one("digest", Digest.parse),
            size=members.size("size"),
            annotations=members.text_map("annotations"),
            extra=members.rest(),
        )

    def __repr__(self) -> str:
        more = [f"{name}={value!r}" for name, value in (("annotations", self.annotations), ("extra", self.extra)) if value]
        facts = [f"media_type={self.media_type!r}", f"digest={self.digest!r}", f"size={self.size}", *more]
        return f"Descriptor({', '.join(facts)})"

    def document(self) -> dict[str, object]:
        """The JSON object, members in Go's order, unknown ones last."""
        extra = dict(self.extra)
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            **{name: extra.pop(name) for name in _BEFORE_ANNOTATIONS if name in extra},
            **present([("annotations", in_key_order(self.annotations))]),
            **{name: extra.pop(name) for name in _AFTER_ANNOTATIONS if name in extra},
            **extra,
        }
