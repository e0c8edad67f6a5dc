"""Authorization: challenges of a registry, and the tokens that answer them. Spec: Docker registry token specification."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final
from urllib.parse import urlencode, urlsplit

from ocidiff.errors import DeniedError, RegistryError
from ocidiff.transport.registry.credentials import Credentials
from ocidiff.transport.registry.http import Pool
from ocidiff.transport.registry.response import BUSY, Response, TryAgainError, is_loopback, joined, retry_after
from ocidiff.values import dataclass

_PARAMETER: Final = re.compile(r'\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*,?')
_MAX_TOKEN_BYTES: Final = 1 << 20
# The specification's default for a server that does not say.
_DEFAULT_SECONDS: Final = 60
# A token that is said to last longer is asked for again.
_MOST_SECONDS: Final = 24 * 3600
_SECONDS_TO_SPARE: Final = 10
_CLIENT: Final = "ocidiff"

Scopes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Challenge:
    """A registry's request for credentials.

    Attributes:
        scheme: `basic` or `bearer`.
        realm: URL of the token server.
        service: What the token server knows the registry by.
    """

    scheme: str
    realm: str = ""
    service: str = ""


def challenges(headers: Sequence[str]) -> list[Challenge]:
    """Return what the headers `WWW-Authenticate` ask for, as far as it is known."""
    found = []
    for header in headers:
        scheme, _, rest = header.strip().partition(" ")
        values = {
            match[1].lower(): re.sub(r"\\(.)", r"\1", match[2] or match[3] or "") for match in _PARAMETER.finditer(rest)
        }
        if scheme.lower() in {"basic", "bearer"}:
            found.append(Challenge(scheme.lower(), values.get("realm", ""), values.get("service", "")))
    return found


class Authority:
    """Knows what a registry accepts from this user. Safe from several threads.

    Args:
        host: The registry, as users write it.
        pool: What asks the token server.
        find: Returns what was stored for the registry.
        base: URL of the registry.
    """

    def __init__(self, host: str, pool: Pool, find: Callable[[], Credentials | None], base: str) -> None:
        self._host, self._pool, self._find, self._base = host, pool, find, base
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, tuple[str, float]] = {}
        self._found: list[Credentials | None] = []

    @property
    def _credentials(self) -> Credentials | None:
        if not self._found:
            self._found.append(self._find())
        return self._found[0]

    def header(self, scopes: Scopes) -> str:
        """Return the header `Authorization` for these rights; empty while the registry asked for none."""
        with self._lock:
            if self._challenge is None:
                return ""
            return self._answer(self._challenge, scopes)

    def renew(self, response: Response, scopes: Scopes, sent: str) -> str:
        """Return the header `Authorization` that answers a refusal.

        Args:
            response: The refusal.
            scopes: The rights that are needed.
            sent: The header that was refused.

        Raises:
            DeniedError: Nothing better is known than what was refused.
        """
        asked = challenges(response.headers("WWW-Authenticate"))
        if not asked:
            raise DeniedError(f"{self._host}: refuses without saying what it wants to see")
        with self._lock:
            has_user = self._credentials is not None and bool(self._credentials.user)
            bearer = next((one for one in asked if one.scheme == "bearer"), None)
            basic = next((one for one in asked if one.scheme == "basic"), None)
            self._challenge = bearer or basic
            known = self._tokens.get(scopes)
            if known is not None and sent == f"Bearer {known[0]}":
                # It was refused, whatever its time.
                del self._tokens[scopes]
            if bearer is None and not has_user:
                raise self._unknown()
            header = self._answer(self._challenge, scopes) if self._challenge else ""
            if header == sent:
                raise self._refused()
            return header

    def _unknown(self) -> DeniedError:
        return DeniedError(f"{self._host}: wants to know who asks: log in first, as with `docker login {self._host}`")

    def _refused(self) -> DeniedError:
        known = self._credentials
        if known is None:
            return self._unknown()
        return DeniedError(f"{self._host}: refuses the credentials from {known.origin}")

    def _answer(self, challenge: Challenge, scopes: Scopes) -> str:
        known = self._credentials
        if challenge.scheme == "basic":
            return known.basic() if known is not None and known.user else ""
        if known is not None and known.registry_token:
            return f"Bearer {known.registry_token}"
        token, until = self._tokens.get(scopes, ("", 0.0))
        if monotonic() >= until:
            begun = monotonic()
            token, seconds = self._ask(challenge, scopes)
            self._tokens[scopes] = token, begun + max(seconds - _SECONDS_TO_SPARE, seconds / 2)
        return f"Bearer {token}"

    def _ask(self, challenge: Challenge, scopes: Scopes) -> tuple[str, float]:
        """Get a token; the seconds that it lasts."""
        known = self._credentials
        realm = joined(self._base, challenge.realm)
        where = urlsplit(realm)
        if where.scheme != "https" and urlsplit(self._base).scheme == "https" and not is_loopback(where.netloc):
            raise RegistryError(f"{self._host}: wants credentials to be sent to {where.netloc} without TLS")
        fields = [("service", challenge.service)] if challenge.service else []
        fields += [("scope", scope) for scope in scopes]
        if known is not None and known.identity_token:
            form = {"grant_type": "refresh_token", "client_id": _CLIENT, "refresh_token": known.identity_token}
            scope = " ".join(scopes)
            body = urlencode([*form.items(), ("service", challenge.service), ("scope", scope)]).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._pool.request("POST", realm, headers, body, follow=False)
        else:
            secret = known.basic() if known is not None and known.user else ""
            if secret and known is not None:
                fields.append(("account", known.user))
            url = realm + ("&" if where.query else "?") + urlencode(fields)
            response = self._pool.request("GET", url, {}, secret=secret)
        with response:
            data = response.read(_MAX_TOKEN_BYTES)
        if response.status in {400, 401, 403}:
            raise self._refused()
        if response.status in BUSY:
            raise TryAgainError(f"{where.netloc}: gives no token: HTTP status {response.status}", retry_after(response))
        if response.status != 200:
            raise RegistryError(f"{where.netloc}: gives no token: HTTP status {response.status}")
        return _token(data, where.netloc)


def _token(data: bytes, where: str) -> tuple[str, float]:
    try:
        answer = json.loads(data)
        token = answer.get("token") or answer.get("access_token")
        seconds = answer.get("expires_in") or _DEFAULT_SECONDS
    except (ValueError, AttributeError, RecursionError):
        token, seconds = None, 0
    # A header is one line.
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not isinstance(seconds, int | float):
        raise RegistryError(f"{where}: gives no token: the answer holds none")
    return token, float(max(0, min(seconds, _MOST_SECONDS)))
