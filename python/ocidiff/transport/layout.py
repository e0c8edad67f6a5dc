"""`oci:DIR[:TAG]`: an image layout as a place of images. Spec: image-spec image-layout.md.

A layout that has a database is a store, and is used as one, so that its collections keep what is copied. Any other gets no
database: blobs on their way in are in `ingest/`, which goes when it is empty.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

from ocidiff import workspace
from ocidiff.embedded import ingest as ingests
from ocidiff.embedded.files import BLOBS, DIRECTORY_MODE, INDEX, INGEST, Files
from ocidiff.embedded.ingest import FileIngest
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.stored import is_intact
from ocidiff.errors import DigestMismatchError, DocumentError, NotFoundError, UsageError
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import NO_MEMBERS, NO_TEXTS, parse_object
from ocidiff.oci.index import Entry, Index
from ocidiff.services.content import Provider
from ocidiff.services.images import understood
from ocidiff.transport.place import Access, Source, Target
from ocidiff.transport.store import StorePlace

_MOST_SHOWN: Final = 5


@contextmanager
def open_source(scheme: str, value: str, access: Access) -> Iterator[Source]:
    """Yield an image of a layout, to read from."""
    path, tag = _split(scheme, value)
    with Layout.open(path, create=False) as layout:
        if not layout.has_database() or layout.refusal is not None:
            yield _source(scheme + value, layout, layout.names.list(), tag)
            return
        with access.under_lease(layout) as services:
            yield _source(scheme + value, services.content, services.images.list(), tag, services.keep_blob)


@contextmanager
def open_target(scheme: str, value: str, access: Access) -> Iterator[Target]:
    """Yield a name in a layout, which is made if it is missing, to write to."""
    path, tag = _split(scheme, value)
    os.makedirs(path, DIRECTORY_MODE, exist_ok=True)
    files = Files(path)
    try:
        files.begin(create=True)
        with Layout.open(path, create=False) as layout:
            if not layout.has_database():
                yield LayoutTarget(scheme + value, files, tag)
            elif not tag:
                raise UsageError(f"{scheme}{value}: is a store: name the image: {scheme}{path}:NAME")
            else:
                with access.under_lease(layout) as services:
                    yield StorePlace(services, f"{scheme}{path}:", tag)
    finally:
        # An interrupted copy stays there, for the next call.
        with suppress(OSError):
            os.rmdir(INGEST, dir_fd=files.root)
        files.close()


def _split(scheme: str, value: str) -> tuple[str, str]:
    """Return the directory and the name of the image in it, which may be empty; a directory with a colon cannot be named."""
    path, _, tag = value.partition(":")
    if not path:
        raise UsageError(f"{scheme}{value[:100]}: takes {scheme}DIR or {scheme}DIR:TAG")
    return path, tag


def the_entry(entries: Sequence[Entry], tag: str, place: str) -> Entry:
    """Return the entry of an index that a name means; without a name, the only image.

    Args:
        entries: The entries.
        tag: The name, or a digest; empty for none.
        place: Where they are, for messages.

    Raises:
        NotFoundError: There is none.
        UsageError: Several images are there, and no name was given.
        DocumentError: Several have the name.
    """
    found = [entry for entry in entries if tag in {entry.name, entry.digest}] if tag else [e for e in entries if e.name]
    found = found or ([] if tag else list(entries))
    if len({entry.digest for entry in found}) == 1:
        return found[0]
    names = ", ".join(sorted(entry.name or entry.digest or "-" for entry in entries)[:_MOST_SHOWN])
    if not found:
        raise NotFoundError(f"{place}: no image {tag!r}; there is {names or 'nothing'}")
    if tag:
        raise DocumentError(f"{place}: {len(found)} images are named {tag!r}")
    raise UsageError(f"{place}: holds {len(found)} images: name one of {names}")


class Referrers:
    """The manifests of a layout that refer to others, which have no names there.

    Args:
        content: The blobs of the layout.
        entries: The entries of its index.
    """

    def __init__(self, content: Provider, entries: Sequence[Entry]) -> None:
        self._content, self._entries = content, entries
        self._found: dict[object, list[Descriptor]] | None = None

    def of(self, digest: Digest) -> Sequence[Descriptor]:
        """Return those that refer to this one. All are read once."""
        if self._found is None:
            self._found = {}
            unnamed = {
                entry.descriptor.digest: entry.descriptor
                for entry in reversed(self._entries)
                if entry.name is None and entry.descriptor is not None
            }
            for one in reversed(unnamed.values()):
                if one.media_type in media_type.DOCUMENTS:
                    self._found.setdefault(_subject(self._content, one), []).append(one)
        return self._found.get(digest, ())


class LayoutSource:
    """A `Source`.

    Args:
        place: Its name, as users write it.
        content: The blobs of the layout.
        entry: The entry of the image in the index.
        referrers: What refers to images of the layout.
        keep: Keeps a blob, and what it leads to, while it is read.
    """

    def __init__(
        self,
        place: str,
        content: Provider,
        entry: Entry,
        referrers: Referrers,
        keep: Callable[[Digest], None] = lambda _: None,
    ) -> None:
        self.place: Final = place
        self.content: Final = content
        self._entry, self._referrers, self._keep = entry, referrers, keep

    def resolve(self) -> Descriptor:
        """See `Source.resolve`."""
        found = understood(self._entry)
        self._keep(found.digest)
        return replace(found, annotations=NO_TEXTS, extra=NO_MEMBERS)

    def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """See `Source.referrers`: in a layout they have no name."""
        return self._referrers.of(digest)

    def remember(self, digests: Sequence[Digest], label: str, repository: str) -> None:
        """See `Source.remember`; a layout has no labels."""

    def stop(self) -> None:
        """See `Source.stop`; nothing waits for long here."""


def _source(
    place: str, content: Provider, entries: Sequence[Entry], tag: str, keep: Callable[[Digest], None] = lambda _: None
) -> LayoutSource:
    return LayoutSource(place, content, the_entry(entries, tag, place), Referrers(content, entries), keep)


def _subject(content: Provider, descriptor: Descriptor) -> object:
    try:
        subject = parse_object(content.read(descriptor), f"document {descriptor.digest}").get("subject")
    except (DigestMismatchError, DocumentError, NotFoundError):
        return None
    digest = subject.get("digest") if isinstance(subject, dict) else None
    return digest if isinstance(digest, str) else None


class LayoutTarget:
    """A `Target`.

    Args:
        place: Its name, as users write it.
        files: The layout.
        tag: Name of the image in it; empty for none.
    """

    streams: Final = 4
    # Other tools expect every image of an index.
    accepts_parts: Final = False
    origin: Final = None

    def __init__(self, place: str, files: Files, tag: str) -> None:
        self.place: Final = place
        self._files, self._tag = files, tag
        self._referrers: list[Descriptor] = []

    def check(self, root: Descriptor) -> None:
        """See `Target.check`; any image can get any name here."""

    def contains(self, descriptor: Descriptor, check: Callable[[], None]) -> bool:
        """See `Target.contains`."""
        with self._files.directory(*BLOBS) as blobs:
            return is_intact(blobs, descriptor.digest, descriptor.size, check)

    def borrow(self, descriptor: Descriptor, labels: Mapping[str, str]) -> bool:  # noqa: ARG002 - of the protocol
        """See `Target.borrow`; a layout has nothing elsewhere."""
        return False

    def ingest(self, descriptor: Descriptor) -> FileIngest:
        """See `Target.ingest`."""
        return ingests.resumable_ingest(*self._directories(), _no_record, f"blob-{descriptor.digest}")

    def abort(self, descriptor: Descriptor) -> None:
        """See `Target.abort`."""
        with suppress(NotFoundError), self._files.directory(INGEST) as ingest_dir:
            ingests.abort(ingest_dir, f"blob-{descriptor.digest}")

    def write(self, descriptor: Descriptor, data: bytes, labels: Mapping[str, str]) -> None:  # noqa: ARG002 - of the protocol
        """See `Target.write`."""
        with ingests.new_ingest(*self._directories(), _no_record) as ingest:
            ingest.write(data)
            ingest.commit(descriptor.size, descriptor.digest)

    def _directories(self) -> tuple[int, int]:
        ingest_dir = workspace.open_directory(self._files.root, self._files.path, INGEST, create=True)
        try:
            return ingest_dir, workspace.open_directory(self._files.root, self._files.path, *BLOBS, create=True)
        except BaseException:
            os.close(ingest_dir)
            raise

    def attach(self, referrer: Descriptor, subject: Digest) -> None:  # noqa: ARG002 - of the protocol
        """See `Target.attach`."""
        self._referrers.append(replace(referrer, annotations=NO_TEXTS))

    def put(self, descriptor: Descriptor) -> None:
        """See `Target.put`."""
        with self._files.locked():
            index = Index.parse(self._files.read(INDEX), media_type.INDEX, f"{self._files.path}/{INDEX}")
            index = index.with_name(self._tag, descriptor) if self._tag else _with_unnamed(index, descriptor)
            for referrer in self._referrers:
                index = _with_unnamed(index, referrer)
            self._files.replace(INDEX, index.encode())

    def stop(self) -> None:
        """See `Target.stop`; nothing waits for long here."""


def _with_unnamed(index: Index, descriptor: Descriptor) -> Index:
    if any(entry.digest == descriptor.digest and entry.name is None for entry in index.entries):
        return index
    return replace(index, entries=(*index.entries, Entry.of(descriptor)))


def _no_record(digest: Digest, size: int, labels: Mapping[str, str] | None) -> None:
    """A layout without a database keeps no records."""
