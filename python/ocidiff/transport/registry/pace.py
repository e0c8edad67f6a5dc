"""Pace: how slowly a server may answer, and how much it may say beside the body. Ends answers that drip or have no end."""

from __future__ import annotations

import http.client
import io
import socket
from time import monotonic
from typing import TYPE_CHECKING, Final

from ocidiff.errors import RegistryError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FEWEST_BYTES_A_SECOND: Final = 100
"""Less than this, over the time in which a server must not be silent, is no progress."""

# Status lines, headers, trailers and what frames chunks. http.client takes any number of them.
_MOST_BYTES_BESIDE: Final = 256 << 10
# Of a body in tiny chunks; those have no end either if nothing is asked of their size.
_BYTES_FOR_A_BYTE: Final = 2
_SWITCHING: Final = 101
_FIRST_FINAL: Final = 200


class Paced(io.RawIOBase):
    """The bytes of an answer.

    Args:
        sock: Where they come from. Its timeout is also the time over which the pace is measured.
        raw: The bytes as a file, to be closed with this.
        host: The server, for messages.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, host: str) -> None:
        self._sock, self._raw, self._host = sock, raw, host
        self._allowed = _MOST_BYTES_BESIDE
        self._waited, self._came = 0.0, 0
        self._until: float | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def expect(self, count: int) -> None:
        """Let so many bytes of the body come, and what frames them."""
        self._allowed += _BYTES_FOR_A_BYTE * count

    def hurry(self, seconds: float) -> None:
        """Let the rest of the answer come in this time."""
        self._until = monotonic() + seconds

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into a buffer.

        Raises:
            TimeoutError: The server says nothing.
            RegistryError: It drips, or has said too much.
        """
        begun = monotonic()
        if self._until is not None:
            if begun >= self._until:
                raise TimeoutError("timed out")
            self._sock.settimeout(self._until - begun)
        count = self._raw.readinto(buffer) or 0
        self._waited += monotonic() - begun
        self._came += count
        self._allowed -= count
        if self._allowed < 0:
            raise RegistryError(f"{self._host}: response too long: over {_MOST_BYTES_BESIDE >> 10} KiB besides the body")
        span = self._sock.gettimeout()
        if span is not None and self._waited >= span:
            if self._came < span * FEWEST_BYTES_A_SECOND:
                raise RegistryError(f"{self._host}: sends less than {FEWEST_BYTES_A_SECOND} bytes a second")
            self._waited, self._came = 0.0, 0
        return count

    def close(self) -> None:
        """Close the file; the connection stays."""
        self._raw.close()
        super().close()


class Answer(http.client.HTTPResponse):
    """The answer of a server, read at its pace.

    Args:
        host: The server, for messages.
        sock: Where it comes from.
        debuglevel, method, url: See `http.client.HTTPResponse`.
    """

    def __init__(
        self, host: str, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.bytes: Final = Paced(sock, self.fp.detach(), host)
        self.fp = io.BufferedReader(self.bytes)

    def _read_status(self) -> tuple[str, int, str]:
        """Skip what a server says before its answer; http.client knows 100 alone. Spec: RFC 9110, 15.2."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not _SWITCHING < status < _FIRST_FINAL:
                return version, status, reason
            http.client.parse_headers(self.fp)
