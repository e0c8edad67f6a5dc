"""Credentials: the files of Docker and Podman, and the programs that they name. Nothing here writes."""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final

from ocidiff.errors import DocumentError
from ocidiff.log import Logger
from ocidiff.oci.encoding import parse_object
from ocidiff.transport.registry.name import DEFAULT_HOST
from ocidiff.values import dataclass

_HELPER_SECONDS: Final = 60
_MAX_FILE_BYTES: Final = 1 << 20
_TOKEN_USER: Final = "<token>"  # noqa: S105 - says that the secret is a token
# Under which Docker keeps those of its own registry.
_DEFAULT_SERVER: Final = f"https://index.{DEFAULT_HOST}/v1/"
_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials for a registry.

    Attributes:
        origin: Where it was found, for messages.
        user: Name of the user; empty for none.
        password: The password.
        identity_token: Stands in for user and password at the token server; empty for none.
        registry_token: Stands in for what the token server gives; empty for none.
    """

    origin: str
    user: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(origin={self.origin!r}, user={self.user!r})"

    def basic(self) -> str:
        """Return the value of the header `Authorization`."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def credentials_for(host: str, repository: str) -> Credentials | None:
    """Return what was stored for a registry, the most special entry of the first file that has one.

    Raises:
        DocumentError: A file is not what Docker and Podman write.
    """
    for path in _files():
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        found = _in_file(path, parse_object(data, path) if data.strip() else {}, host, repository)
        if found is not None:
            return found
    return None


def _files() -> Iterator[str]:
    if chosen := os.environ.get("REGISTRY_AUTH_FILE"):
        yield chosen
        return
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(runtime, "containers/auth.json")
    home = os.path.expanduser("~")
    yield os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "containers/auth.json")
    yield os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")


def _in_file(path: str, document: Mapping[str, object], host: str, repository: str) -> Credentials | None:
    auths = _object(document.get("auths"), path, "auths")
    entries = {_key(name): value for name, value in auths.items()}
    parts = [host, *repository.split("/")]
    for count in range(len(parts), 0, -1):
        key = "/".join(parts[:count])
        entry = _object(entries.get(key), path, f"auths of {key}")
        if found := _of_entry(f"{path}: {key}", entry):
            return found
    helpers = _object(document.get("credHelpers"), path, "credHelpers")
    helper = helpers.get(host) or document.get("credsStore")
    return _of_helper(path, helper, host) if isinstance(helper, str) and helper else None


def _object(value: object, path: str, what: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DocumentError(f"{path}: {what}: not a JSON object")
    return value


def _key(name: str) -> str:
    """Return a key without what old versions of Docker wrote around the host."""
    if name == _DEFAULT_SERVER:
        return DEFAULT_HOST
    for scheme in ("https://", "http://"):
        if name.startswith(scheme):
            return name.removeprefix(scheme).partition("/")[0]
    return name


def _of_entry(origin: str, entry: Mapping[str, object]) -> Credentials | None:
    user, password = _text(entry, "username"), _text(entry, "password")
    if packed := _text(entry, "auth"):
        try:
            user, _, password = base64.b64decode(packed, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise DocumentError(f"{origin}: auth is not base64 of USER:PASSWORD") from None
    identity, registry = _text(entry, "identitytoken"), _text(entry, "registrytoken")
    if not (user or identity or registry):
        return None
    return Credentials(origin, user, password, identity, registry)


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _of_helper(path: str, helper: str, host: str) -> Credentials | None:
    """Ask a program for credentials. One that fails is told of, and the registry is asked without any."""
    program = shutil.which(f"docker-credential-{os.path.basename(helper)}")
    if program is None:
        _log.warning("%s: names docker-credential-%s, which is not installed", path, helper)
        return None
    server = _DEFAULT_SERVER if host == DEFAULT_HOST else host
    try:
        done = subprocess.run(  # noqa: S603 - a file of the user names it
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s: %s", program, error)
        return None
    if done.returncode:
        if b"not found" not in done.stdout + done.stderr:
            _log.warning("%s: failed with status %s", program, done.returncode)
        return None
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        _log.warning("%s: did not answer with user name and secret", program)
        return None
    if user == _TOKEN_USER:
        return Credentials(program, identity_token=secret)
    return Credentials(program, user, secret) if user else None
