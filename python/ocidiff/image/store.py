"""Store: named images in a layout, and the use-cases commit and unpack on them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from ocidiff.content.layout import REF_NAME, Layout
from ocidiff.errors import (
    DigestMismatchError,
    DocumentError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from ocidiff.image import commit as commit_tree
from ocidiff.image import unpack as unpack_tree
from ocidiff.image.image import Image, ImageRecord, read_image
from ocidiff.image.reference import Reference
from ocidiff.layer.differ import SCRATCH, Tree, layer_options, lower_path, tree_path
from ocidiff.layer.engine import Engine, select_engine
from ocidiff.layer.layer import ApplyOptions, Cancellation, Compression, Monitor, Profile, ProgressCallback
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import parse_object
from ocidiff.oci.platform import Platform
from ocidiff.oci.timestamp import is_timestamp

_KINDS: Final = media_type.MANIFESTS | media_type.INDEXES


class Store:
    """Images in a directory that is an OCI image layout. Safe from several threads and processes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

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

    def close(self) -> None:
        """Let go of the directory."""
        self._layout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def commit(
        self,
        source: Tree,
        name: str,
        *,
        base: str | None = None,
        lower: Tree | None = None,
        author: str | None = None,
        message: str | None = None,
        created: str | None = None,
        created_by: str = commit_tree.CREATED_BY,
        omit_history: bool = False,
        compression: str = Compression.GZIP,
        level: int | None = None,
        threads: int = 0,
        profile: str = Profile.OCI,
        source_date_epoch: int | None = None,
        platform: str | None = None,
        engine: str | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
    ) -> Image:
        """Store a directory as an image, and name it. A commit that fails leaves every name as it was.

        Args:
            source: The directory.
            name: `NAME` or `NAME:TAG`; an image of that name loses it.
            base: Image of this store to build on; None or `scratch` for none.
            lower: Directory that holds the tree of the base; None to unpack the base here for the time of the call.
            author: Who did it; None for the author of the base.
            message: Comment in the history.
            created: RFC 3339 time; None for the source date epoch, or now.
            created_by: Command in the history.
            omit_history: Leave out the history of the base, and this step.
            compression: See `ocidiff.diff`, here and below.
            level: Of the compressor.
            threads: Worker threads.
            profile: Which rules decide.
            source_date_epoch: Bound of modification times, and time of the commit.
            platform: `OS/ARCH[/VARIANT]`: which image of a base for several platforms, or what an image without base runs
                on; None for this machine.
            engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.
            progress: Called with the counters a few times a second, first of unpacking the base, then of the diff.
            cancel: Stops the call.

        Returns:
            The image. Its `layer` is None when nothing changed; it then has a history entry more, and no layer.

        Raises:
            UsageError: An argument is out of range, or they contradict each other.
            NotFoundError: There is no such base, or a part of it is missing.
            DocumentError: The base is malformed.
            FileNotFoundError, NotADirectoryError: A tree is missing, or is no directory.
        """
        started = time.monotonic()
        reference = Reference.parse(name)
        if reference.digest is not None:
            raise UsageError(f"image {name!r}: a digest cannot be given as a name")
        if created is not None and not is_timestamp(created):
            raise UsageError(f"created {created[:100]!r}: takes an RFC 3339 time")
        options = layer_options(compression, level, threads, profile, source_date_epoch)
        wanted = None if platform is None else Platform.of_text(platform)
        step = commit_tree.Step(author or "", message or "", created or "", created_by, omit_history)
        selected, monitor = select_engine(engine), Monitor(progress, cancel)
        upper = tree_path(source)
        parent = None if base in (None, SCRATCH) else self._image(str(base), wanted)
        options = replace(options, lower_from_layers=parent is not None and lower is None)
        with self._lower_tree(parent, lower, selected, monitor) as lower_tree:
            image = commit_tree.commit(
                self._layout,
                reference.stored_name,
                lower_tree,
                upper,
                base=parent,
                platform=wanted or Platform.of_machine(),
                step=step,
                engine=selected,
                options=options,
                monitor=monitor,
            )
        monitor.check()
        self._layout.set_name(reference.stored_name, image.descriptor)
        return replace(image, seconds=time.monotonic() - started)

    def unpack(
        self,
        name: str,
        directory: str | os.PathLike[str],
        *,
        platform: str | None = None,
        same_owner: bool | None = None,
        max_bytes: int | None = None,
        max_entries: int | None = None,
        engine: str | None = None,
        progress: ProgressCallback | None = None,
        cancel: Cancellation | None = None,
    ) -> Image:
        """Write the root file system of an image into a directory. A call that fails leaves it as it was.

        Args:
            name: See `resolve`.
            directory: Missing, or empty.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            same_owner: See `ocidiff.apply`.
            max_bytes: Largest uncompressed size of all layers together; None for no limit.
            max_entries: Largest number of entries of all layers together; None for no limit.
            engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.
            progress: Called with the counters over all layers a few times a second.
            cancel: Stops the call.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            AlreadyExistsError: The directory is not empty.
            DigestMismatchError: A part of the image is not the one that is named.
        """
        started = time.monotonic()
        selected = select_engine(engine)
        image = self._image(name, None if platform is None else Platform.of_text(platform))
        unpack_tree.unpack(
            self._layout,
            image,
            os.fspath(directory),
            engine=selected,
            options=ApplyOptions(same_owner, max_bytes, max_entries),
            monitor=Monitor(progress, cancel),
        )
        return replace(image, seconds=time.monotonic() - started)

    def images(self) -> list[ImageRecord]:
        """What is in the store, in the order of its index; an image that cannot be read is listed without its facts."""
        return [self._record(entry) for entry in self._layout.index().manifests]

    def inspect(self, name: str, *, platform: str | None = None) -> dict[str, object]:
        """The documents of an image: `name`, `descriptor` (of the manifest), `manifest` and `config`.

        Args:
            name: See `resolve`.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
        """
        image = self._image(name, None if platform is None else Platform.of_text(platform))
        return {
            "name": image.name,
            "descriptor": image.descriptor.document(),
            "manifest": image.manifest.document(),
            "config": image.config.document(),
        }

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
        try:
            reference = Reference.parse(name)
        except UsageError:
            # Other tools may have other rules.
            try:
                return self._layout.named(name)
            except NotFoundError:
                pass
            raise
        if reference.digest is not None:
            return self._by_digest(reference, reference.digest)
        try:
            return self._layout.named(reference.stored_name)
        except NotFoundError:
            if reference.tag:
                raise
        try:
            return self._layout.named(name)
        except NotFoundError:
            raise NotFoundError(f"{self._layout.path}: no image {reference.stored_name!r}") from None

    def _by_digest(self, reference: Reference, digest: Digest) -> Descriptor:
        for entry in self._layout.index().manifests:
            if entry.digest == digest and (not reference.name or reference.covers(entry.annotations.get(REF_NAME, ""))):
                return entry
        if reference.name:
            raise NotFoundError(f"{self._layout.path}: no image {reference.name!r} of digest {digest}")
        return self._unlisted(digest)

    def _unlisted(self, digest: Digest) -> Descriptor:
        """A manifest or index that no name leads to: part of an index, or replaced under its name."""
        untyped = self._layout.describe(digest, "")
        try:
            kind = parse_object(self._layout.read(untyped), f"blob {digest}").get("mediaType")
        except DocumentError:
            kind = None
        if not isinstance(kind, str) or kind not in _KINDS:
            raise NotFoundError(f"{self._layout.path}: blob {digest} is no image")
        return replace(untyped, media_type=kind)

    def _image(self, name: str, platform: Platform | None) -> Image:
        descriptor = self.resolve(name)
        return read_image(self._layout, descriptor.annotations.get(REF_NAME, name), descriptor, platform)

    def _record(self, entry: Descriptor) -> ImageRecord:
        name = entry.annotations.get(REF_NAME)
        try:
            image = read_image(self._layout, name or entry.digest, entry)
        except (NotFoundError, DocumentError, DigestMismatchError, UnsupportedError):
            return ImageRecord(name, entry.digest, None, None, None)
        return ImageRecord(name, entry.digest, image.config.created or None, image.size, image.config.platform)

    @contextmanager
    def _lower_tree(
        self, base: Image | None, lower: Tree | None, engine: Engine, monitor: Monitor
    ) -> Iterator[bytes | None]:
        if lower is not None:
            path = lower_path(lower)
            if base is None and path is not None:
                raise UsageError(f"lower {os.fspath(lower)!r}: a lower tree needs the base that it is the tree of")
            yield path
        elif base is None:
            yield None
        else:
            with commit_tree.unpacked(self._layout, base, engine, monitor) as tree:
                yield tree
