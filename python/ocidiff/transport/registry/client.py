"""Client: requests to one registry, with what it asks for as proof, again where that helps. Spec: distribution-spec 1.1."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Collection, Mapping
from time import monotonic
from typing import Final
from urllib.parse import urljoin, urlsplit

from ocidiff.errors import Cancelled, DeniedError, NotFoundError, RegistryError
from ocidiff.layer.monitor import SECONDS_BETWEEN_CHECKS, Monitor
from ocidiff.transport.copy import delay_seconds
from ocidiff.transport.registry.auth import Authority, Scopes
from ocidiff.transport.registry.certificates import tls_context
from ocidiff.transport.registry.credentials import credentials_for
from ocidiff.transport.registry.http import Pool, Sending
from ocidiff.transport.registry.name import DEFAULT_HOST
from ocidiff.transport.registry.response import BROKEN, BUSY, Response, TryAgainError, is_loopback, retry_after
from ocidiff.transport.scheme import Registry

MOST_ATTEMPTS: Final = 5
"""Of one request, or without a byte in between."""

# The API of Docker's registry has a host of its own.
_API_HOSTS: Final = {DEFAULT_HOST: f"registry-1.{DEFAULT_HOST}"}
# One may have ended by the time that it is used.
_MOST_TOKENS: Final = 3
_LONGEST_WAIT_SECONDS: Final = 300
_MAX_MESSAGE_BYTES: Final = 64 << 10
_SHOWN: Final = 200
_USER_AGENT: Final = "ocidiff"


class Client:
    """A registry. Safe from several threads.

    Args:
        host: Host and port, as users write them.
        repository: What credentials are looked for by.
        registry: How it is reached.
        monitor: Sees what the call waits for, and stops it.
    """

    def __init__(self, host: str, repository: str, registry: Registry, monitor: Monitor) -> None:
        self.host: Final = host
        self._monitor = monitor
        self._registry = registry
        self._stopped = threading.Event()
        self._pool = Pool(self._context)
        self._base = ""
        self._authority: Authority | None = None
        self._repository = repository
        self._lock = threading.Lock()

    def _context(self, netloc: str) -> ssl.SSLContext:
        own = _API_HOSTS.get(self.host, self.host)
        if netloc.lower() == own.lower():
            return tls_context(self.host, self._registry.cert_dir, insecure=self._registry.insecure)
        # Hosts of blobs or tokens have their own certificates.
        return tls_context(netloc, None, insecure=self._registry.insecure)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def stop(self) -> None:
        """Let every call of other threads fail soon."""
        self._stopped.set()
        self._pool.stop()

    def wait(self, seconds: float) -> None:
        """Wait, unless the call was stopped.

        Raises:
            Cancelled: It was.
        """
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._monitor.check()
            if self._stopped.wait(min(left, SECONDS_BETWEEN_CHECKS)):
                raise Cancelled("cancelled")

    def leave_alone(self, seconds: float, failure: BaseException) -> None:
        """Wait for as long as a registry asks for, and say so.

        Args:
            seconds: How long that is.
            failure: What happened.

        Raises:
            Cancelled: The call was stopped.
            RegistryError: It is too long.
        """
        if seconds > _LONGEST_WAIT_SECONDS:
            raise RegistryError(
                f"{failure}: asks to wait {seconds:.0f} s, limit {_LONGEST_WAIT_SECONDS} s: try again later"
            ) from failure
        if seconds >= 1:
            self._monitor.say(f"waiting {seconds:.0f} s, as the registry asks: {failure}")
        self.wait(seconds)

    def _reached(self) -> tuple[str, Authority]:
        """Return the URL of the registry, found out by the first call, and what it accepts from this user."""
        with self._lock:
            if self._authority is None:
                self._base = self._find_base()
                self._authority = Authority(
                    self.host, self._pool, lambda: credentials_for(self.host, self._repository), self._base
                )
            return self._base, self._authority

    def _find_base(self) -> str:
        host = _API_HOSTS.get(self.host, self.host)
        schemes: tuple[str, ...] = ("https",)
        if is_loopback(host):
            schemes = ("http", "https")
        elif self._registry.insecure:
            schemes = ("https", "http")
        if len(schemes) == 1:
            return f"https://{host}"
        failure: BaseException | None = None
        for scheme in schemes:
            try:
                with self._pool.request("GET", f"{scheme}://{host}/v2/", {}, follow=False) as response:
                    # A TLS server answers plain HTTP with 400, if at all.
                    if response.status != 400:
                        return f"{scheme}://{host}"
            except ssl.SSLCertVerificationError as error:
                raise self._broken(error) from None
            except BROKEN as error:
                failure = failure or error
        raise self._broken(failure or ConnectionError("speaks neither HTTP nor HTTPS"))

    def url(self, path: str) -> str:
        """Return the URL of a path of the API."""
        return urljoin(self._reached()[0], path)

    def request(
        self,
        method: str,
        path: str,
        scopes: Scopes,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        accepted: Collection[int] = (200,),
        follow: bool = True,
    ) -> Response:
        """Send a request until it succeeds or cannot succeed, and return the answer, to be closed.

        Args:
            method: The method.
            path: Path of the API, or a URL that the registry gave.
            scopes: The rights that it needs.
            headers: More headers.
            body: The body.
            accepted: The statuses to return.
            follow: Follow redirects.

        Raises:
            NotFoundError: Status 404.
            DeniedError: The registry refuses the user.
            RegistryError: Any other failure.
        """
        attempt = 1
        while True:
            delay: float | None = None
            try:
                response = self._once(method, path, scopes, headers or {}, body, follow=follow)
                if response.status in accepted:
                    return response
                delay = retry_after(response)
                with response:
                    failure: Exception = self.failure(response, f"{method} {path.partition('?')[0]}")
                    if response.status not in BUSY:
                        raise failure
            except ssl.SSLCertVerificationError as error:
                raise self._broken(error) from None
            except BROKEN as error:
                failure = self._broken(error)
                delay = error.seconds if isinstance(error, TryAgainError) else None
            if attempt == MOST_ATTEMPTS or self._stopped.is_set():
                raise failure
            if delay is None:
                self.wait(delay_seconds(attempt))
            else:
                self.leave_alone(delay, failure)
            attempt += 1

    def _once(
        self, method: str, path: str, scopes: Scopes, headers: Mapping[str, str], body: bytes, *, follow: bool
    ) -> Response:
        base, authority = self._reached()
        url = urljoin(base, path)
        is_own = url.startswith(base + "/")
        secret = authority.header(scopes) if is_own else ""
        headers = {"User-Agent": _USER_AGENT, **headers}
        for _ in range(_MOST_TOKENS):
            response = self._pool.request(method, url, headers, body, secret, follow=follow)
            # Its words on who asks count, and not those of a host that it redirects to.
            if response.status != 401 or not is_own or not response.url.startswith(base + "/"):
                return response
            with response:
                secret = authority.renew(response, scopes, secret)
        return self._pool.request(method, url, headers, body, secret, follow=follow)

    def sending(self, method: str, url: str, scopes: Scopes, headers: Mapping[str, str], size: int) -> Sending:
        """Begin a request with a long body; errors as those of a connection."""
        base, authority = self._reached()
        url = urljoin(base, url)
        is_own = url.startswith(base + "/")
        secret = authority.header(scopes) if is_own else ""
        own = {"User-Agent": _USER_AGENT, **headers, **({"Authorization": secret} if secret else {})}
        try:
            sending = self._pool.sending(method, url, own, size)
        except ConnectionRefusedError as error:
            if is_own:
                raise
            where = urlsplit(url).netloc
            raise RegistryError(f"{self.host}: upload URL at {where}: {error.strerror}") from None
        sending.secret = secret
        return sending

    def renew(self, response: Response, scopes: Scopes, sent: str) -> None:
        """Get a new token after a refusal in the middle of an upload.

        Raises:
            DeniedError: The registry refuses the user.
        """
        self._reached()[1].renew(response, scopes, sent)

    def failure(self, response: Response, what: str) -> RegistryError | NotFoundError:
        """Return the error that an answer stands for."""
        text = f"{self.host}: {_message(response, what)}"
        if response.status == 404:
            return NotFoundError(text)
        if response.status in {401, 403}:
            denied = DeniedError(text)
            denied.add_note("the repository may need a login, or be missing")
            return denied
        return RegistryError(text)

    def _broken(self, error: BaseException) -> RegistryError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return RegistryError(
                f"{self.host}: its certificate is not trusted: {error.verify_message}; put the certificate of its authority "
                f"into /etc/docker/certs.d/{self.host}/ca.crt, or name a directory by --cert-dir"
            )
        if isinstance(error, ssl.SSLError):
            return RegistryError(f"{self.host}: TLS: {error.reason or error}; --insecure is for registries without it")
        if isinstance(error, TimeoutError):
            return RegistryError(f"{self.host}: does not answer in time")
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, http.client.BadStatusLine | http.client.IncompleteRead):
            text = "ended the connection before the answer"
        return RegistryError(f"{self.host}: {text}")


def _message(response: Response, what: str) -> str:
    """Return what a registry says of a failure, in one line."""
    words = f"{what}: HTTP status {response.status}"
    try:
        errors = json.loads(response.read(_MAX_MESSAGE_BYTES))["errors"]
        told = [f"{one.get('code', '')}: {one.get('message', '')}".strip(": ") for one in errors]
    except (*BROKEN, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return words
    told_text = "; ".join(told)[:_SHOWN]
    return f"{words}: {told_text}" if told_text else words
