"""Images: names for manifests and indexes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ocidiff.oci.descriptor import Descriptor
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A name and what it stands for.

    Attributes:
        name: The name; empty for an entry that has none.
        target: Descriptor of the manifest or index.
        labels: Labels of the name.
    """

    name: str
    target: Descriptor
    labels: Mapping[str, str]


class ImageStore(Protocol):
    """Names images."""

    def get(self, name: str) -> NamedImage:
        """Return the image of that name.

        Raises:
            NotFoundError: There is no such image.
            DocumentError: Several images have that name.
        """
        ...

    def list(self) -> list[NamedImage]:
        """Return all images, in the store's order."""
        ...

    def put(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> None:
        """Let `name` stand for `target` and nothing else. Everything that the image needs must be in the store.

        Raises:
            NotFoundError: A blob of the image is missing.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove a name; its image stays while other names lead to it.

        Raises:
            NotFoundError: There is no such image.
        """
        ...
