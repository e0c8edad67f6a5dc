"""`docker://HOST/REPO[:TAG][@DIGEST]`: a repository of a registry as a place of images. Spec: distribution-spec 1.1."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final, cast
from urllib.parse import urlencode

from ocidiff.errors import DigestMismatchError, DocumentError, NotFoundError, RegistryError, UnsupportedError, UsageError
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES, Members, parse_object
from ocidiff.oci.index import Entry, Index
from ocidiff.services.content import Info
from ocidiff.transport.place import ORIGIN, Access
from ocidiff.transport.registry.blob import RegistryBlob
from ocidiff.transport.registry.client import Client
from ocidiff.transport.registry.name import RegistryName, check_tag
from ocidiff.transport.registry.response import Response, joined
from ocidiff.transport.registry.upload import RegistryIngest, Session, location_of, resumed
from ocidiff.transport.scheme import Registry

_ACCEPTED: Final = ", ".join(sorted(media_type.DOCUMENTS))
_MOST_PAGES: Final = 100
_MOST_MOUNTS: Final = 3


@contextmanager
def open_source(scheme: str, value: str, access: Access) -> Iterator[RegistrySource]:
    """Yield an image of a registry, to read from."""
    name = RegistryName.parse(value)
    client = Client(name.host, name.repository, access.registry, access.monitor)
    try:
        yield RegistrySource(scheme, name, client)
    finally:
        client.close()


@contextmanager
def open_target(scheme: str, value: str, access: Access) -> Iterator[RegistryTarget]:
    """Yield a name in a registry, to write to."""
    name = RegistryName.parse(value)
    client = Client(name.host, name.repository, access.registry, access.monitor)
    try:
        yield RegistryTarget(scheme, name, client, access.registry)
    finally:
        client.close()


class _Repository:
    """The common part of reading and writing."""

    def __init__(self, scheme: str, name: RegistryName, client: Client, rights: str) -> None:
        self.place: Final = f"{scheme}{name}"
        self._name, self._client = name, client
        self._scopes = (f"repository:{name.repository}:{rights}",)

    def _path(self, kind: str, reference: str) -> str:
        return f"/v2/{self._name.repository}/{kind}/{reference}"

    def _there(self, kind: str, reference: str) -> Response | None:
        """Return the answer to a question for a manifest or blob, closed; None if it is not there."""
        headers = {"Accept": _ACCEPTED} if kind == "manifests" else {}
        path = self._path(kind, reference)
        with self._client.request("HEAD", path, self._scopes, headers=headers, accepted=(200, 404)) as answer:
            return answer if answer.status == 200 else None

    def _manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """Return a manifest or an index, verified, and its bytes.

        Raises:
            NotFoundError: There is none.
            DigestMismatchError: It is not the one that was asked for.
        """
        path = self._path("manifests", reference)
        with self._client.request("GET", path, self._scopes, headers={"Accept": _ACCEPTED}) as answer:
            data = _whole(answer, f"{self.place}: manifest")
            kind = answer.header("Content-Type").partition(";")[0].strip()
            told = answer.header("Docker-Content-Digest")
        digest = Digest.of(data)
        for expected in (reference if ":" in reference else "", told):
            if expected.startswith("sha256:") and expected != digest:
                raise DigestMismatchError(f"{self.place}: manifest {expected[:100]}: holds {digest}")
        if kind not in media_type.DOCUMENTS:
            stated = parse_object(data, self.place).get("mediaType")
            kind = stated if isinstance(stated, str) else kind
        if kind not in media_type.DOCUMENTS:
            raise UnsupportedError(f"{self.place}: media type {kind[:100]!r} is no manifest or index of today")
        return Descriptor(kind, digest, len(data)), data

    def stop(self) -> None:
        """See `Source.stop`."""
        self._client.stop()


class RegistrySource(_Repository):
    """A `Source`, and its own `Provider`."""

    def __init__(self, scheme: str, name: RegistryName, client: Client) -> None:
        super().__init__(scheme, name, client, "pull")
        self._documents: dict[Digest, bytes] = {}

    @property
    def content(self) -> RegistrySource:
        """See `Source.content`."""
        return self

    def resolve(self) -> Descriptor:
        """See `Source.resolve`."""
        try:
            descriptor, data = self._manifest(self._name.reference)
        except NotFoundError as error:
            raise NotFoundError(f"{self.place}: no such image: {error}") from None
        self._documents[descriptor.digest] = data
        return descriptor

    def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """See `Source.referrers`; registries of before distribution-spec 1.1 have them under a tag."""
        path: str = self._path("referrers", digest)
        found: list[Descriptor] = []
        for _ in range(_MOST_PAGES):
            with self._client.request("GET", path, self._scopes, accepted=(200, 404, 400, 405)) as answer:
                if answer.status != 200 or answer.header("Content-Type").partition(";")[0] != media_type.INDEX:
                    return self._tagged(digest)
                data = _whole(answer, f"{self.place}: referrers")
                path = _next_page(answer)
            found += Index.parse(data, media_type.INDEX, f"{self.place}: referrers").manifests
            if not path:
                break
        return found

    def _tagged(self, digest: Digest) -> Sequence[Descriptor]:
        try:
            descriptor, data = self._manifest(_referrers_tag(digest))
        except NotFoundError:
            return ()
        if descriptor.media_type != media_type.INDEX:
            return ()
        return Index.parse(data, descriptor.media_type, f"{self.place}: referrers").manifests

    def remember(self, digests: Sequence[Digest], label: str, repository: str) -> None:
        """See `Source.remember`; `info` knows this repository alone."""

    def contains(self, digest: AnyDigest) -> bool:
        """See `Provider.contains`."""
        return any(self._there(kind, digest) is not None for kind in ("blobs", "manifests"))

    def info(self, digest: Digest) -> Info:
        """See `Provider.info`; nothing but the label that says where it comes from is known without a request."""
        return Info(digest, 0, 0, {f"{ORIGIN}{self._name.host}": self._name.repository})

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """See `Provider.open_blob`."""
        kind = "manifests" if descriptor.media_type in media_type.DOCUMENTS else "blobs"
        return cast("BinaryIO", RegistryBlob(self._client, self._path(kind, descriptor.digest), self._scopes, descriptor))

    def read(self, descriptor: Descriptor) -> bytes:
        """See `Provider.read`."""
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise DocumentError(f"blob {descriptor.digest}: {descriptor.size} bytes, limit {MAX_DOCUMENT_BYTES}")
        known = self._documents.pop(descriptor.digest, None)
        if known is None and descriptor.media_type in media_type.DOCUMENTS:
            known = self._manifest(descriptor.digest)[1]
        if known is None:
            with self.open_blob(descriptor) as blob:
                known = b"".join(iter(lambda: blob.read(descriptor.size), b""))
            if Digest.of(known) != descriptor.digest:
                raise DigestMismatchError(f"{self.place}: blob {descriptor.digest}: holds {Digest.of(known)}")
        if len(known) != descriptor.size:
            raise DigestMismatchError(
                f"{self.place}: blob {descriptor.digest}: {len(known)} bytes, expected {descriptor.size}"
            )
        return known


class RegistryTarget(_Repository):
    """A `Target`."""

    streams: Final = 4
    # Registries refuse an index some of whose images are missing.
    accepts_parts: Final = False

    def __init__(self, scheme: str, name: RegistryName, client: Client, registry: Registry) -> None:
        super().__init__(scheme, name, client, "pull,push")
        self._registry = registry
        self.origin: Final = (f"{ORIGIN}{name.host}", name.repository)
        self._tags = dict.fromkeys([*([name.tag] if name.tag else []), *map(check_tag, registry.tags)])
        self._sessions: dict[Digest, Session] = {}
        self._lock = threading.Lock()
        self._written: dict[Digest, bytes] = {}
        self._lists_referrers: set[Digest] = set()

    def check(self, root: Descriptor) -> None:
        """See `Target.check`."""
        if self._name.digest not in {None, root.digest}:
            raise UsageError(f"{self.place}: the image has the digest {root.digest}")

    def contains(self, descriptor: Descriptor, check: Callable[[], None]) -> bool:  # noqa: ARG002 - of the protocol
        """See `Target.contains`."""
        kind = "manifests" if descriptor.media_type in media_type.DOCUMENTS else "blobs"
        return self._there(kind, descriptor.digest) is not None

    def borrow(self, descriptor: Descriptor, labels: Mapping[str, str]) -> bool:
        """See `Target.borrow`: a repository of the same registry that had the blob may have it still."""
        known = labels.get(f"{ORIGIN}{self._name.host}", "").split(",")
        others = [one for one in known if one and one != self._name.repository]
        for other in others[-_MOST_MOUNTS:]:
            scopes = (*self._scopes, f"repository:{other}:pull")
            path = f"{self._path('blobs', 'uploads')}/?" + urlencode({"mount": descriptor.digest, "from": other})
            try:
                with self._client.request("POST", path, scopes, accepted=(201, 202)) as answer:
                    if answer.status == 201:
                        return True
                    # The registry began an upload instead, which is used.
                    self._sessions[descriptor.digest] = Session.of(answer)
            except (RegistryError, NotFoundError):
                # A user who may not read the other repository can still send the blob.
                continue
        return False

    def ingest(self, descriptor: Descriptor) -> RegistryIngest:
        """See `Target.ingest`."""
        session = self._sessions.get(descriptor.digest)
        session = None if session is None else resumed(self._client, self._scopes, session)
        if session is None or session.offset > descriptor.size:
            path = f"{self._path('blobs', 'uploads')}/"
            with self._client.request("POST", path, self._scopes, accepted=(202,)) as answer:
                session = Session.of(answer)
        self._sessions[descriptor.digest] = session
        return RegistryIngest(self._client, self._scopes, descriptor, session, self._registry.chunk_bytes)

    def abort(self, descriptor: Descriptor) -> None:
        """See `Target.abort`."""
        self._sessions.pop(descriptor.digest, None)

    def write(self, descriptor: Descriptor, data: bytes, labels: Mapping[str, str]) -> None:  # noqa: ARG002 - of the protocol
        """See `Target.write`."""
        if descriptor.media_type in media_type.DOCUMENTS:
            self._written[descriptor.digest] = data
            self._put_manifest(descriptor.digest, descriptor.media_type, data)
            return
        with self._client.request("POST", f"{self._path('blobs', 'uploads')}/", self._scopes, accepted=(202,)) as answer:
            place = location_of(answer)
        url = f"{place}{'&' if '?' in place else '?'}" + urlencode({"digest": descriptor.digest})
        headers = {"Content-Type": "application/octet-stream"}
        with self._client.request("PUT", url, self._scopes, headers=headers, body=data, accepted=(201, 204)):
            pass

    def _put_manifest(self, reference: str, kind: str, data: bytes) -> None:
        path = self._path("manifests", reference)
        headers = {"Content-Type": kind}
        with self._client.request("PUT", path, self._scopes, headers=headers, body=data, accepted=(201, 202)) as answer:
            stored = answer.header("Docker-Content-Digest")
            if stored.startswith("sha256:") and stored != Digest.of(data):
                raise DigestMismatchError(f"{self.place}: manifest {Digest.of(data)}: stored as {stored[:100]}")
            if answer.header("OCI-Subject"):
                self._lists_referrers.add(Digest.of(data))

    def attach(self, referrer: Descriptor, subject: Digest) -> None:
        """See `Target.attach`; a registry of before distribution-spec 1.1 keeps a list under a tag."""
        if referrer.digest in self._lists_referrers or referrer.digest not in self._written:
            return
        index, tag = Index(), _referrers_tag(subject)
        try:
            descriptor, data = self._manifest(tag)
            if descriptor.media_type == media_type.INDEX:
                index = Index.parse(data, descriptor.media_type, f"{self.place}: referrers")
        except NotFoundError:
            pass
        if all(entry.digest != referrer.digest for entry in index.entries):
            told = _told(referrer, self._written[referrer.digest])
            index = Index((*index.entries, Entry.of(told)), index.before, index.after)
            self._put_manifest(tag, media_type.INDEX, index.encode())

    def put(self, descriptor: Descriptor) -> None:
        """See `Target.put`."""
        for tag in self._tags:
            there = self._there("manifests", tag)
            if there is not None and there.header("Docker-Content-Digest") == descriptor.digest:
                continue
            data = self._written.get(descriptor.digest) or self._manifest(descriptor.digest)[1]
            self._put_manifest(tag, descriptor.media_type, data)


def _told(referrer: Descriptor, data: bytes) -> Descriptor:
    """Return the descriptor of a referrer with what a list says of it. Spec: distribution-spec "Listing Referrers"."""
    members = Members(parse_object(data, f"manifest {referrer.digest}"), f"manifest {referrer.digest}")
    config = members.object_map("config").get("mediaType")
    kind = members.text("artifactType") or (config if isinstance(config, str) else "")
    extra = {"artifactType": kind} if kind else {}
    return Descriptor(referrer.media_type, referrer.digest, referrer.size, members.text_map("annotations"), extra)


def _referrers_tag(digest: Digest) -> str:
    return digest.replace(":", "-")


def _whole(answer: Response, what: str) -> bytes:
    """Return the body of a document."""
    data = b""
    while len(data) <= MAX_DOCUMENT_BYTES:
        more = answer.read(MAX_DOCUMENT_BYTES + 1 - len(data))
        if not more:
            return data
        data += more
    raise DocumentError(f"{what}: larger than {MAX_DOCUMENT_BYTES} bytes")


def _next_page(answer: Response) -> str:
    """Return the URL of the next page of a list; empty if there is none."""
    for link in answer.headers("Link"):
        place, _, rest = link.partition(">")
        if place.startswith("<") and 'rel="next"' in rest.replace("'", '"'):
            return joined(answer.url, place[1:])
    return ""
