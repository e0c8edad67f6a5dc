"""Places: where an image can be, and what a place promises to the one copy loop in `copy`.

A place is a module with two functions, listed in `scheme.MODULES` by the scheme of its names:

    open_source(scheme, value, access) -> context manager of a Source
    open_target(scheme, value, access) -> context manager of a Target

`value` is what follows the scheme. How `copy` uses a target, for those who write one:

1. `check`, with what will get the name.
2. `contains`, then `borrow`, then `ingest` or `write` for each blob, from at most `streams` threads at once. With
   `streams` = 1 all calls come from one thread, in an order that depends on the image alone: configuration, then layers.
3. `write` for each document (manifest, index), children before parents, after `contains`. `data` is stored byte for byte.
4. `attach` for each manifest that refers to another one by `subject`, after its `write`.
5. `put` once, at the end. A target that writes one file gives it its name then, and leaves nothing without it.
6. `origin` after that, of which the source takes note.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from ocidiff.layer.monitor import Monitor
from ocidiff.transport.scheme import MODULES, Registry, check_tags, split
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.embedded.layout import Layout
    from ocidiff.oci.descriptor import Descriptor
    from ocidiff.oci.digest import Digest
    from ocidiff.services.bundle import Services
    from ocidiff.services.content import Ingest, Provider

ORIGIN: Final = "containerd.io/distribution.source."
"""Begins the labels that say which repositories of a registry have a blob. Spec: containerd, its pulls and pushes."""


class Source(Protocol):
    """A place that an image is read from."""

    @property
    def place(self) -> str:
        """Its name, as users write it."""
        ...

    @property
    def content(self) -> Provider:
        """Its blobs and documents. A blob that is `seekable` can be read from any offset on."""
        ...

    def resolve(self) -> Descriptor:
        """Return what its name stands for: the descriptor of a manifest or an index, without the name in its annotations.

        Raises:
            NotFoundError: There is no such image.
        """
        ...

    def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return the manifests whose `subject` has this digest; none if the place keeps no such list."""
        ...

    def remember(self, digests: Sequence[Digest], label: str, repository: str) -> None:
        """Note that a repository has these blobs, if the place keeps such notes. Failing to do so does not fail the copy."""
        ...

    def stop(self) -> None:
        """Let what other threads wait for in this place fail soon."""
        ...


class Target(Protocol):
    """A place that an image is written to."""

    @property
    def place(self) -> str:
        """Its name, as users write it."""
        ...

    @property
    def streams(self) -> int:
        """Most blobs that it takes at once."""
        ...

    @property
    def accepts_parts(self) -> bool:
        """True if it takes an index some of whose images are missing."""
        ...

    @property
    def origin(self) -> tuple[str, str] | None:
        """The label that tells which repositories have a blob, and this repository; None for a place that is none."""
        ...

    def check(self, root: Descriptor) -> None:
        """Refuse an image that cannot get the name of this place, before anything is written.

        Raises:
            UsageError: The name has another digest.
        """
        ...

    def contains(self, descriptor: Descriptor, check: Callable[[], None]) -> bool:
        """True if the blob or document is there, so that it need not come. A damaged one in a directory comes again.

        Args:
            descriptor: The blob.
            check: Called while a blob is read; may raise.
        """
        ...

    def borrow(self, descriptor: Descriptor, labels: Mapping[str, str]) -> bool:
        """Take a blob from where the place has it already, such as another repository; False if that cannot be done.

        Args:
            descriptor: The blob.
            labels: Its labels in the source: `containerd.io/distribution.source.HOST` says which repositories have it.
        """
        ...

    def ingest(self, descriptor: Descriptor) -> Ingest:
        """Begin a blob, or go on with it where an earlier call was interrupted. `commit` verifies size and digest.

        Raises:
            BusyError: Somebody else is writing it.
        """
        ...

    def abort(self, descriptor: Descriptor) -> None:
        """Drop what was kept of a blob, since it turned out to be damaged."""
        ...

    def write(self, descriptor: Descriptor, data: bytes, labels: Mapping[str, str]) -> None:
        """Store a document, or a small blob. The bytes are verified already."""
        ...

    def attach(self, referrer: Descriptor, subject: Digest) -> None:
        """Let a manifest be found by the image that it refers to."""
        ...

    def put(self, descriptor: Descriptor) -> None:
        """Let the name of this place stand for the image. On disk when this returns.

        Raises:
            NotFoundError: A blob of the image is missing; no name has changed.
        """
        ...

    def stop(self) -> None:
        """Let what other threads wait for in this place fail soon."""
        ...


class BrokenTransferError(ConnectionError):
    """A connection ended while a blob was written; a new `ingest` goes on from its offset."""


@dataclass(frozen=True, slots=True)
class Access:
    """The context that opening a place needs.

    Attributes:
        services: Yields the services of the store of a scheme, under a lease; to write if the flag says so.
        under_lease: Yields the services of an open layout that is a store, under a lease.
        registry: How registries are reached.
        monitor: Sees what the call waits for, and stops it.
    """

    services: Callable[[str, bool], AbstractContextManager[Services]]
    under_lease: Callable[[Layout], AbstractContextManager[Services]]
    registry: Registry = Registry()
    monitor: Monitor = Monitor()


def open_source(text: str, access: Access) -> AbstractContextManager[Source]:
    """Return the place of that name, to read from.

    Raises:
        UsageError: The text is no name of a place.
    """
    scheme, value = split(text)
    return cast("AbstractContextManager[Source]", import_module(MODULES[scheme]).open_source(scheme, value, access))


def open_target(text: str, access: Access) -> AbstractContextManager[Target]:
    """Return the place of that name, to write to.

    Raises:
        UsageError: The text is no name of a place.
    """
    check_tags(text, access.registry)
    scheme, value = split(text)
    return cast("AbstractContextManager[Target]", import_module(MODULES[scheme]).open_target(scheme, value, access))
