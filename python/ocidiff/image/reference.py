"""Reference: how users name images, and which name a layout gets. Spec: docs/decisions/0003-image-names-in-the-layout.md."""

from __future__ import annotations

import re
from typing import Final, Self

from ocidiff.errors import DocumentError, UsageError
from ocidiff.oci.digest import Digest
from ocidiff.values import dataclass

_DEFAULT_TAG: Final = "latest"
_DIGEST_PREFIX: Final = "sha256:"
_SHOWN: Final = 100
_MAX_LENGTH: Final = 255
# image-spec annotations.md allows `@` too; here it begins a digest. What this refuses, skopeo and podman refuse.
_COMPONENT: Final = r"[A-Za-z0-9]+(?:(?:[-._:+]|--)[A-Za-z0-9]+)*"
_NAME: Final = rf"{_COMPONENT}(?:/{_COMPONENT})*"


@dataclass(frozen=True, slots=True)
class Reference:
    """`NAME[:TAG]`, `NAME[:TAG]@DIGEST` or `DIGEST`.

    Attributes:
        name: Without tag; empty for a bare digest.
        tag: Empty when not given.
        digest: Of the manifest or index; None when not given.
    """

    name: str
    tag: str
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference that a text is.

        Raises:
            UsageError: It is none.
        """
        if text.startswith(_DIGEST_PREFIX) and "@" not in text:
            return cls("", "", _digest(text, text))
        name, at, digest_text = text.partition("@")
        digest = _digest(digest_text, text) if at else None
        if not re.fullmatch(_NAME, name) or len(name) > _MAX_LENGTH:
            raise UsageError(f"image {text[:_SHOWN]!r}: takes NAME, NAME:TAG, NAME@sha256:HEX or sha256:HEX")
        # A colon before a slash belongs to a port.
        stem, colon, tag = name.rpartition(":")
        return cls(stem, tag, digest) if colon and "/" not in tag else cls(name, "", digest)

    @property
    def stored_name(self) -> str:
        """The name in the layout's index: always with a tag."""
        return f"{self.name}:{self.tag or _DEFAULT_TAG}"

    def covers(self, stored_name: str) -> bool:
        """Whether a name in the index is one that this may mean, where a digest decides: any tag serves if none is given."""
        if self.tag:
            return stored_name == self.stored_name
        return stored_name == self.name or stored_name.rpartition(":")[0] == self.name


def name_to_give(text: str) -> str:
    """Return the name under which an image is stored that is called `text`.

    Raises:
        UsageError: It cannot be the name of an image.
    """
    reference = Reference.parse(text)
    if reference.digest is not None:
        raise UsageError(f"image {text!r}: a digest cannot be given as a name")
    return reference.stored_name


def _digest(text: str, reference: str) -> Digest:
    try:
        return Digest(text)
    except DocumentError as error:
        raise UsageError(f"image {reference[:_SHOWN]!r}: {error}") from None
