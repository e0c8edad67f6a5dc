"""Unpack: the layers of an image, applied in order and verified, as a plain tree."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ocidiff.content import workspace
from ocidiff.content.store import ContentStore
from ocidiff.errors import AlreadyExistsError, UnsupportedError
from ocidiff.image.image import Image
from ocidiff.layer.applier import verify
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import ApplyOptions, ApplySummary, Monitor, Progress
from ocidiff.oci import media_type


def unpack(
    content: ContentStore, image: Image, directory: str, *, engine: Engine, options: ApplyOptions, monitor: Monitor
) -> None:
    """Write the tree of an image into a directory, which is empty or made; on failure it is left as it was found.

    Args:
        content: Where the layers are.
        image: What to unpack.
        directory: Path of the directory.
        engine: What applies the layers.
        options: How they are applied; the limits are for all layers together.
        monitor: Sees progress over all layers, and stops the call.

    Raises:
        AlreadyExistsError: The directory is not empty.
        DigestMismatchError: A layer is not the one that the manifest or the configuration names.
    """
    check_layers(content, image)
    with _target(directory):
        apply_layers(content, image, directory, engine=engine, options=options, monitor=monitor)


def check_layers(content: ContentStore, image: Image) -> None:
    """Check, before anything is written, that every layer is there and is one.

    Raises:
        UnsupportedError: A layer is of a kind that cannot be applied.
        NotFoundError, DigestMismatchError: A layer is missing, or has another length.
    """
    for layer in image.manifest.layers:
        if layer.media_type not in media_type.LAYERS:
            raise UnsupportedError(f"{image.name}: layer {layer.digest} has media type {layer.media_type!r}")
        content.open_blob(layer).close()


def apply_layers(
    content: ContentStore, image: Image, directory: str, *, engine: Engine, options: ApplyOptions, monitor: Monitor
) -> None:
    """Apply the layers of an image, base first, each verified; arguments and errors as in `unpack`."""
    done = Done()
    for descriptor, diff_id in zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True):
        monitor.check()
        with content.open_blob(descriptor) as blob:
            summary = engine.apply_layer(
                blob.fileno(), os.fsencode(directory), done.remaining(options), done.continued(monitor)
            )
        verify(summary, descriptor.digest, diff_id)
        done = done.plus(summary)


@dataclass(frozen=True, slots=True)
class Done:
    """What the layers before have used up."""

    entries: int = 0
    bytes_plain: int = 0
    bytes_blob: int = 0

    def plus(self, summary: ApplySummary) -> Done:
        """With one layer more."""
        return Done(
            self.entries + summary.entries,
            self.bytes_plain + summary.uncompressed_size,
            self.bytes_blob + summary.size,
        )

    def remaining(self, options: ApplyOptions) -> ApplyOptions:
        """The options with what is left of their limits."""
        return replace(options, limits=options.limits.after(self.bytes_plain, self.entries))

    def continued(self, monitor: Monitor) -> Monitor:
        """The monitor, for which a layer continues those before."""
        report = monitor.progress
        if report is None:
            return monitor

        def progress(now: Progress) -> None:
            report(
                Progress(self.entries + now.entries, self.bytes_plain + now.bytes_plain, self.bytes_blob + now.bytes_blob)
            )

        return replace(monitor, progress=progress)


@contextmanager
def _target(directory: str) -> Iterator[None]:
    try:
        os.mkdir(directory)
        made = True
    except FileExistsError:
        made = False
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.listdir(descriptor):
            raise AlreadyExistsError(f"{directory}: {os.strerror(errno.ENOTEMPTY)}")
        found = os.fstat(descriptor)
        try:
            yield
        except BaseException:
            workspace.clear(descriptor)
            if made:
                os.rmdir(directory)
            else:
                os.fchmod(descriptor, found.st_mode & 0o7777)
            raise
    finally:
        os.close(descriptor)
