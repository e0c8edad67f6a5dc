"""The images in an archive: of OCI tools, of `docker save` before and since it writes an OCI layout, and of Podman."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import BinaryIO, Final

from ocidiff.errors import DigestMismatchError, DocumentError, LimitExceededError, NotFoundError, UnsupportedError
from ocidiff.image.reference import shortest
from ocidiff.oci import media_type
from ocidiff.oci.config import ImageConfig
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES, NO_TEXTS, parse_list, parse_object
from ocidiff.oci.encoding import Members as JsonMembers
from ocidiff.oci.index import REF_NAME, Entry, Index
from ocidiff.oci.manifest import Manifest
from ocidiff.services.content import BLOCK_BYTES, Info
from ocidiff.transport.archive.members import Member, Members
from ocidiff.values import dataclass

LAYOUT: Final = "oci-layout"
INDEX: Final = "index.json"
MANIFEST: Final = "manifest.json"
LAYOUT_VERSION: Final = "1.0.0"
DOCKER_NAME: Final = "io.containerd.image.name"
"""Annotation with the full name of an image; `org.opencontainers.image.ref.name` is its tag alone in archives of Docker."""

_OLDEST: Final = "repositories"
_MAX_LAYOUT_BYTES: Final = 1 << 16
_HEAD_BYTES: Final = 4
# Of an archive, by all images.
_MAX_READ_BYTES: Final = 1 << 30
_COMPRESSED: Final = ((b"\x1f\x8b\x08", media_type.LAYER_GZIP), (b"\x28\xb5\x2f\xfd", media_type.LAYER_ZSTD))


class Content:
    """A `Provider` of what is in an archive.

    Args:
        members: The archive.
        documents: Manifests that are not in it, made of what is.
        layers: Files that have other names than their digests.
    """

    def __init__(self, members: Members, documents: Mapping[Digest, bytes], layers: Mapping[Digest, Member]) -> None:
        self._members, self._documents, self._layers = members, documents, layers
        self._left = _MAX_READ_BYTES

    def contains(self, digest: AnyDigest) -> bool:
        """See `Provider.contains`."""
        return digest in self._documents or digest in self._layers or blob_name(digest) in self._members

    def info(self, digest: Digest) -> Info:
        """See `Provider.info`."""
        document = self._documents.get(digest)
        return Info(digest, self._member(digest).size if document is None else len(document), 0, NO_TEXTS)

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """See `Provider.open_blob`; the reader can seek."""
        digest = descriptor.digest
        if digest in self._documents:
            import io

            return io.BytesIO(self.read(descriptor))
        member = self._member(digest)
        _check_size(descriptor, member.size)
        return self._members.open(member)

    def read(self, descriptor: Descriptor) -> bytes:
        """See `Provider.read`.

        Raises:
            DocumentError, DigestMismatchError: It is damaged, or the manifest of an image with other layers than its
                configuration has.
            LimitExceededError: An archive can name one document many times; all that was read is too much.
        """
        digest = descriptor.digest
        data = self._documents.get(digest)
        if data is not None:
            _check_size(descriptor, len(data))
            return data
        data = self._read(descriptor)
        if descriptor.media_type in media_type.MANIFESTS:
            self._check_layers(descriptor, data)
        return data

    def _read(self, descriptor: Descriptor) -> bytes:
        digest, place = descriptor.digest, self._members.place
        member = self._member(digest)
        _check_size(descriptor, member.size)
        self._left -= member.size
        if self._left < 0:
            raise LimitExceededError(f"{place}: its documents are larger than {_MAX_READ_BYTES >> 20} MiB together")
        data = self._members.read(member.name, MAX_DOCUMENT_BYTES)
        if Digest.of(data) != digest:
            raise DigestMismatchError(f"{place}: blob {digest}: holds {Digest.of(data)}")
        return data

    def _check_layers(self, descriptor: Descriptor, data: bytes) -> None:
        """Refuse an image whose layers are not those of its configuration, as far as that is seen without inflating them."""
        where = f"{self._members.place}: manifest {descriptor.digest}"
        stated = parse_object(data, where).get("config")
        if not isinstance(stated, dict) or stated.get("mediaType") not in media_type.CONFIGS:
            return
        manifest = Manifest.parse(data, descriptor.media_type, where)
        if any(layer.media_type not in media_type.LAYERS for layer in manifest.layers):
            return
        config = ImageConfig.parse(self._read(manifest.config), f"{self._members.place}: {manifest.config.digest}")
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise DocumentError(f"{where}: {len(manifest.layers)} layers, the configuration has {len(diff_ids)} diff_ids")
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
            # An uncompressed layer is its own tar.
            if layer.digest != diff_id and self.contains(layer.digest) and self._is_plain(layer.digest):
                raise DigestMismatchError(f"{where}: layer {layer.digest}: the configuration has diff ID {diff_id}")

    def _is_plain(self, digest: Digest) -> bool:
        with self._members.open(self._member(digest)) as file:
            return _compression(file.read(_HEAD_BYTES)) is None

    def _member(self, digest: Digest) -> Member:
        if digest in self._layers:
            return self._layers[digest]
        try:
            return self._members.regular(blob_name(digest))
        except NotFoundError:
            raise NotFoundError(f"{self._members.place}: blob {digest} is missing") from None


def entries_of(members: Members) -> tuple[Content, list[Entry]]:
    """Return the blobs of an archive, and its images in order: an entry for each name, and for each image without one.

    Each name is in its shortest spelling.

    Raises:
        DocumentError: It is no archive of images, or a document of it is malformed.
        NotFoundError: A part of an image is missing.
        UnsupportedError: It is one of Docker before 1.10.
    """
    if INDEX in members and LAYOUT in members:
        return _of_layout(members)
    if MANIFEST in members:
        return _of_docker(members)
    if _OLDEST in members:
        raise UnsupportedError(f"{members.place}: no {MANIFEST}: archives of Docker before 1.10 are not read")
    raise DocumentError(f"{members.place}: not an archive of images: it has neither {INDEX} with {LAYOUT} nor {MANIFEST}")


def _of_layout(members: Members) -> tuple[Content, list[Entry]]:
    where = f"{members.place}: {LAYOUT}"
    layout = JsonMembers(parse_object(members.read(LAYOUT, _MAX_LAYOUT_BYTES), where), where)
    version = layout.text("imageLayoutVersion")
    if version != LAYOUT_VERSION:
        raise UnsupportedError(f"{where}: version {version[:20]!r} is not supported: only {LAYOUT_VERSION} is")
    content = Content(members, {}, {})
    index = Index.parse(members.read(INDEX, MAX_DOCUMENT_BYTES), media_type.INDEX, f"{members.place}: {INDEX}")
    entries = [_with_shortest(entry) for entry in index.entries]
    if not any(entry.name for entry in entries) and MANIFEST in members:
        tags = {entry.config: entry.tags for entry in _docker_entries(members)}
        entries = [named for entry in entries for named in _named_by_docker(entry, content, tags)]
    return content, entries


def _with_shortest(entry: Entry) -> Entry:
    if entry.descriptor is None:
        return entry
    name = entry.descriptor.annotations.get(DOCKER_NAME) or entry.name
    return named_entry(entry.descriptor, shortest(name) if name else None)


def named_entry(descriptor: Descriptor, name: str | None) -> Entry:
    """Return the entry of an index that gives a manifest or an index this name."""
    named = NO_TEXTS if name is None else MappingProxyType({REF_NAME: name})
    return Entry.of(replace(descriptor, annotations=named))


def _named_by_docker(entry: Entry, content: Content, tags: Mapping[str, tuple[str, ...]]) -> list[Entry]:
    """Return the entry once for each name that `manifest.json` has for its configuration."""
    descriptor = entry.descriptor
    if descriptor is None or descriptor.media_type not in media_type.MANIFESTS:
        return [entry]
    manifest = Manifest.parse(content.read(descriptor), descriptor.media_type, f"manifest {descriptor.digest}")
    names = tags.get(blob_name(manifest.config.digest), ())
    return [named_entry(descriptor, shortest(name)) for name in names] or [entry]


@dataclass(frozen=True, slots=True)
class _DockerEntry:
    """One image of `manifest.json`.

    Attributes:
        config: Name of the file with the configuration.
        layers: Names of the files with the layers, base layer first.
        tags: Its names.
    """

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def _docker_entries(members: Members) -> list[_DockerEntry]:
    where = f"{members.place}: {MANIFEST}"
    found = []
    for at, value in enumerate(parse_list(members.read(MANIFEST, MAX_DOCUMENT_BYTES), where)):
        one = JsonMembers(value, f"{where}: [{at}]")
        found.append(_DockerEntry(one.required_text("Config"), one.texts("Layers"), one.texts("RepoTags")))
    return found


def _of_docker(members: Members) -> tuple[Content, list[Entry]]:
    """Return the images of an archive without an index. Their manifests are made here; configurations stay byte for byte."""
    files: dict[Digest, Member] = {}
    # By the name of the file, which many names may lead to.
    packed: dict[str, Descriptor | None] = {}
    documents: dict[Digest, bytes] = {}
    entries: list[Entry] = []
    left = _MAX_READ_BYTES
    for entry in _docker_entries(members):
        member = members.followed(entry.config)
        left -= member.size
        if left < 0:
            raise LimitExceededError(
                f"{members.place}: its configurations are larger than {_MAX_READ_BYTES >> 20} MiB together"
            )
        data = members.read(member.name, MAX_DOCUMENT_BYTES)
        config = Descriptor(media_type.CONFIG, Digest.of(data), len(data))
        files[config.digest] = member
        diff_ids = ImageConfig.parse(data, f"{members.place}: {entry.config[:100]}").rootfs.diff_ids
        if len(diff_ids) != len(entry.layers):
            raise DocumentError(
                f"{members.place}: {MANIFEST} has {len(entry.layers)} layers, the configuration {len(diff_ids)} diff_ids"
            )
        layers = []
        for name, diff_id in zip(entry.layers, diff_ids, strict=True):
            member = members.followed(name)
            if member.name not in packed:
                packed[member.name] = _packed(members, member)
            # One that is not compressed has its diff ID for a digest, which the copy verifies.
            layer = packed[member.name] or Descriptor(media_type.LAYER, Digest(diff_id), member.size)
            files[layer.digest] = member
            layers.append(layer)
        encoded = Manifest(config, tuple(layers)).encode()
        descriptor = Descriptor(media_type.MANIFEST, Digest.of(encoded), len(encoded))
        documents[descriptor.digest] = encoded
        entries += [named_entry(descriptor, shortest(tag)) for tag in entry.tags] or [named_entry(descriptor, None)]
    return Content(members, documents, files), entries


def _packed(members: Members, member: Member) -> Descriptor | None:
    """Return the descriptor of a compressed layer; None if it is plain."""
    with members.open(member) as file:
        head = file.read(_HEAD_BYTES)
        kind = _compression(head)
        if kind is None:
            return None
        import hashlib

        sha256 = hashlib.sha256(head)
        while data := file.read(BLOCK_BYTES):
            sha256.update(data)
    return Descriptor(kind, Digest("sha256:" + sha256.hexdigest()), member.size)


def _compression(head: bytes) -> str | None:
    """Return the media type of a compressed layer that begins so; None for a plain one."""
    return next((kind for magic, kind in _COMPRESSED if head.startswith(magic)), None)


def blob_name(digest: AnyDigest) -> str:
    """Return the name of the file with a blob. Spec: image-spec image-layout.md."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _check_size(descriptor: Descriptor, actual: int) -> None:
    if actual != descriptor.size:
        raise DigestMismatchError(f"blob {descriptor.digest}: has {actual} bytes, expected {descriptor.size}")
