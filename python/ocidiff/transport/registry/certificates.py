"""Certificates: by which ones a registry is checked, and which one it is shown, as Docker and Podman keep them."""

from __future__ import annotations

import os
import ssl
from typing import Final

from ocidiff.errors import UsageError

_PLACES: Final = (
    "~/.config/containers/certs.d",
    "/etc/containers/certs.d",
    "/etc/docker/certs.d",
    "~/.config/docker/certs.d",
)


def tls_context(host: str, cert_dir: str | None, *, insecure: bool) -> ssl.SSLContext:
    """Return how TLS is spoken with a registry.

    Args:
        host: Host and port, as users write them.
        cert_dir: Directory of its certificates; None for the directory `HOST` in those of Docker and Podman.
        insecure: Accept any certificate.

    Raises:
        UsageError: There is no such directory, a file in it is no certificate, or a certificate has no key.
    """
    context = ssl.create_default_context()
    places = [os.path.join(os.path.expanduser(place), host) for place in _PLACES] if cert_dir is None else [cert_dir]
    for place in places:
        try:
            names = os.listdir(place)
        except (FileNotFoundError, NotADirectoryError):
            if cert_dir is not None:
                raise UsageError(f"cert-dir {cert_dir}: is not a directory") from None
            continue
        for name in sorted(names):
            _load(context, os.path.join(place, name))
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load(context: ssl.SSLContext, path: str) -> None:
    stem, ending = os.path.splitext(path)
    try:
        if ending == ".crt":
            context.load_verify_locations(path)
        elif ending == ".cert":
            context.load_cert_chain(path, stem + ".key")
    except FileNotFoundError:
        raise UsageError(f"{path}: has no key {os.path.basename(stem)}.key beside it") from None
    except ssl.SSLError as error:
        raise UsageError(f"{path}: no certificate or key: {error.reason or error}") from None
