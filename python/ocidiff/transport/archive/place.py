"""`oci-archive:FILE[:NAME]` and `docker-archive:FILE[:NAME]`: an archive as a place of images.

Both write the same tar, and read every form there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from ocidiff.errors import UsageError
from ocidiff.image.reference import is_same, name_to_give
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.output import open_output
from ocidiff.services.content import Ingest
from ocidiff.transport.archive.members import STDIN, opened
from ocidiff.transport.archive.read import entries_of
from ocidiff.transport.archive.write import ArchiveWriter
from ocidiff.transport.layout import LayoutSource, Referrers, the_entry
from ocidiff.transport.place import Access, Source, Target


@contextmanager
def open_source(scheme: str, value: str, access: Access) -> Iterator[Source]:  # noqa: ARG001 - of every place
    """Yield an image of an archive, to read from; without a name, its only one."""
    path, name = _split(scheme, value)
    with opened(path, Limits(), Monitor()) as members:
        content, entries = entries_of(members)
        # In any spelling.
        name = next((entry.name for entry in entries if name and entry.name and is_same(name, entry.name)), name)
        place = scheme + value
        yield LayoutSource(place, content, the_entry(entries, name, place), Referrers(content, entries))


@contextmanager
def open_target(scheme: str, value: str, access: Access) -> Iterator[Target]:  # noqa: ARG001 - of every place
    """Yield the name of an image in a new archive, which takes the place of a file of that name."""
    path, name = _split(scheme, value)
    if path == STDIN:
        raise UsageError(f"{scheme}{value}: write to stdout with `ocidiff save NAME`")
    try:
        with open_output(path) as sink:
            writer = ArchiveWriter(sink, path)
            target = ArchiveTarget(writer, scheme + value, name or None)
            yield target
            if not target.has_image:
                # So that no file appears.
                raise _NothingWritten
            writer.finish()
    except _NothingWritten:
        return


class _NothingWritten(Exception):  # noqa: N818 - not an error
    """Nobody gave the archive an image."""


def _split(scheme: str, value: str) -> tuple[str, str]:
    """Return the path of the archive and the name of the image in it; a path with a colon cannot be named."""
    path, _, name = value.partition(":")
    if not path:
        raise UsageError(f"{scheme}{value[:100]}: takes {scheme}FILE or {scheme}FILE:NAME")
    return path, name


class ArchiveTarget:
    """A `Target`.

    Args:
        writer: The archive.
        place: Its name, as users write it.
        name: Name of the image in it; None for none.

    Attributes:
        has_image: True once the image is in it.
    """

    streams: Final = 1
    # Other tools expect every image of an index.
    accepts_parts: Final = False
    origin: Final = None

    def __init__(self, writer: ArchiveWriter, place: str, name: str | None) -> None:
        self.place: Final = place
        self.has_image = False
        self._writer, self._name = writer, name
        self._referrers: list[Descriptor] = []

    def check(self, root: Descriptor) -> None:  # noqa: ARG002 - of the protocol
        """See `Target.check`: another tool may have given the image a name that no registry takes."""
        if self._name is not None:
            name_to_give(self._name)

    def contains(self, descriptor: Descriptor, check: Callable[[], None]) -> bool:  # noqa: ARG002 - of the protocol
        """See `Target.contains`."""
        return self._writer.contains(descriptor)

    def borrow(self, descriptor: Descriptor, labels: Mapping[str, str]) -> bool:  # noqa: ARG002 - of the protocol
        """See `Target.borrow`; an archive has nothing elsewhere."""
        return False

    def ingest(self, descriptor: Descriptor) -> Ingest:
        """See `Target.ingest`."""
        return self._writer.begin(descriptor)

    def abort(self, descriptor: Descriptor) -> None:
        """See `Target.abort`; nothing is kept of what was interrupted."""

    def write(self, descriptor: Descriptor, data: bytes, labels: Mapping[str, str]) -> None:  # noqa: ARG002 - of the protocol
        """See `Target.write`."""
        self._writer.write(descriptor, data)

    def attach(self, referrer: Descriptor, subject: Digest) -> None:  # noqa: ARG002 - of the protocol
        """See `Target.attach`: as in a layout, a referrer has no name."""
        self._referrers.append(referrer)

    def put(self, descriptor: Descriptor) -> None:
        """See `Target.put`; the file gets its name when the block ends."""
        self._writer.name(descriptor, self._name)
        for referrer in self._referrers:
            self._writer.name(referrer, None)
        self.has_image = True

    def stop(self) -> None:
        """See `Target.stop`; nothing waits for long here."""
