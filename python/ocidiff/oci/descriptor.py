"""Descriptor: how one document names another. Spec: image-spec descriptor.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ocidiff.oci.digest import Digest


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
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    extra: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
