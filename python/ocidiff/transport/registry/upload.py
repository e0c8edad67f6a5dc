"""Upload: a blob on its way into a registry, in one request or in chunks, which goes on where it broke off."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, NoReturn, Self

from ocidiff.errors import DigestMismatchError, NotFoundError, RegistryError, UnsupportedError
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.transport.place import BrokenTransferError
from ocidiff.transport.registry.auth import Scopes
from ocidiff.transport.registry.client import Client
from ocidiff.transport.registry.http import Sending
from ocidiff.transport.registry.response import BROKEN, BUSY, Response, joined, retry_after

# A registry may copy the whole blob before it answers.
_COMMIT_SECONDS: Final = 600.0
_RANGE: Final = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


class Session:
    """An upload that a registry has begun.

    Args:
        location: URL of its next request.
        offset: Bytes that the registry has.
        fewest_bytes: Least size of a chunk that is not the last.

    Attributes:
        is_sure: False after a failure: the registry has to be asked how much it has.
    """

    def __init__(self, location: str, offset: int = 0, *, fewest_bytes: int = 0) -> None:
        self.location, self.offset, self.fewest_bytes = location, offset, fewest_bytes
        self.is_sure = True

    @classmethod
    def of(cls, answer: Response) -> Self:
        """Return the session that an answer to the first request tells of."""
        fewest = answer.header("OCI-Chunk-Min-Length")
        return cls(location_of(answer), fewest_bytes=int(fewest) if fewest.isdecimal() and len(fewest) < 12 else 0)


def location_of(answer: Response) -> str:
    """Return where an upload goes on."""
    place = answer.header("Location")
    if not place:
        raise RegistryError(f"{answer.url[:100]}: began an upload without saying where")
    return joined(answer.url, place)


class RegistryIngest:
    """An `Ingest`.

    Args:
        client: The registry.
        scopes: The rights that it needs.
        descriptor: The blob.
        session: The upload.
        chunk_bytes: Size of a request; 0 for one request with all.
    """

    def __init__(self, client: Client, scopes: Scopes, descriptor: Descriptor, session: Session, chunk_bytes: int) -> None:
        self._client, self._scopes, self._descriptor, self._session = client, scopes, descriptor, session
        # A begun upload goes on in chunks, since not every registry takes the rest with the last request.
        self._chunk_bytes = max(chunk_bytes, session.fewest_bytes) if chunk_bytes else 0
        self._in_chunks = bool(chunk_bytes) or session.offset > 0
        self._sending: Sending | None = None
        self._offset = session.offset
        self._sha256 = hashlib.sha256() if not session.offset else None

    @property
    def offset(self) -> int:
        """See `Ingest.offset`."""
        return self._offset

    def fileno(self) -> int:
        """See `Ingest.fileno`; a registry takes bytes through `write` only."""
        raise UnsupportedError(f"{self._client.host}: an upload is no file")

    def restart(self) -> None:
        """See `Ingest.restart`."""
        self._drop()
        self._session.is_sure = False
        self._session.location = ""
        raise BrokenTransferError(f"{self._client.host}: the upload begins again")

    def write(self, data: bytes) -> None:
        """See `Ingest.write`.

        Raises:
            BrokenTransferError: The connection failed; another ingest goes on.
        """
        if self._sha256 is not None:
            self._sha256.update(data)
        rest = memoryview(data)
        while rest:
            if self._sending is None:
                self._begin()
            rest = rest[self._send(rest) :]

    def _begin(self) -> None:
        left = self._descriptor.size - self._offset
        headers = {"Content-Type": "application/octet-stream"}
        method, url = "PUT", self._with_digest()
        if self._in_chunks:
            left = min(left, self._chunk_bytes or left)
            method, url = "PATCH", self._session.location
            headers["Content-Range"] = f"{self._offset}-{self._offset + left - 1}"
        try:
            self._sending = self._client.sending(method, url, self._scopes, headers, left)
        except BROKEN as error:
            self._break(error)

    def _send(self, data: memoryview) -> int:
        sending = self._sending
        if sending is None:
            raise ValueError("nothing was begun")
        part = data[: sending.left]
        try:
            sending.send(part)
        except BROKEN as error:
            self._early(sending, error)
        self._offset += len(part)
        if not sending.left and self._in_chunks:
            self._end_chunk(sending)
        return len(part)

    def _early(self, sending: Sending, error: BaseException) -> NoReturn:
        """Raise what a registry said before it closed the connection, else that it did."""
        try:
            answer = sending.answer(1.0)
        except BROKEN:
            self._break(error)
        with answer:
            self._refused(answer)
        self._break(error)

    def _end_chunk(self, sending: Sending) -> None:
        try:
            answer = sending.answer(_COMMIT_SECONDS)
        except BROKEN as error:
            self._break(error)
        with answer:
            if answer.status != 202:
                self._refused(answer)
            self._session.location = location_of(answer)
            self._session.offset = self._offset
            self._sending = None
            has = _range_end(answer.header("Range"))
            if has is not None and has != self._offset:
                self._break(RegistryError(f"took {has} of {self._offset} bytes"))

    def _refused(self, answer: Response) -> None:
        """Raise what an answer to a part of the blob stands for."""
        if answer.status == 401:
            self._client.renew(answer, self._scopes, self._sending.secret if self._sending is not None else "")
            self._break(RegistryError("the token has expired"))
        failure = self._client.failure(answer, f"upload of {self._descriptor.digest}")
        if answer.status in BUSY or answer.status == 416 or isinstance(failure, NotFoundError):
            self._break(failure, retry_after(answer))
        self._drop()
        if "DIGEST" in str(failure):
            raise DigestMismatchError(str(failure))
        if answer.status == 413:
            failure.add_note("--chunk-size sends smaller requests")
        raise failure

    def _break(self, error: BaseException, seconds: float | None = None) -> NoReturn:
        self._drop()
        self._session.is_sure = False
        if seconds is not None:
            self._client.leave_alone(seconds, error)
        raise BrokenTransferError(f"{self._client.host}: blob {self._descriptor.digest}: {error}") from None

    def _drop(self) -> None:
        if self._sending is not None:
            self._sending.drop()
            self._sending = None

    def _with_digest(self) -> str:
        location = self._session.location
        return f"{location}{'&' if '?' in location else '?'}digest={self._descriptor.digest}"

    def commit(
        self,
        size: int,
        digest: Digest,
        labels: Mapping[str, str] | None = None,  # noqa: ARG002 - of the protocol
        check: Callable[[], None] = lambda: None,  # noqa: ARG002 - of the protocol
    ) -> None:
        """See `Ingest.commit`."""
        if self._offset != size:
            self._drop()
            raise DigestMismatchError(f"blob {digest}: {self._offset} bytes written, expected {size}")
        if self._sha256 is not None and self._sha256.hexdigest() != digest.hex:
            self._drop()
            raise DigestMismatchError(f"blob {digest}: sha256:{self._sha256.hexdigest()} written")
        if self._sending is None:
            self._sending = self._last()
        try:
            answer = self._sending.answer(_COMMIT_SECONDS)
        except BROKEN as error:
            self._break(error)
        with answer:
            if answer.status not in {201, 204}:
                self._refused(answer)
            self._sending = None
            stored = answer.header("Docker-Content-Digest")
            if stored.startswith("sha256:") and stored != digest:
                raise DigestMismatchError(f"{self._client.host}: blob {digest}: stored as {stored[:100]}")

    def _last(self) -> Sending:
        """Begin the request that ends an upload whose bytes are all there."""
        headers = {"Content-Type": "application/octet-stream"}
        try:
            return self._client.sending("PUT", self._with_digest(), self._scopes, headers, 0)
        except BROKEN as error:
            self._break(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._drop()


def resumed(client: Client, scopes: Scopes, session: Session) -> Session | None:
    """Return an upload as the registry has it now; None if it is gone."""
    if session.is_sure:
        return session
    if not session.location:
        return None
    try:
        with client.request("GET", session.location, scopes, accepted=(204, 202, 200)) as answer:
            has = _range_end(answer.header("Range"))
            place = location_of(answer) if answer.header("Location") else session.location
    except (NotFoundError, RegistryError):
        return None
    return Session(place, has or 0, fewest_bytes=session.fewest_bytes)


def _range_end(header: str) -> int | None:
    """Return how many bytes a registry has; None if it does not say.

    Some say `0-0` where they have nothing: sending the first byte once more is refused by none, or begins the upload again.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        return None
    return int(match[1]) + 1 if match[1] != "0" else 0
