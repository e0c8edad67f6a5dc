"""Containers: a name for an active snapshot over an image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.options import LayerOptions
from ocidiff.mounts.mount import Mount
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import ChainID, Digest
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Committed:
    """The image that a container was committed as.

    Attributes:
        image: Name of the image.
        config: Digest of its configuration.
        chain_id: Chain ID of its layers, up to those of the container's change.
        layers: How many layers the change was written as, at most.
        options: What the layers were written with.
    """

    image: str
    config: Digest
    chain_id: ChainID
    layers: int
    options: LayerOptions


class Container(Protocol):
    """Facts of a container that every store knows."""

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

    @property
    def mount_point(self) -> str | None:
        """Its root directory; None while it is not mounted."""
        ...

    @property
    def unseen(self) -> str:
        """Why the host does not see its changes, and what to do about it; empty if it sees them."""
        ...

    @property
    def command(self) -> Sequence[str]:
        """Return the command of its process; empty if that is not known."""
        ...


class ContainerStore(Protocol):
    """Makes and finds containers, and keeps them as they are while they are read."""

    def check(self, name: str) -> None:
        """Refuse a name that a container cannot get.

        Raises:
            UsageError: It cannot be the name of a container.
            AlreadyExistsError: It is taken.
        """
        ...

    def put(self, name: str, image: str, manifest: Descriptor, config: Digest, driver: str, snapshot: str) -> Container:
        """Name an active snapshot as a container.

        Args:
            name: Its name.
            image: Name of the image that the snapshot grows on.
            manifest: Descriptor of the manifest of that image.
            config: Digest of the configuration of that image.
            driver: Name of the snapshotter.
            snapshot: Key of the snapshot.

        Raises:
            AlreadyExistsError: The name is taken.
            NotFoundError: A document of the image is missing.
        """
        ...

    def get(self, name: str) -> Container:
        """Return the container of that name.

        Raises:
            NotFoundError: There is no such container.
        """
        ...

    def still(self, name: str) -> AbstractContextManager[Container]:
        """Yield a container that nobody mounts, unmounts, commits or removes until the block ends.

        Raises:
            NotFoundError: There is no such container.
            InUseError: The container was removed in part.
        """
        ...

    def frozen(self, container: Container) -> AbstractContextManager[bool]:
        """Let no process of a container run until the block ends, in stores that run containers; yield True if one did."""
        ...

    def ids(self, container: Container, mounts: Sequence[Mount]) -> tuple[IdMaps, bool]:
        """Return what the ids of files are in a container, and True if its image's files have these already.

        Args:
            container: The container.
            mounts: Mounts of its snapshot.
        """
        ...

    def committed(self, container: Container, committed: Committed) -> None:
        """Let the tree of a container that is kept still be reused as a snapshot of what it was committed as.

        A store that cannot reuse it does nothing.
        """
        ...
