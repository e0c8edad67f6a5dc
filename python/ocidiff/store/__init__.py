"""Store: named images in a directory or in containerd. It forwards to the use-cases in `image/`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ocidiff.errors import OcidiffError
from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Cancellation, Monitor, ProgressCallback
from ocidiff.services.home import reading, working
from ocidiff.store.call import call, platform_of

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.image.arguments import CommitArguments
    from ocidiff.image.commit import Review
    from ocidiff.image.image import Image, ImageRecord
    from ocidiff.image.request import Request
    from ocidiff.image.rootfs import ImagePath
    from ocidiff.layer.arguments import CallArguments, DiffArguments
    from ocidiff.layer.differ import Changes
    from ocidiff.layer.engine import Engine
    from ocidiff.layer.input import UpperTar
    from ocidiff.layer.layer import Change, TreeIndex
    from ocidiff.layer.operand import Tree
    from ocidiff.layer.options import DiffOptions
    from ocidiff.oci.config import History
    from ocidiff.oci.descriptor import Descriptor
    from ocidiff.output import Output
    from ocidiff.report.survey import Survey
    from ocidiff.services import containers as services
    from ocidiff.services.bundle import Services
    from ocidiff.services.home import Home
    from ocidiff.store.copy import CopyArguments, TransportArguments
    from ocidiff.store.embedded import EmbeddedStore
    from ocidiff.transport.copy import Copied
    from ocidiff.transport.scheme import Registry


class Store:
    """Images in a directory or in containerd. Safe from several threads and processes; used in a `with` block, or closed."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = True) -> EmbeddedStore:
        """Open the store in a directory, which is an OCI image layout.

        Args:
            path: The directory.
            create: Make it if it is missing or empty.

        Raises:
            FileNotFoundError: It is missing, and `create` is False.
            DocumentError: The directory holds something else.
        """
        from ocidiff.embedded.open import Embedded
        from ocidiff.store.embedded import EmbeddedStore

        return EmbeddedStore(Embedded.open(path, create=create))

    @classmethod
    def containerd(
        cls,
        address: str | None = None,
        namespace: str | None = None,
        *,
        snapshotter: str | None = None,
        cache: str | None = None,
        cache_bytes: int | None = None,
    ) -> Self:
        """Connect to a containerd, which runs the containers and collects garbage itself.

        Args:
            address: Path of its socket; None for `CONTAINERD_ADDRESS`, else /run/containerd/containerd.sock.
            namespace: Its namespace; None for `CONTAINERD_NAMESPACE`, else `default`.
            snapshotter: Snapshotter for images of directories; None for overlayfs. A container has its own.
            cache: Directory of tables from which a commit copies compressed segments of older layers; None for
                `OCIDIFF_CACHE_DIR`, else /var/cache/ocidiff for root and `XDG_CACHE_HOME`/ocidiff for others.
            cache_bytes: Bytes that it takes at most; None for 1 GiB.

        Raises:
            UsageError: The extra `ocidiff[containerd]` is not installed.
            OSError: Nobody listens at the socket, or this user may not connect.
            NotFoundError: There is no such namespace.
            UnsupportedError: containerd is too old.
        """
        from ocidiff.containerd.open import Containerd

        return cls(Containerd.open(address, namespace, snapshotter, cache, cache_bytes))

    def close(self) -> None:
        """Close the directory or the connection."""
        self._home.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._home.place}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def commit(
        self,
        source: Tree | UpperTar | services.Container,
        name: str,
        *,
        options: DiffOptions | None = None,
        registry: Registry | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
        **arguments: Unpack[CommitArguments],
    ) -> Image:
        """Store a directory or a container as an image, and name it. A failure leaves every name as it was.

        Args:
            source: The directory, the container, or the tar of an overlay's upper directory over the base.
            name: `NAME` or `NAME:TAG`. An image that has this name loses it. Or another place, as in `ocidiff.copy`: then
                the image gets no name here, and the next collection frees its blobs.
            options: Options of the layer; None for the defaults.
            registry: How registries are reached; None for the defaults.
            progress: Called with the counters a few times a second, first of unpacking the base, then of the diff.
            cancel: Stops the call.
            **arguments: See `CommitArguments`: `base`, `message`, `changes` and others; and the fields of `DiffOptions` by
                name, in place of `options`.

        Returns:
            The image. Its `layers` are those that the call wrote: none if nothing changed, which is an entry of the history.

        Raises:
            UsageError: An argument is out of range, or arguments contradict each other.
            NotFoundError: There is no such base, or a part of it is missing.
            DocumentError: The base is malformed.
            ChangeTooLargeError: The layer is larger than `fail_above`.
            ForbiddenContentError: The new layers hold what `deny` names; the message names the paths.
            FileNotFoundError, NotADirectoryError: A tree is missing, or is not a directory.
        """
        from ocidiff.image.commit import commit

        monitor = Monitor(progress, cancel)
        with self._requested(source, name, options, registry, monitor, arguments) as (found, request, engine):
            return commit(found, request, engine=engine, monitor=monitor, review=_review(request, engine, monitor))

    @contextmanager
    def _requested(
        self,
        source: Tree | UpperTar | services.Container,
        name: str,
        options: DiffOptions | None,
        registry: Registry | None,
        monitor: Monitor,
        arguments: CommitArguments,
    ) -> Iterator[tuple[Services, Request, Engine]]:
        """Yield what a commit works on, with the places that it needs opened."""
        from ocidiff.image.request import Request
        from ocidiff.layer.engine import select_engine
        from ocidiff.transport.scheme import check_tags, is_plain

        if registry is not None:
            check_tags(name, registry)
        there = None
        with ExitStack() as stack:
            if not all(map(is_plain, (name, arguments.get("base") or ""))):
                from ocidiff.store.publish import elsewhere

                there = stack.enter_context(elsewhere(self, name, arguments, registry, monitor))
            try:
                request = Request.of(source, name, options, there, **arguments)
            except FileNotFoundError as error:
                if isinstance(source, str) and error.filename == source and self._has_container(source):
                    error.add_note(f"for the container of that name, give container({source!r})")
                raise
            engine = select_engine(request.options.engine)
            self._home.sweep()
            yield self._home.services(engine, monitor, request.options.overlay), request, engine

    def preview(
        self,
        source: Tree | UpperTar | services.Container,
        name: str,
        take: Callable[[Change], None],
        *,
        options: DiffOptions | None = None,
        registry: Registry | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
        **arguments: Unpack[CommitArguments],
    ) -> Mapping[str, int]:
        """Give the changes that `commit` would store to `take`, in layer order, each explained. No image is stored.

        Arguments and errors as in `commit`. Returns how much is left out, by reason.
        """
        from ocidiff.image.preview import preview

        monitor = Monitor(progress, cancel)
        with self._requested(source, name, options, registry, monitor, arguments) as (found, request, engine):
            return preview(found, request, take, engine=engine, monitor=monitor)

    def _has_container(self, name: str) -> bool:
        try:
            self.container(name)
        except (OcidiffError, OSError):
            return False
        return True

    def unpack(
        self,
        name: str,
        directory: str | os.PathLike[str],
        *,
        platform: str | None = None,
        same_owner: bool | None = None,
        index: Output | None = None,
        **arguments: Unpack[CallArguments],
    ) -> Image:
        """Write the root file system of an image into a directory, which is missing or empty. A failure leaves it as it was.

        Args:
            name: See `resolve`.
            directory: Path of the directory.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            same_owner: See `ocidiff.apply`.
            index: Where an index of the tree goes too, as `output` of `ocidiff.index`; None for none. It equals that of
                `Store.index` if the tree keeps all that the layers say.
            **arguments: See `CallArguments`.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            AlreadyExistsError: The directory is not empty.
            DigestMismatchError: A part of the image has another digest than its name says.
        """
        from ocidiff.image.lookup import find_image
        from ocidiff.image.unpack import unpack

        started = time.monotonic()
        engine, monitor, limits = call(**arguments)
        options = ApplyOptions(same_owner, limits=limits)
        with reading(self._home, engine, monitor) as found:
            image, target = find_image(found, name, platform_of(platform)), os.fspath(directory)
            unpack(found.content, image, target, index=index, engine=engine, options=options, monitor=monitor)
        return replace(image, seconds=time.monotonic() - started)

    def index(
        self,
        name: str,
        output: Output,
        *,
        platform: str | None = None,
        sha256: bool = False,
        **arguments: Unpack[CallArguments],
    ) -> TreeIndex:
        """Save an index of the tree of an image, read from its layers without unpacking them.

        Args:
            name: See `resolve`.
            output: See `ocidiff.index`.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            sha256: See `ocidiff.index`.
            **arguments: See `CallArguments`.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            DigestMismatchError: A part of the image has another digest than its name says.
        """
        from ocidiff.image.lookup import find_image
        from ocidiff.image.unpack import index_layers
        from ocidiff.output import open_output

        started = time.monotonic()
        engine, monitor, limits = call(**arguments)
        with reading(self._home, engine, monitor) as found, open_output(output) as sink:
            image = find_image(found, name, platform_of(platform))
            done = index_layers(found.content, image, sink, engine=engine, sha256=sha256, limits=limits, monitor=monitor)
        return done.timed(time.monotonic() - started)

    def changes(
        self,
        lower: Tree | services.Container,
        upper: Tree | None = None,
        *,
        explain: bool = True,
        platform: str | None = None,
        limits: Limits | None = None,
        options: DiffOptions | None = None,
        **arguments: Unpack[DiffArguments],
    ) -> Changes:
        """List what changed in a container, or between two images, lazily; options and errors as in `ocidiff.changes`.

        Args:
            lower: A container, or its name, if there is no `upper`. Otherwise the name of an image; or a tree: a path
                object, `scratch`, `index:FILE`, or a text that begins with a dot or a slash.
            upper: The changed side, likewise.
            explain: Give the reason and the sizes of each change.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            limits: Limits of the layers of each image; None for the defaults.
            options: How the trees are compared; None for the defaults. Options of the blob have no effect.
            **arguments: The fields of `DiffOptions` by name, in place of `options`.

        Raises:
            NotFoundError: There is no such container or image.
        """
        from ocidiff.image.compare import Comparison, changes_in
        from ocidiff.layer.differ import Changes
        from ocidiff.layer.options import DiffOptions

        comparison = Comparison.of(DiffOptions.of(options, arguments), explain=explain)
        sides, bounds = (lower, upper), limits or Limits()
        return Changes(changes_in(self._home, *sides, comparison, platform=platform_of(platform), limits=bounds))

    def copy(self, source: str, target: str, **arguments: Unpack[CopyArguments]) -> Copied:
        """Copy an image from one place to another; plain names are in this store. See `ocidiff.copy`."""
        from ocidiff.store.copy import copy

        return copy(source, target, store=self, **arguments)

    def save(self, names: Sequence[str], output: Output, **arguments: Unpack[TransportArguments]) -> list[Copied]:
        """Write images into one archive that `docker load`, Podman and OCI tools read. The same images give the same bytes.

        Args:
            names: See `resolve`.
            output: Path of the archive, which appears whole or not at all; or an open file or pipe, written in one pass.
            **arguments: See `TransportArguments`.

        Raises:
            UsageError: There are no names.
            NotFoundError: There is no such image, or a part of it is missing.
        """
        from ocidiff.store.archives import save

        return save(self, names, output, **arguments)

    def load(
        self, archive: str | os.PathLike[str], *, limits: Limits | None = None, **arguments: Unpack[TransportArguments]
    ) -> list[Copied]:
        """Store the images of an archive under the names that they have in it. Nothing is unpacked.

        Args:
            archive: Path of an archive of OCI tools, `docker save` or Podman, also compressed; `-` for stdin.
            limits: Limits of a compressed archive, bytes and ratio; None for the defaults.
            **arguments: See `TransportArguments`.

        Raises:
            DocumentError: It is no archive of images, is malformed, or no image in it has a name.
            NotFoundError: A part of an image is missing.
            DigestMismatchError: A part of an image has another digest than its name says.
        """
        from ocidiff.store.archives import load

        return load(self, archive, limits or Limits(), **arguments)

    def container(self, name: str) -> services.Container:
        """Return a container to commit: a working container, or one of containerd by its id or its nerdctl name.

        Raises:
            NotFoundError: There is no such container, or its image was removed.
            UnsupportedError: The host cannot see its changes.
        """
        return self._services().containers.get(name)

    def resolve(self, name: str) -> Descriptor:
        """Return the descriptor of the manifest, or of the index for several platforms, that has this name.

        Args:
            name: `NAME[:TAG]` (tag `latest` if none is given), `NAME[:TAG]@sha256:HEX`, `sha256:HEX`, or any name that
                another tool gave.

        Raises:
            NotFoundError: There is no such image.
            DocumentError: Several images have that name.
            UsageError: The text cannot be the name of an image.
        """
        from ocidiff.image.lookup import resolve

        return resolve(self._services(), name)

    def images(self) -> list[ImageRecord]:
        """Return the images in the order of the index; an image that cannot be read has no size and no platform."""
        from ocidiff.image.lookup import records

        return records(self._services())

    def inspect(self, name: str, *, platform: str | None = None) -> dict[str, object]:
        """Return the documents of an image: `name`, `descriptor` (of the manifest), `manifest` and `config`."""
        return self._image(name, platform).documents()

    @contextmanager
    def rootfs(self, name: str, *, platform: str | None = None, **arguments: Unpack[CallArguments]) -> Iterator[ImagePath]:
        """Yield the root of an image, whose files are read without unpacking it, until the block ends.

        All layers are read once and verified, and memory is taken for every name. A compressed layer is decompressed into a
        nameless file in the store, as large as its tar; reading a file then decompresses nothing.

        Args:
            name: See `resolve`.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            **arguments: See `CallArguments`.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            DigestMismatchError: A part of the image has another digest than its name says.
        """
        from ocidiff.image.lookup import find_image
        from ocidiff.image.rootfs import open_rootfs

        engine, monitor, limits = call(**arguments)
        with reading(self._home, engine, monitor) as found:
            image = find_image(found, name, platform_of(platform))
            # A store without a lease is read only.
            spool = None if found.lease is None else found.content.spool
            with open_rootfs(found.content, image, spool, engine=engine, limits=limits, monitor=monitor) as root:
                yield root

    def report(
        self, image: str | Image, output: Output, *, platform: str | None = None, **arguments: Unpack[CallArguments]
    ) -> Survey:
        """Write an HTML page on what takes the space of an image, what of it is wasted, and what should not be there.

        Args:
            image: The result of `commit`, or a name as in `resolve`.
            output: Path of the page, which appears whole or not at all; or an open file.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            **arguments: See `CallArguments`.

        Returns:
            What the page tells. Errors as in `rootfs`.
        """
        from ocidiff.store.report import report

        return report(self._home, image, output, platform, **arguments)

    def history(self, name: str, *, platform: str | None = None) -> list[tuple[History, Descriptor | None]]:
        """Return the history of an image, oldest first, each entry with its layer, if it has one.

        Layers without an entry come last, each with a blank one.
        """
        return self._image(name, platform).steps()

    def tag(self, name: str, new_name: str) -> Descriptor:
        """Give an image another name, `NAME` or `NAME:TAG`, and return its descriptor. An image that has this name loses it.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            UsageError: The new name is invalid.
        """
        from ocidiff.image.names import tag

        engine, monitor, _ = call()
        with working(self._home, engine, monitor) as found:
            return tag(found, name, new_name)

    def untag(self, name: str) -> str:
        """Remove a name, even if its image cannot be read. The next `collect` frees what only this image needed.

        Args:
            name: See `resolve`; a digest alone stands for the one name of its image.

        Returns:
            The digest that had the name, as it stands in the index.

        Raises:
            NotFoundError: There is no such image.
            InUseError: `name` is a digest or its beginning, and its image has several names.
        """
        from ocidiff.image.names import untag

        return untag(self._services().images, name)

    def leased(self, monitor: Monitor, *, writing: bool) -> AbstractContextManager[Services]:
        """Yield the services of the store, under a lease if it has any, for work that goes on between several calls."""
        engine, _, _ = call()
        return (working if writing else reading)(self._home, engine, monitor)

    def _image(self, name: str, platform: str | None) -> Image:
        from ocidiff.image.lookup import find_image

        return find_image(self._services(), name, platform_of(platform))

    def _services(self) -> Services:
        engine, monitor, _ = call()
        return self._home.services(engine, monitor)


def _review(request: Request, engine: Engine, monitor: Monitor) -> Review | None:
    """Return what looks at the image before it gets its name; None for nothing."""
    if not request.deny:
        return None
    from ocidiff.report.findings import deny

    return lambda services, image: deny(services.content, image, engine=engine, monitor=monitor)
