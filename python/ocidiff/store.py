"""Store: named images in a layout, and the use-cases commit and unpack on them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ocidiff.embedded.layout import Layout
from ocidiff.errors import UnsupportedError, UsageError
from ocidiff.layer.monitor import Cancellation, Monitor, ProgressCallback
from ocidiff.layer.options import ApplyOptions, Limits, OverlayMode
from ocidiff.oci.encoding import NO_TEXTS
from ocidiff.oci.media_type import Format
from ocidiff.oci.platform import Platform

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.containerd.open import Containerd
    from ocidiff.embedded.containers import Container, Containers
    from ocidiff.embedded.gc import Collected
    from ocidiff.embedded.verify import Verified
    from ocidiff.image.changes import ConfigChanges
    from ocidiff.image.compare import Changed, Comparison
    from ocidiff.image.image import Image, ImageRecord
    from ocidiff.layer.arguments import DiffArguments
    from ocidiff.layer.differ import Changes, Tree
    from ocidiff.layer.engine import Engine
    from ocidiff.layer.input import UpperTar
    from ocidiff.layer.layer import TreeIndex
    from ocidiff.layer.options import DiffOptions, EngineName
    from ocidiff.oci.config import History
    from ocidiff.oci.descriptor import Descriptor
    from ocidiff.output import Output
    from ocidiff.services import containers as services
    from ocidiff.services.bundle import Services
    from ocidiff.transport.copy import Copied
    from ocidiff.transport.place import Registry


class Store:
    """Images in a directory that is an OCI image layout, or in containerd. Safe from several threads and processes."""

    def __init__(self, home: Layout | Containerd) -> None:
        self._home = home

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = True) -> Self:
        """The store at `path`, to be closed, or used in a `with` block.

        Args:
            path: Its directory.
            create: Make it when it is missing or empty.

        Raises:
            FileNotFoundError: It is missing, and not to be made.
            DocumentError: The directory holds something else.
        """
        return cls(Layout.open(path, create=create))

    @classmethod
    def containerd(cls, address: str | None = None, namespace: str | None = None, *, snapshotter: str | None = None) -> Self:
        """Return the images and containers of a containerd, to be closed, or used in a `with` block.

        Needs the extra `ocidiff[containerd]`. containerd runs the containers and collects garbage, so that there is no
        `create`, `collect` and `verify`.

        Args:
            address: Path of its socket; None for `CONTAINERD_ADDRESS`, else /run/containerd/containerd.sock.
            namespace: Its namespace; None for `CONTAINERD_NAMESPACE`, else `default`.
            snapshotter: Where images of directories are unpacked; None for overlayfs. A container has its own.

        Raises:
            UsageError: The extra is not installed.
            OSError: Nobody listens at the socket, or this user may not connect.
            NotFoundError: There is no such namespace.
            UnsupportedError: containerd is too old.
        """
        from ocidiff.containerd.open import Containerd

        return cls(Containerd.open(address, namespace, snapshotter))

    def close(self) -> None:
        """Let go of the directory, or of the connection."""
        self._home.close()

    @property
    def _layout(self) -> Layout:
        """The directory, for what only a store in one does."""
        if isinstance(self._home, Layout):
            return self._home
        raise UnsupportedError("containerd: not supported here: create, mount, rm, gc and verify work on a local store only")

    def container(self, name: str) -> services.Container:
        """Return a container to commit: a working container, or one of containerd by its id or its name of nerdctl.

        Raises:
            NotFoundError: There is no such container, or its image was removed.
            UnsupportedError: The host cannot see what it has changed.
        """
        return self._services().containers.get(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def commit(
        self,
        source: Tree | UpperTar | services.Container,
        name: str,
        *,
        upper: UpperTar | None = None,
        base: str | None = None,
        lower: Tree | None = None,
        author: str | None = None,
        message: str | None = None,
        changes: ConfigChanges | Sequence[str] = (),
        additions: Sequence[str] = (),
        annotations: Mapping[str, str] = NO_TEXTS,
        format: str = Format.OCI,  # noqa: A002 - as the option is called
        created: str | None = None,
        created_by: str | None = None,
        omit_history: bool = False,
        platform: str | None = None,
        limits: Limits | None = None,
        pause: bool = True,
        options: DiffOptions | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
        **arguments: Unpack[DiffArguments],
    ) -> Image:
        """Store a directory or a working container as an image, and name it. A failure leaves every name as it was.

        Args:
            source: The directory, the container, or the tar of an overlay's upper directory over the base.
            name: `NAME` or `NAME:TAG`; an image of that name loses it.
            upper: What a container in a sandbox changed beyond its tree on disk, such as one of gVisor; a layer of its own.
            base: Image of this store to build on; None or `scratch` for none. A container has its own.
            lower: Directory that holds the tree of the base, or `index:` and the path of an index of it; None to unpack the
                base here for the time of the call. An index of other layers than those of the base is refused.
            author: Who did it; None for the author of the base.
            message: Comment in the history.
            changes: How the image is to be run: Dockerfile instructions as in `docker commit --change`, or `ConfigChanges`.
            additions: Files and directories of the host to add to the image in a layer of their own, each `SRC:DEST`. They
                belong to root, and replace what the tree has there.
            annotations: Of the manifest, added to those of the base.
            format: `oci` or `docker`: the media types of the manifest and of all that it names.
            created: RFC 3339 time; None for the source date epoch, or now.
            created_by: Command in the history; None for what a container of the base runs.
            omit_history: Leave out the history of the base, and this step.
            platform: `OS/ARCH[/VARIANT]`: which image of a base for several platforms, or what an image without base runs
                on; None for this machine.
            limits: What the layers of the base may not pass if it is unpacked; None for the defaults.
            pause: Stop the processes of a running container while its tree is read. They run on afterwards, also if this
                process is killed.
            options: What the layer shall be; None for the defaults.
            progress: Called with the counters a few times a second, first of unpacking the base, then of the diff.
            cancel: Stops the call.
            **arguments: The fields of `DiffOptions` by name, in place of `options`.

        Returns:
            The image. Its `layer` is None when nothing changed; it then has a history entry more, and no layer.

        Raises:
            UsageError: An argument is out of range, or they contradict each other.
            NotFoundError: There is no such base, or a part of it is missing.
            DocumentError: The base is malformed.
            ChangeTooLargeError: The layer is larger than `fail_above`.
            FileNotFoundError, NotADirectoryError: A tree is missing, or is no directory.
        """
        from ocidiff.image.changes import ConfigChanges
        from ocidiff.image.commit import Request, Step, commit, image_format
        from ocidiff.image.reference import name_to_give
        from ocidiff.image.source import check_source
        from ocidiff.layer.differ import engine_options
        from ocidiff.layer.engine import select_engine
        from ocidiff.layer.options import DiffOptions

        told = engine_options(DiffOptions.of(options, arguments))
        config_changes = ConfigChanges.of(changes)
        config_changes.check()
        request = Request(
            source=source,
            name=name_to_give(name),
            base=base,
            lower=lower,
            platform=_platform(platform),
            step=Step.of(author, message, created, created_by, omit_history=omit_history),
            changes=config_changes,
            annotations=annotations,
            family=image_format(format, told.compression, annotations),
            options=told,
            limits=limits or Limits(),
            additions=additions,
            upper=upper,
            pause=pause,
        )
        check_source(source, base, lower, told.ids, upper)
        selected, monitor = select_engine(told.engine), Monitor(progress, cancel)
        self._sweep()
        return commit(self._services(selected, monitor, told.overlay), request, engine=selected, monitor=monitor)

    def unpack(
        self,
        name: str,
        directory: str | os.PathLike[str],
        *,
        platform: str | None = None,
        same_owner: bool | None = None,
        index: Output | None = None,
        limits: Limits | None = None,
        engine: EngineName | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
    ) -> Image:
        """Write the root file system of an image into a directory. A call that fails leaves it as it was.

        Args:
            name: See `resolve`.
            directory: Missing, or empty.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            same_owner: See `ocidiff.apply`.
            index: Where an index of the tree goes too, as `output` of `ocidiff.index`; None for none. Where the tree keeps
                all that the layers say, it is the one that `Store.index` makes.
            limits: What the layers may not pass, bytes and entries of all together; None for the defaults.
            engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.
            progress: Called with the counters over all layers a few times a second.
            cancel: Stops the call.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            AlreadyExistsError: The directory is not empty.
            DigestMismatchError: A part of the image is not the one that is named.
        """
        from ocidiff.image import lookup
        from ocidiff.image.unpack import unpack
        from ocidiff.layer.engine import select_engine

        started = time.monotonic()
        selected, monitor = select_engine(engine), Monitor(progress, cancel)
        with self._reading(selected, monitor) as services:
            image = lookup.find_image(services, name, _platform(platform))
            unpack(
                services.content,
                image,
                os.fspath(directory),
                index=index,
                engine=selected,
                options=ApplyOptions(same_owner, limits=limits or Limits()),
                monitor=monitor,
            )
        return replace(image, seconds=time.monotonic() - started)

    def index(
        self,
        name: str,
        output: Output,
        *,
        platform: str | None = None,
        sha256: bool = False,
        limits: Limits | None = None,
        engine: EngineName | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
    ) -> TreeIndex:
        """Save what the tree of an image is, read from its layers, which are not unpacked; see `ocidiff.index`.

        Args:
            name: See `resolve`.
            output: Path of the index, which appears whole or not at all; or an open file, written from its position on.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            sha256: Give contents a sha256 beside the XXH3-128.
            limits: What the layers may not pass, bytes and entries of all together; None for the defaults.
            engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.
            progress: Called with the counters over all layers a few times a second.
            cancel: Stops the call.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            DigestMismatchError: A part of the image is not the one that is named.
        """
        from ocidiff.image import lookup
        from ocidiff.image.unpack import index_layers
        from ocidiff.layer.engine import select_engine
        from ocidiff.layer.layer import TreeIndex
        from ocidiff.output import open_output

        started = time.monotonic()
        selected, monitor = select_engine(engine), Monitor(progress, cancel)
        with self._reading(selected, monitor) as services, open_output(output) as sink:
            image = lookup.find_image(services, name, _platform(platform))
            done = index_layers(
                services.content, image, sink, engine=selected, sha256=sha256, limits=limits or Limits(), monitor=monitor
            )
        seconds = time.monotonic() - started
        return TreeIndex(done.digest, done.size, done.entries, done.file_bytes, seconds, done.skipped)

    def images(self) -> list[ImageRecord]:
        """What is in the store, in the order of its index; an image that cannot be read is listed without its facts."""
        from ocidiff.image import lookup

        return lookup.records(self._services())

    def inspect(self, name: str, *, platform: str | None = None) -> dict[str, object]:
        """The documents of an image: `name`, `descriptor` (of the manifest), `manifest` and `config`.

        Args:
            name: See `resolve`.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
        """
        from ocidiff.image import lookup

        return lookup.find_image(self._services(), name, _platform(platform)).documents()

    def history(self, name: str, *, platform: str | None = None) -> list[tuple[History, Descriptor | None]]:
        """The steps of an image, the first one first, each with the layer that it added, if it added one.

        Layers that no step accounts for come last, with a blank step each. Arguments as in `inspect`.
        """
        from ocidiff.image import lookup

        return lookup.find_image(self._services(), name, _platform(platform)).steps()

    def tag(self, name: str, new_name: str) -> Descriptor:
        """Give an image one name more; an image that has it loses it.

        Args:
            name: See `resolve`.
            new_name: `NAME` or `NAME:TAG`.

        Returns:
            The descriptor of its manifest or index.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            UsageError: The new name cannot be one.
        """
        from ocidiff.image.names import tag

        with self._working() as services:
            return tag(services, name, new_name)

    def untag(self, name: str) -> str:
        """Take a name away, also of what is no image. What only it needed goes with the next `collect`.

        Args:
            name: See `resolve`; a digest alone means the one name that leads there.

        Returns:
            The digest that the name stood for, as the index has it.

        Raises:
            NotFoundError: There is no such image.
            InUseError: The text is no name but a digest or its beginning, and several names lead there.
        """
        from ocidiff.image.names import untag

        return untag(self._services().images, name)

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
            upper: The same of the changed side.
            explain: Give the reason and the sizes of each change.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            limits: What the layers of an image may not pass; None for the defaults.
            options: How the trees are compared; None for the defaults. What concerns the blob has no effect.
            **arguments: The fields of `DiffOptions` by name, in place of `options`.

        Raises:
            NotFoundError: There is no such container or image.
        """
        from ocidiff.image.compare import Comparison
        from ocidiff.layer.differ import Changes
        from ocidiff.layer.engine import select_engine
        from ocidiff.layer.options import DiffOptions

        asked = DiffOptions.of(options, arguments)
        comparison = Comparison(asked.compared(), asked.ignore_file, asked.overlay, explain)
        found = self._changes(lower, upper, comparison, _platform(platform), limits or Limits(), select_engine(asked.engine))
        return Changes(found)

    def _changes(
        self,
        lower: Tree | services.Container,
        upper: Tree | None,
        comparison: Comparison,
        platform: Platform | None,
        limits: Limits,
        engine: Engine,
    ) -> Changed:
        from ocidiff.image.compare import changes_of_container, changes_of_images

        monitor = Monitor()
        with self._reading(engine, monitor) as services:
            if upper is None:
                container = services.containers.get(os.fspath(lower)) if isinstance(lower, str | os.PathLike) else lower
                return (yield from changes_of_container(services, container, comparison, engine=engine, monitor=monitor))
            if not isinstance(lower, str | os.PathLike):
                raise UsageError(f"container {lower.name}: is compared with its own image only")
            sides = (lower, upper, comparison)
            return (
                yield from changes_of_images(
                    services, *sides, platform=platform, limits=limits, engine=engine, monitor=monitor
                )
            )

    @property
    def containers(self) -> Containers:
        """The working containers."""
        from ocidiff.embedded.containers import Containers

        return Containers(self._layout)

    def create(
        self,
        image: str,
        name: str | None = None,
        *,
        driver: str | None = None,
        platform: str | None = None,
        limits: Limits | None = None,
        engine: EngineName | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
    ) -> Container:
        """Make a working container over an image, which is unpacked when this is the first one.

        Args:
            image: See `resolve`.
            name: 1 to 128 letters, digits, `_`, `.` and `-`; None for one that is made of the image's.
            driver: `overlay` or `directory`; None for overlay where it works.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            limits: What the layers may not pass, bytes and entries of all together; None for the defaults.
            engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.
            progress: Called with the counters of unpacking a few times a second.
            cancel: Stops the call.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            AlreadyExistsError: The name is taken.
            UsageError: The name or the driver cannot be one.
        """
        from ocidiff.image import lookup
        from ocidiff.image.create import create
        from ocidiff.layer.engine import select_engine

        monitor = Monitor(progress, cancel)
        with self._working(select_engine(engine), monitor) as services:
            found = lookup.find_image(services, image, _platform(platform))
            made = create(services, found, name, driver, limits=limits or Limits(), monitor=monitor)
        return self.containers.get(made.name)

    def collect(self, *, dry_run: bool = False) -> Collected:
        """Remove what nothing needs, and say how much it was; see `gc.collect`. A dry run only reads."""
        from ocidiff.embedded.gc import collect, estimate

        if dry_run:
            return estimate(self._layout)
        self._sweep()
        return collect(self._layout)

    def verify(
        self,
        *,
        repair: bool = False,
        limits: Limits | None = None,
        engine: EngineName | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
    ) -> Verified:
        """Read everything in the store again and compare it.

        Args:
            repair: Mend what can be mended.
            limits: What the layers of an image may not pass, as in `unpack`; None for the defaults.
            engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.
            progress: Called with the counters of each layer a few times a second.
            cancel: Stops the call.

        Returns:
            What was looked at, and every fault. What nothing refers to is none.
        """
        from ocidiff.embedded.verify import Verified, check_database, verify
        from ocidiff.layer.engine import select_engine

        selected, monitor = select_engine(engine), Monitor(progress, cancel)
        if repair:
            self._layout.require_writable()
        faults = check_database(self._layout, repair=repair)
        if not all(fault.repaired for fault in faults):
            # Without a database there is no lease, and nothing else can be judged.
            return Verified(0, 0, 0, 0, 0, tuple(faults))
        with self._reading(selected, monitor) as services:
            layout = self._layout if services.lease is None else self._layout.under(services.lease.id)
            verified = verify(layout, repair=repair, limits=limits or Limits(), engine=selected, monitor=monitor)
        return replace(verified, faults=(*faults, *verified.faults))

    def copy(
        self,
        source: str,
        target: str,
        *,
        containerd: Store | None = None,
        platform: str | None = None,
        everything: bool = False,
        registry: Registry | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
    ) -> Copied:
        """Copy an image from one place to another; plain names are in this store. See `ocidiff.copy`."""
        return copy(
            source,
            target,
            store=self,
            containerd=containerd,
            platform=platform,
            everything=everything,
            registry=registry,
            progress=progress,
            cancel=cancel,
        )

    def save(
        self,
        names: Sequence[str],
        output: Output,
        *,
        platform: str | None = None,
        everything: bool = False,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
    ) -> list[Copied]:
        """Write images into one archive that `docker load`, Podman and OCI tools read. The same images give the same bytes.

        Args:
            names: See `resolve`.
            output: Path of the archive, which appears whole or not at all; or an open file or pipe, written in one pass.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            everything: Write the images of all platforms, and what refers to them, such as signatures.
            progress: Called with the counters, blob by blob, a few times a second.
            cancel: Stops the call.

        Raises:
            UsageError: There are no names.
            NotFoundError: There is no such image, or a part of it is missing.
        """
        from ocidiff.output import naming, open_output
        from ocidiff.transport.archive.several import save

        if not names:
            raise UsageError("an archive holds one image at least")
        monitor = Monitor(progress, cancel)
        place = os.fsdecode(output) if isinstance(output, str | bytes | os.PathLike) else "archive"
        with naming(output), self.leased(monitor, writing=False) as services, open_output(output) as sink:
            return save(services, names, sink, place, platform=_platform(platform), everything=everything, monitor=monitor)

    def load(
        self,
        archive: str | os.PathLike[str],
        *,
        platform: str | None = None,
        everything: bool = False,
        limits: Limits | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
    ) -> list[Copied]:
        """Store the images of an archive under the names that they have in it. Nothing is unpacked.

        Args:
            archive: Path of an archive of OCI tools, `docker save` or Podman, also compressed; `-` for stdin.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            everything: Store the images of all platforms, and what refers to them, such as signatures.
            limits: What a compressed archive may not pass, bytes and ratio; None for the defaults.
            progress: Called with the counters, blob by blob, a few times a second.
            cancel: Stops the call.

        Raises:
            DocumentError: It is no archive of images, is malformed, or no image in it has a name.
            NotFoundError: A part of an image is missing.
            DigestMismatchError: A part of an image is not the one that is named.
        """
        from ocidiff.transport.archive.members import opened
        from ocidiff.transport.archive.several import load

        monitor = Monitor(progress, cancel)
        with (
            opened(os.fspath(archive), limits or Limits(), monitor) as members,
            self.leased(monitor, writing=True) as services,
        ):
            return load(services, members, platform=_platform(platform), everything=everything, monitor=monitor)

    def resolve(self, name: str) -> Descriptor:
        """The descriptor that a name stands for: of a manifest, or of an index for several platforms.

        Args:
            name: `NAME[:TAG]` (tag `latest` if none is given), `NAME[:TAG]@sha256:HEX`, `sha256:HEX`, or any name that
                another tool gave, as it is.

        Raises:
            NotFoundError: There is no such image.
            DocumentError: Several images have that name.
            UsageError: The text cannot be the name of an image.
        """
        from ocidiff.image import lookup

        return lookup.resolve(self._services(), name)

    def _services(
        self, engine: Engine | None = None, monitor: Monitor | None = None, overlay: OverlayMode = OverlayMode.AUTO
    ) -> Services:
        from ocidiff.layer.engine import select_engine

        if not isinstance(self._home, Layout):
            return self._home.services(engine or select_engine(None), overlay)
        from ocidiff.embedded.open import services_of

        return services_of(self._layout, engine or select_engine(None), monitor or Monitor(), overlay)

    def _sweep(self) -> None:
        """Remove what dead processes left."""
        if not isinstance(self._home, Layout):
            self._home.sweep()
            return
        from ocidiff.embedded.snapshotter import sweep_leftovers

        self._layout.require_writable()
        sweep_leftovers(self._layout)

    def leased(self, monitor: Monitor, *, writing: bool) -> AbstractContextManager[Services]:
        """Yield the services of the store, under a lease if it has any, for work that goes on between several calls."""
        from ocidiff.layer.engine import select_engine

        engine = select_engine(None)
        return self._working(engine, monitor) if writing else self._reading(engine, monitor)

    @contextmanager
    def _working(self, engine: Engine | None = None, monitor: Monitor | None = None) -> Iterator[Services]:
        """Yield the services under a lease."""
        self._sweep()
        with self._services(engine, monitor).leased() as services:
            yield services

    @contextmanager
    def _reading(self, engine: Engine, monitor: Monitor) -> Iterator[Services]:
        """Yield the services under a lease if there is a database; nothing was ever collected without one."""
        with ExitStack() as stack:
            services = self._services(engine, monitor)
            # A store that cannot be written to can be read.
            home = self._home
            if not isinstance(home, Layout) or (home.has_database() and home.refusal is None):
                services = stack.enter_context(self._working(engine, monitor))
            yield services


