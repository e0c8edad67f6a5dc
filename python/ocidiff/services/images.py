"""Images: names for manifests and indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ocidiff.errors import UnsupportedError
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.index import Entry


class ImageStore(Protocol):
    """Names images."""

    @property
    def place(self) -> str:
        """Path or address of the store, for messages."""
        ...

    def list(self) -> Sequence[Entry]:
        """Return all entries in the store's order, also those that have no name or are not understood."""
        ...

    def entry(self, name: str) -> Entry:
        """Return the entry of that name.

        Raises:
            NotFoundError: There is no such image.
            DocumentError: Several images have that name.
        """
        ...

    def spelling(self, name: str) -> str:
        """Return how this store writes the name that an image is to have."""
        ...

    def put(self, name: str, target: Descriptor) -> None:
        """Let `name` stand for `target` and nothing else. On disk when this returns.

        Raises:
            NotFoundError: A blob of the image is missing, or the lease has ended; no name has changed.
        """
        ...

    def put_all(self, targets: Mapping[str, Descriptor]) -> None:
        """Let each name stand for its target, as `put` does, at a cost that grows with their number alone."""
        ...

    def drop(self, entry: Entry) -> None:
        """Remove an entry; its image stays while other names lead to it."""
        ...


def understood(entry: Entry) -> Descriptor:
    """Return the descriptor of an entry.

    Raises:
        UnsupportedError: The entry is not understood.
    """
    if entry.descriptor is None:
        raise UnsupportedError(f"image {entry.name or entry.digest or '-'}: {entry.problem}")
    return entry.descriptor
