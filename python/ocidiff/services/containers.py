"""Containers: a name for an active snapshot over an image."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from ocidiff.oci.descriptor import Descriptor


class StoredContainer(Protocol):
    """What every store knows of a container."""

    @property
    def name(self) -> str:
        """Its name or id."""
        ...

    @property
    def image(self) -> str:
        """Name of the image that it was made from."""
        ...

    @property
    def manifest(self) -> Descriptor:
        """Descriptor of the manifest of that image."""
        ...

    @property
    def driver(self) -> str:
        """Name of the snapshotter that holds its tree."""
        ...

    @property
    def snapshot(self) -> str:
        """Key of its snapshot."""
        ...


class ContainerStore(Protocol):
    """Finds containers, and keeps them as they are while they are read."""

    def get(self, name: str) -> StoredContainer:
        """Return the container of that name.

        Raises:
            NotFoundError: There is no such container.
        """
        ...

    def still(self, name: str) -> AbstractContextManager[StoredContainer]:
        """Yield a container that nobody mounts, unmounts, commits or removes until the block ends; errors as in `get`."""
        ...
