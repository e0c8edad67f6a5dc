"""A blob in a registry, read as it comes, and again from where it broke off."""

from __future__ import annotations

import http.client
import io
import re
from contextlib import suppress
from typing import Final

from ocidiff.errors import DigestMismatchError, RegistryError
from ocidiff.oci.descriptor import Descriptor
from ocidiff.transport.copy import delay_seconds
from ocidiff.transport.registry.auth import Scopes
from ocidiff.transport.registry.client import MOST_ATTEMPTS, Client
from ocidiff.transport.registry.response import BROKEN, Response

_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_SKIPPED_BYTES: Final = 1 << 20


class RegistryBlob(io.RawIOBase):
    """A blob, for reading. The first read asks for it, from the position on.

    Args:
        client: The registry.
        path: Path of the blob in the API.
        scopes: The rights that it needs.
        descriptor: The blob.

    Raises:
        NotFoundError: There is no such blob.
        DigestMismatchError: It has another length.
    """

    def __init__(self, client: Client, path: str, scopes: Scopes, descriptor: Descriptor) -> None:
        self._client, self._path, self._scopes, self._descriptor = client, path, scopes, descriptor
        self._at = 0
        self._response: Response | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: the registry is asked for the rest."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset from the beginning."""
        if whence != io.SEEK_SET or not offset >= 0:
            raise io.UnsupportedOperation("only offsets from the beginning are supported")
        if offset != self._at:
            self._drop()
            self._at = offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size`; none at the end.

        Raises:
            RegistryError: The connection broke too often.
        """
        left = self._descriptor.size - self._at
        if left <= 0 or size == 0:
            return b""
        attempt = 1
        while True:
            try:
                if self._response is None:
                    self._response = self._open()
                data = self._response.read(left if size < 0 else min(size, left))
                if data:
                    self._at += len(data)
                    return data
                failure: Exception = http.client.IncompleteRead(b"", left)
            except BROKEN as error:
                failure = error
            self._drop()
            if attempt == MOST_ATTEMPTS:
                problem = f"the connection ended {left} bytes too early, {attempt} times"
                raise RegistryError(f"{self._client.host}: blob {self._descriptor.digest}: {problem}") from failure
            self._client.wait(delay_seconds(attempt))
            attempt += 1

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _open(self) -> Response:
        """Ask for the blob, from the position on."""
        size = self._descriptor.size
        headers = {"Range": f"bytes={self._at}-"} if self._at else {}
        response = self._client.request("GET", self._path, self._scopes, headers=headers, accepted=(200, 206))
        try:
            match = _RANGE.fullmatch(response.header("Content-Range").strip()) if response.status == 206 else None
            if response.status == 206 and (match is None or int(match[1]) != self._at):
                raise RegistryError(f"{self._client.host}: blob {self._descriptor.digest}: another range than was asked for")
            total = (match[2] if match else response.header("Content-Length")).strip()
            if total.isdecimal() and (total.lstrip("0") or "0") != str(size):
                raise DigestMismatchError(
                    f"{self._client.host}: blob {self._descriptor.digest}: {total[:100]} bytes, expected {size}"
                )
            skipped = self._at if response.status == 200 else 0
            while skipped:
                data = response.read(min(skipped, _SKIPPED_BYTES))
                if not data:
                    raise http.client.IncompleteRead(b"", skipped)
                skipped -= len(data)
        except BaseException:
            response.close()
            raise
        return response

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def close(self) -> None:
        """Let the connection be used again, or close it."""
        with suppress(*BROKEN):
            self._drop()
        super().close()
