"""Responses of a server: headers, bodies that are read piece by piece, and the URLs that it names."""

from __future__ import annotations

import http.client
import ipaddress
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self
from urllib.parse import urljoin, urlsplit

from ocidiff.errors import RegistryError
from ocidiff.transport.registry.pace import Answer

BROKEN: Final = (OSError, http.client.HTTPException)
"""Exceptions of a failed connection."""

BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

# For what is left of an answer that nobody needs.
_REST_SECONDS: Final = 1
_MOST_REST_BYTES: Final = 1 << 16


class TryAgainError(http.client.HTTPException):
    """A server is busy.

    Args:
        message: What it says.
        seconds: How long it wants to be left alone; None if it does not say.
    """

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


def joined(base: str, place: str) -> str:
    """Return the URL that a server names, which may be relative to `base`.

    Raises:
        RegistryError: It is no URL that can be asked for.
    """
    try:
        url = urljoin(base, place)
        parts = urlsplit(url)
        # Ports out of range and hosts that no name can be fail here.
        _ = parts.port, (parts.hostname or "").encode("idna")
        is_url = url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        is_url = False
    if not is_url:
        raise RegistryError(f"{urlsplit(base).netloc}: leads to {place[:100]!r}, which is no URL")
    return url


def is_loopback(host: str) -> bool:
    """True if a host, with a port or without, is this machine by its own words."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Response:
    """An answer, whose body is read piece by piece; to be closed."""

    def __init__(self, answer: Answer, url: str, done: Callable[[bool], None]) -> None:
        self._answer, self._done = answer, done
        self.url: Final = url
        self.status: Final = answer.status

    def header(self, name: str) -> str:
        """Return a header; empty if there is none."""
        return self._answer.headers.get(name, "")

    def headers(self, name: str) -> list[str]:
        """Return a header each time it is there."""
        return self._answer.headers.get_all(name) or []

    def read(self, count: int) -> bytes:
        """Return the next bytes of the body, at most so many; none at its end."""
        self._answer.bytes.expect(count)
        try:
            return self._answer.read(count)
        except ValueError as error:
            # http.client takes sizes of chunks as int() does.
            raise http.client.HTTPException(f"malformed body: {error}") from None

    def close(self) -> None:
        """Let the connection be used again, if the body was read."""
        # Reading the rest of a short body takes less time than a new connection.
        if not self._answer.isclosed() and (self._answer.length or 0) <= _MOST_REST_BYTES:
            self._answer.bytes.hurry(_REST_SECONDS)
            try:
                self.read(_MOST_REST_BYTES)
            except (*BROKEN, RegistryError):
                self.drop()
                return
        is_whole = self._answer.isclosed()
        self._answer.close()
        self._done(is_whole)

    def drop(self) -> None:
        """Close the connection."""
        self._answer.close()
        self._done(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # An interrupt waits for nothing.
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:
            self.drop()


def retry_after(response: Response) -> float | None:
    """Return how many seconds a server wants to be left alone; None if it does not say."""
    text = response.header("Retry-After").strip()
    if text.isascii() and text.isdecimal():
        # Enough digits for any wait that is not refused, and few enough to convert.
        return float(text[:20])
    try:
        until = parsedate_to_datetime(text)
        return max(0.0, until.timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
