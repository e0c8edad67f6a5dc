"""HTTP: connections that are used again, bodies that are streamed both ways, proxies and redirects. Knows no registry."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, cast
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from ocidiff.errors import RegistryError, UsageError
from ocidiff.transport.registry.pace import Answer
from ocidiff.transport.registry.response import BROKEN, Response, is_loopback, joined

_CONNECT_SECONDS: Final = 15
_SILENT_SECONDS: Final = 60
# For an answer that came before the end of the request.
_EARLY_SECONDS: Final = 1
# Sent within `_SILENT_SECONDS`, or the server does not take it.
_PART_BYTES: Final = 16 << 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
_PORTS: Final = {"http": 80, "https": 443}
_UNKNOWN_NAMES: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

Key = tuple[str, str, int]


class Sending:
    """A request whose body is sent piece by piece.

    Attributes:
        left: Bytes of the body that are not sent yet.
        secret: The header `Authorization` that was sent.
    """

    secret = ""

    def __init__(self, pool: Pool, connection: http.client.HTTPConnection, key: Key, url: str, left: int) -> None:
        self._pool, self._connection, self._key, self._url = pool, connection, key, url
        self.left = left

    def send(self, data: memoryview | bytes) -> None:
        """Send the next bytes of the body."""
        _send(self._connection, data)
        self.left -= len(data)

    def answer(self, seconds: float = _SILENT_SECONDS) -> Response:
        """Return the answer, also if it came before the end of the body."""
        return self._pool.answer(self._connection, self._key, self._url, seconds)

    def drop(self) -> None:
        """Close the connection."""
        self._pool.drop(self._connection)


class Pool:
    """Connections to any hosts, used again. Safe from several threads.

    Args:
        context: Returns how TLS is spoken with a host and port.
    """

    def __init__(self, context: Callable[[str], ssl.SSLContext]) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._idle: dict[Key, list[http.client.HTTPConnection]] = {}
        self._open: dict[http.client.HTTPConnection, socket.socket | None] = {}
        self._stopped = False
        self._proxies = getproxies_environment()

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            connections, self._open, self._idle = list(self._open), {}, {}
        for connection in connections:
            connection.close()

    def stop(self) -> None:
        """Let whoever waits for a connection fail, and give no more of them."""
        with self._lock:
            self._stopped = True
            # A connection forgets the socket of the last answer that comes through it.
            sockets = [sock for sock in self._open.values() if sock is not None]
        for sock in sockets:
            try:
                # TLS has a shutdown of its own, which waits for the other side.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                continue

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", secret: str = "", *, follow: bool = True
    ) -> Response:
        """Send a request, follow where it leads, and return the answer.

        Args:
            method: The method.
            url: An absolute URL.
            headers: The headers.
            body: The body.
            secret: Value of the header `Authorization`, for this host alone; empty for none.
            follow: Follow redirects.

        Raises:
            OSError, http.client.HTTPException: The connection failed.
            RegistryError: A redirect leads nowhere, or from HTTPS to HTTP.
        """
        first, target = urlsplit(url), url
        for _ in range(_MOST_REDIRECTS + 1):
            parts = urlsplit(target)
            is_first_host = (parts.scheme, parts.netloc) == (first.scheme, first.netloc)
            own = {**headers, "Authorization": secret} if secret and is_first_host else headers
            try:
                response = self._exchange(method, target, own, body)
            except ConnectionRefusedError as error:
                if is_first_host:
                    raise
                raise RegistryError(f"{first.netloc}: redirects to {parts.netloc}: {error.strerror}") from None
            if not follow or response.status not in _REDIRECTS:
                return response
            place = response.header("Location")
            response.close()
            if not place:
                raise RegistryError(f"{first.netloc}: redirect without a Location header: HTTP status {response.status}")
            target = joined(target, place)
            scheme = urlsplit(target).scheme
            if scheme not in _PORTS:
                raise RegistryError(f"{first.netloc}: redirects to {target[:100]!r}: not an HTTP URL")
            if first.scheme == "https" and scheme != "https":
                raise RegistryError(f"{first.netloc}: redirects from HTTPS to HTTP")
        raise RegistryError(f"{first.netloc}: redirects more than {_MOST_REDIRECTS} times")

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        while True:
            connection, key, is_used = self._take(url)
            try:
                self._begin(connection, method, url, headers, len(body))
                try:
                    _send(connection, body)
                except BROKEN:
                    if is_used:
                        raise
                    # A server may refuse a request before it has read all of it.
                    return self.answer(connection, key, url, _EARLY_SECONDS)
                return self.answer(connection, key, url)
            except BROKEN:
                self.drop(connection)
                # The server may have closed one that was idle.
                if not is_used:
                    raise
            except BaseException:
                self.drop(connection)
                raise

    def sending(self, method: str, url: str, headers: Mapping[str, str], size: int) -> Sending:
        """Begin a request whose body has this size."""
        # A new connection, since the body cannot be sent again if an idle one turns out to be closed.
        connection, key, _ = self._take(url, idle=False)
        try:
            self._begin(connection, method, url, headers, size)
        except BaseException:
            self.drop(connection)
            raise
        return Sending(self, connection, key, url, size)

    def _begin(
        self, connection: http.client.HTTPConnection, method: str, url: str, headers: Mapping[str, str], size: int
    ) -> None:
        parts = urlsplit(url)
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        if parts.scheme == "http" and (connection.host, connection.port) != _address(parts):
            # A proxy needs to know the host.
            target = parts._replace(fragment="").geturl()
        connection.putrequest(method, target, skip_host=True)
        connection.putheader("Host", parts.netloc.rpartition("@")[2])
        for name, value in headers.items():
            connection.putheader(name, value)
        if size or method in {"POST", "PUT", "PATCH"}:
            connection.putheader("Content-Length", str(size))
        connection.endheaders()

    def answer(self, connection: http.client.HTTPConnection, key: Key, url: str, seconds: float | None = None) -> Response:
        """Return the answer to the request that was sent, which begins within some seconds."""
        sock = connection.sock
        if seconds is not None and sock is not None:
            sock.settimeout(seconds)
        answer = cast("Answer", connection.getresponse())
        if sock is not None:
            sock.settimeout(_SILENT_SECONDS)

        def done(whole: bool) -> None:
            if whole and connection.sock is not None:
                connection.sock.settimeout(_SILENT_SECONDS)
                with self._lock:
                    self._idle.setdefault(key, []).append(connection)
            else:
                self.drop(connection)

        return Response(answer, url, done)

    def drop(self, connection: http.client.HTTPConnection) -> None:
        """Close a connection."""
        with self._lock:
            self._open.pop(connection, None)
        connection.close()

    def _take(self, url: str, *, idle: bool = True) -> tuple[http.client.HTTPConnection, Key, bool]:
        """Return a connection for a URL, what to keep it by, and true if it was used before."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise RegistryError(f"{url[:100]!r}: not an HTTP URL")
        key = (parts.scheme, *_address(parts))
        with self._lock:
            if idle and not self._stopped and self._idle.get(key):
                return self._idle[key].pop(), key, True
        connection = self._connection(parts)
        connection.response_class = partial(Answer, parts.netloc)  # type: ignore[assignment]
        self._note(connection)
        try:
            connection.connect()
            self._note(connection)
            connection.sock.settimeout(_SILENT_SECONDS)
            # Requests have two small parts, which must not wait for one another.
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except socket.gaierror as error:
            self.drop(connection)
            if error.errno not in _UNKNOWN_NAMES:
                raise
            raise RegistryError(f"{parts.netloc}: {error.strerror}") from None
        except BaseException:
            self.drop(connection)
            raise
        return connection, key, False

    def _note(self, connection: http.client.HTTPConnection) -> None:
        """Note a connection, and the socket that it has by now, for `stop`."""
        with self._lock:
            if self._stopped:
                raise ConnectionAbortedError("stopped")
            self._open[connection] = connection.sock

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        host, port = _address(parts)
        proxy = self._proxies.get(parts.scheme, "")
        if not proxy or is_loopback(parts.netloc) or proxy_bypass(parts.netloc):
            if parts.scheme == "http":
                return http.client.HTTPConnection(host, port, timeout=_CONNECT_SECONDS)
            return http.client.HTTPSConnection(host, port, timeout=_CONNECT_SECONDS, context=self._context(parts.netloc))
        via = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        if via.scheme not in {"", "http"} or not via.hostname:
            raise UsageError(f"{parts.scheme}_proxy: must be http://HOST:PORT")
        secret = base64.b64encode(f"{unquote(via.username)}:{unquote(via.password or '')}".encode()) if via.username else b""
        headers = {"Proxy-Authorization": f"Basic {secret.decode()}"} if secret else {}
        address = (via.hostname, via.port or _PORTS["http"])
        if parts.scheme == "http":
            return _ThroughProxy(*address, timeout=_CONNECT_SECONDS, headers=headers)
        context = self._context(parts.netloc)
        connection = http.client.HTTPSConnection(*address, timeout=_CONNECT_SECONDS, context=context)
        connection.set_tunnel(host, port, headers)
        return connection


def _send(connection: http.client.HTTPConnection, data: memoryview | bytes) -> None:
    """Send bytes of a body, each part within the time that a server may be silent."""
    rest = memoryview(data)
    for start in range(0, len(rest), _PART_BYTES):
        connection.send(rest[start : start + _PART_BYTES])


class _ThroughProxy(http.client.HTTPConnection):
    """A connection to a proxy, which is told who asks with each request."""

    def __init__(self, host: str, port: int, *, timeout: float, headers: Mapping[str, str]) -> None:
        super().__init__(host, port, timeout=timeout)
        self._for_proxy = headers

    def endheaders(self, message_body: object = None, *, encode_chunked: bool = False) -> None:
        for name, value in self._for_proxy.items():
            self.putheader(name, value)
        super().endheaders(message_body, encode_chunked=encode_chunked)  # type: ignore[arg-type]


def _address(parts: SplitResult) -> tuple[str, int]:
    try:
        return parts.hostname or "", parts.port or _PORTS[parts.scheme]
    except ValueError:
        raise RegistryError(f"{parts.netloc[:100]!r}: is no host with a port") from None