def copy(
    source: str,
    target: str,
    *,
    store: Store | None = None,
    containerd: Store | None = None,
    platform: str | None = None,
    everything: bool = False,
    registry: Registry | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> Copied:
    """Copy an image from one place to another. A failure leaves the name in the target as it was.

    Blobs that the target has are not copied. What an interrupted call brought is kept, and the next one goes on from there.

    Args:
        source: `NAME[:TAG]` in `store`, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`,
            `docker://HOST/REPO[:TAG][@DIGEST]` or `containerd:NAME`.
        target: The same.
        store: Where plain names are.
        containerd: Where names that begin with `containerd:` are; None for `Store.containerd()`.
        platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
        everything: Copy the images of all platforms, and what refers to them, such as signatures.
        registry: How registries are reached; None for the defaults.
        progress: Called with the counters, blob by blob, a few times a second.
        cancel: Stops the call.

    Raises:
        UsageError: A text is no name of a place, or `platform` and `everything` are both given.
        NotFoundError: There is no such image, or a part of it is neither in the source nor in the target.
        DigestMismatchError: A part of the image is not the one that is named.
    """
    from ocidiff.transport import copy as transport
    from ocidiff.transport.place import Access, Registry, open_source, open_target

    if everything and platform is not None:
        raise UsageError("platform: everything is copied, so that none can be chosen")
    monitor = Monitor(progress, cancel)
    access = Access(
        services=lambda scheme, writing: _leased(containerd if scheme else store, scheme, monitor, writing=writing),
        under_lease=lambda layout: Store(layout).leased(monitor, writing=True),
        registry=registry or Registry(),
    )
    with open_source(source, access) as found, open_target(target, access) as place:
        return transport.copy(found, place, platform=_platform(platform), everything=everything, monitor=monitor)


@contextmanager
def _leased(store: Store | None, scheme: str, monitor: Monitor, *, writing: bool) -> Iterator[Services]:
    """Yield the services of the store that names of a scheme are in."""
    with ExitStack() as stack:
        if store is None and not scheme:
            raise UsageError("a name without a scheme is in a store, and none is given")
        store = store or stack.enter_context(Store.containerd())
        yield stack.enter_context(store.leased(monitor, writing=writing))


def _platform(text: str | None) -> Platform | None:
    return None if text is None else Platform.of_text(text)
