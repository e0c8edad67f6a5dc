"""A store as a place of images: the local one, or containerd."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import BinaryIO, Final

from ocidiff.errors import DocumentError, NotFoundError, OcidiffError
from ocidiff.image import lookup
from ocidiff.image.reference import name_to_give
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.oci.encoding import NO_MEMBERS, NO_TEXTS, parse_object
from ocidiff.services import labels as known
from ocidiff.services.bundle import Services
from ocidiff.services.content import Info, Ingest, Provider
from ocidiff.transport.place import Access, Target

# A label is short; the last ones are tried first.
_MOST_ORIGINS: Final = 10
_REFERRER: Final = f"{known.REFERS_CONTENT}.referrer"
# Of containerd's, which knows no other names of children.
_MEMBERS: Final = (("manifests", "m"), ("layers", "l"), ("blobs", "l"))


@contextmanager
def open_source(scheme: str, value: str, access: Access) -> Iterator[StorePlace]:
    """Yield an image of a store, to read from."""
    with access.services(scheme, False) as services:
        yield StorePlace(services, scheme, value)


@contextmanager
def open_target(scheme: str, value: str, access: Access) -> Iterator[Target]:
    """Yield a name in a store, to write to."""
    with access.services(scheme, True) as services:
        yield StorePlace(services, scheme, value if services.unpacks else name_to_give(value))


class StorePlace:
    """A `Source` and a `Target`.

    Args:
        services: The store, under a lease.
        scheme: What names in it begin with.
        name: Name of the image; empty for one that gets none.
        descriptor: What the name stands for; None to look for it.
        content: Where the blobs are read from; None for the store.
    """

    streams: Final = 4
    accepts_parts: Final = True
    origin: Final = None

    def __init__(
        self,
        services: Services,
        scheme: str,
        name: str,
        descriptor: Descriptor | None = None,
        content: Provider | None = None,
    ) -> None:
        self._services, self._scheme, self._name = services, scheme, name
        self._descriptor = descriptor
        self._store = services.content
        self.content: Final[Provider] = content or services.content

    @property
    def place(self) -> str:
        """See `Source.place`."""
        return self._scheme + self._name

    def resolve(self) -> Descriptor:
        """See `Source.resolve`."""
        if self._descriptor is not None:
            return self._descriptor
        found = lookup.resolve(self._services, self._name)
        # Before it is read, since the name may go at any time.
        self._services.keep_blob(found.digest)
        return replace(found, annotations=NO_TEXTS, extra=NO_MEMBERS)

    def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """See `Source.referrers`."""
        found = []
        for name, value in self.content.info(digest).labels.items():
            if name.startswith(_REFERRER):
                # Somebody may have deleted it.
                with suppress(NotFoundError):
                    found.append(self._described(Digest(value)))
        return found

    def remember(self, digests: Sequence[Digest], label: str, repository: str) -> None:
        """See `Source.remember`."""
        new = {}
        for digest in digests:
            # Blobs that a commit sent elsewhere are not in the store.
            with suppress(NotFoundError):
                known = [one for one in self._store.info(digest).labels.get(label, "").split(",") if one]
                if repository not in known:
                    new[digest] = {label: ",".join([*known, repository][-_MOST_ORIGINS:])}
        if new:
            # A store that can only be read is pushed from all the same.
            with suppress(OSError, OcidiffError):
                self._store.label_all(new)

    def _described(self, digest: Digest) -> Descriptor:
        untyped = Descriptor("", digest, self.content.info(digest).size)
        return replace(untyped, media_type=_media_type(self.content.read(untyped)))

    def check(self, root: Descriptor) -> None:
        """See `Target.check`; any image can get any name here."""

    def contains(self, descriptor: Descriptor, check: Callable[[], None]) -> bool:
        """See `Target.contains`."""
        # Kept before it is looked for, so that no collection comes between.
        self._services.keep_blob(descriptor.digest)
        return self._store.is_intact(descriptor, check)

    def borrow(self, descriptor: Descriptor, labels: Mapping[str, str]) -> bool:  # noqa: ARG002 - of the protocol
        """See `Target.borrow`; a store has nothing elsewhere."""
        return False

    def ingest(self, descriptor: Descriptor) -> Ingest:
        """See `Target.ingest`."""
        return self._store.ingest(_ref(descriptor))

    def abort(self, descriptor: Descriptor) -> None:
        """See `Target.abort`."""
        with suppress(NotFoundError):
            self._store.abort(_ref(descriptor))

    def write(self, descriptor: Descriptor, data: bytes, labels: Mapping[str, str]) -> None:
        """See `Target.write`; the labels keep children from collectors that read no documents."""
        self._store.write(data, descriptor.media_type, {**labels, **_references(data)})

    def attach(self, referrer: Descriptor, subject: Digest) -> None:
        """See `Target.attach`: what refers to an image is kept for as long as the image."""
        with suppress(NotFoundError):
            self._store.update_labels(subject, {f"{_REFERRER}.{referrer.digest.hex[:12]}": referrer.digest})

    def put(self, descriptor: Descriptor) -> None:
        """See `Target.put`."""
        if self._name:
            self._services.images.put(self._name, descriptor)

    def stop(self) -> None:
        """See `Source.stop`; nothing waits for long here."""


class FallbackContent:
    """A `Provider` that looks into a second one for what the first one lacks.

    Args:
        first: Where most blobs are.
        second: Where the others are.
    """

    def __init__(self, first: Provider, second: Provider) -> None:
        self._first, self._second = first, second

    def contains(self, digest: AnyDigest) -> bool:
        """See `Provider.contains`."""
        return self._first.contains(digest) or self._second.contains(digest)

    def info(self, digest: Digest) -> Info:
        """See `Provider.info`."""
        return self._having(digest).info(digest)

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """See `Provider.open_blob`."""
        return self._having(descriptor.digest).open_blob(descriptor)

    def read(self, descriptor: Descriptor) -> bytes:
        """See `Provider.read`."""
        return self._having(descriptor.digest).read(descriptor)

    def _having(self, digest: Digest) -> Provider:
        return self._first if self._first.contains(digest) else self._second


def _ref(descriptor: Descriptor) -> str:
    return f"blob-{descriptor.digest}"


def _media_type(document: bytes) -> str:
    """Return the media type of a document, which a manifest and an index may leave out."""
    members = parse_object(document, "document")
    kind = members.get("mediaType", media_type.INDEX if "manifests" in members else media_type.MANIFEST)
    if not isinstance(kind, str):
        raise DocumentError(f"document: mediaType: not a text: {str(kind)[:100]!r}")
    return kind


def _references(document: bytes) -> dict[str, str]:
    """Return what a document needs as labels. Spec: containerd, docs/garbage-collection.md."""
    try:
        members = json.loads(document, parse_int=float)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(members, dict):
        return {}
    found = {"config": members.get("config")}
    for name, short in _MEMBERS:
        children = members.get(name)
        found |= {f"{short}.{at}": child for at, child in enumerate(children if isinstance(children, list) else ())}
    return {
        f"{known.REFERS_CONTENT}.{name}": child["digest"]
        for name, child in found.items()
        if isinstance(child, dict) and isinstance(child.get("digest"), str)
    }
