"""A store as a place of images: the local one, or containerd."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

from ocidiff.errors import NotFoundError, UsageError
from ocidiff.image import lookup
from ocidiff.image.reference import name_to_give
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import NO_MEMBERS, NO_TEXTS
from ocidiff.services import labels as known
from ocidiff.services.bundle import Services
from ocidiff.services.content import ContentStore, Ingest
from ocidiff.transport.place import Access, Target

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
        name: Name of the image.
    """

    streams: Final = 4
    accepts_parts: Final = True

    def __init__(self, services: Services, scheme: str, name: str) -> None:
        self._services, self._scheme, self._name = services, scheme, name

    @property
    def place(self) -> str:
        """See `Source.place`."""
        return self._scheme + self._name

    @property
    def content(self) -> ContentStore:
        """See `Source.content`."""
        return self._services.content

    def resolve(self) -> Descriptor:
        """See `Source.resolve`."""
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

    def _described(self, digest: Digest) -> Descriptor:
        untyped = Descriptor("", digest, self.content.info(digest).size)
        return replace(untyped, media_type=_media_type(self.content.read(untyped)))

    def check(self, root: Descriptor) -> None:
        """See `Target.check`; any image can get any name here."""

    def contains(self, descriptor: Descriptor) -> bool:
        """See `Target.contains`."""
        try:
            size = self.content.info(descriptor.digest).size
        except NotFoundError:
            return False
        # One of another length was torn by a power failure, and is replaced.
        if size != descriptor.size:
            return False
        self._services.keep_blob(descriptor.digest)
        return True

    def borrow(self, descriptor: Descriptor, labels: Mapping[str, str]) -> bool:  # noqa: ARG002 - of the protocol
        """See `Target.borrow`; a store has nothing elsewhere."""
        return False

    def ingest(self, descriptor: Descriptor) -> Ingest:
        """See `Target.ingest`."""
        return self.content.ingest(_ref(descriptor))

    def abort(self, descriptor: Descriptor) -> None:
        """See `Target.abort`."""
        with suppress(NotFoundError):
            self.content.abort(_ref(descriptor))

    def write(self, descriptor: Descriptor, data: bytes, labels: Mapping[str, str]) -> None:
        """See `Target.write`; the labels keep children from collectors that read no documents."""
        self.content.write(data, descriptor.media_type, {**labels, **_references(data)})

    def attach(self, referrer: Descriptor, subject: Digest) -> None:
        """See `Target.attach`: what refers to an image is kept for as long as the image."""
        with suppress(NotFoundError):
            self.content.update_labels(subject, {f"{_REFERRER}.{referrer.digest.hex[:12]}": referrer.digest})

    def put(self, descriptor: Descriptor) -> None:
        """See `Target.put`."""
        self._services.images.put(self._name, descriptor)

    def stop(self) -> None:
        """See `Source.stop`; nothing waits for long here."""


def _ref(descriptor: Descriptor) -> str:
    return f"blob-{descriptor.digest}"


def _media_type(document: bytes) -> str:
    kind = json.loads(document).get("mediaType")
    if not isinstance(kind, str):
        raise UsageError(f"a document without media type: {document[:100]!r}")
    return kind


def _references(document: bytes) -> dict[str, str]:
    """Return what a document needs as labels. Spec: containerd, docs/garbage-collection.md."""
    try:
        members = json.loads(document)
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
