"""Plan: which documents and blobs of an image are copied, and in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO, Final

from ocidiff.errors import DocumentError, LimitExceededError, NotFoundError, UnsupportedError
from ocidiff.image.image import manifests_of, read_image
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.oci.encoding import NO_MEMBERS, NO_TEXTS, Members, parse_object
from ocidiff.oci.index import Index
from ocidiff.oci.platform import Platform
from ocidiff.services.content import Info, Provider
from ocidiff.transport.place import Source
from ocidiff.values import dataclass

_MAX_REMEMBERED_BYTES: Final = 64 << 20
_MAX_DEPTH: Final = 8
_ATTESTED: Final = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Plan:
    """The blobs and documents to copy.

    Attributes:
        root: What gets the name.
        documents: Manifests and indexes, children before parents.
        blobs: Everything else, each once: the configuration of an image, then its layers.
        subjects: The manifests that others refer to, by the digest of who refers to them.
    """

    root: Descriptor
    documents: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]
    subjects: dict[Digest, Digest]


def plan(source: Source, content: Provider, *, platform: Platform | None, everything: bool, in_parts: bool) -> Plan:
    """Return what is to be copied.

    Args:
        source: The image.
        content: Its documents.
        platform: Which image of an index; None for this machine's.
        everything: Copy all images of an index, and what refers to them.
        in_parts: Copy the index too if one image of it is chosen.

    Raises:
        NotFoundError: There is no such image, a document is missing, or no image is for the platform.
        DigestMismatchError, DocumentError: A document is not the one that is named, or malformed.
        UnsupportedError: A part has a digest of an algorithm that is not supported.
    """
    root = source.resolve()
    chosen: Descriptor | None = None
    if not everything and (root.media_type in media_type.INDEXES or platform is not None):
        chosen = _chosen(content, source.place, root, platform)
        if not in_parts:
            root = chosen
    walk = _Walk(source, content, everything=everything, chosen=chosen)
    walk.document(root, 0)
    return Plan(root, tuple(walk.documents.values()), tuple(walk.blobs.values()), walk.subjects)


def _chosen(content: Provider, place: str, root: Descriptor, platform: Platform | None) -> Descriptor:
    try:
        image = read_image(content, place, root, platform)
    except (NotFoundError, UnsupportedError) as error:
        error.add_note("--platform chooses one of the images, --all takes everything")
        raise
    return replace(image.descriptor, annotations=NO_TEXTS, extra=NO_MEMBERS)


class _Walk:
    def __init__(self, source: Source, content: Provider, *, everything: bool, chosen: Descriptor | None) -> None:
        self._source, self._content, self._everything, self._chosen = source, content, everything, chosen
        self.documents: dict[Digest, Descriptor] = {}
        self.blobs: dict[Digest, Descriptor] = {}
        self.subjects: dict[Digest, Digest] = {}
        self._seen: set[Digest] = set()

    def document(self, descriptor: Descriptor, depth: int) -> None:
        """Note what a document leads to, then the document."""
        if descriptor.digest in self._seen:
            return
        if depth > _MAX_DEPTH:
            raise DocumentError(f"{self._source.place}: documents nest more than {_MAX_DEPTH} deep")
        self._seen.add(descriptor.digest)
        data, where = self._content.read(descriptor), f"document {descriptor.digest}"
        if descriptor.media_type in media_type.INDEXES:
            children = self._members(Index.parse(data, descriptor.media_type, where), where)
        else:
            document = parse_object(data, where)
            members = Members(document, where)
            config = [members.one("config", Descriptor.parse)] if document.get("config") is not None else []
            children = [*config, *members.each("layers", Descriptor.parse), *members.each("blobs", Descriptor.parse)]
            if document.get("subject") is not None:
                self.subjects[descriptor.digest] = members.one("subject", Descriptor.parse).digest
        for child in children:
            if child.media_type in media_type.DOCUMENTS:
                self.document(child, depth + 1)
            # Layers that are fetched from their `urls` are in no place.
            elif not media_type.is_foreign_layer(child.media_type) or self._content.contains(child.digest):
                self.blobs.setdefault(child.digest, child)
        self.documents[descriptor.digest] = descriptor
        if self._everything:
            for referrer in self._source.referrers(descriptor.digest):
                self.document(referrer, depth + 1)

    def _members(self, index: Index, where: str) -> list[Descriptor]:
        for entry in index.entries:
            if self._everything and entry.descriptor is None:
                raise UnsupportedError(f"{where}: {entry.problem}")
        if self._chosen is None:
            return list(index.manifests)
        wanted = self._chosen.digest
        return [
            member
            for member in index.manifests
            if member.digest == wanted
            or (member.annotations.get(_ATTESTED) == wanted and self._content.contains(member.digest))
            or (member.media_type in media_type.INDEXES and self._leads_to(member, wanted))
        ]

    def _leads_to(self, index: Descriptor, wanted: Digest) -> bool:
        try:
            return any(member.digest == wanted for member in manifests_of(self._content, self._source.place, index))
        except NotFoundError:
            return False


class Remembering:
    """A `Provider` that keeps the small blobs that were read, so that they come once."""

    def __init__(self, content: Provider) -> None:
        self._content = content
        self._known: dict[Digest, bytes] = {}
        self._bytes = 0

    def contains(self, digest: AnyDigest) -> bool:
        """See `Provider.contains`."""
        return digest in self._known or self._content.contains(digest)

    def info(self, digest: Digest) -> Info:
        """See `Provider.info`."""
        return self._content.info(digest)

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """See `Provider.open_blob`."""
        return self._content.open_blob(descriptor)

    def read(self, descriptor: Descriptor) -> bytes:
        """See `Provider.read`.

        Raises:
            LimitExceededError: The documents of the image are too large together.
        """
        known = self._known.get(descriptor.digest)
        if known is not None and len(known) == descriptor.size:
            return known
        data = self._content.read(descriptor)
        self._bytes += len(data)
        if self._bytes > _MAX_REMEMBERED_BYTES:
            raise LimitExceededError(
                f"the documents of the image are larger than {_MAX_REMEMBERED_BYTES >> 20} MiB together"
            )
        self._known[descriptor.digest] = data
        return data

    def known(self, digest: Digest) -> bytes | None:
        """Return a blob that was read; None for any other."""
        return self._known.get(digest)
