"""Schemes that tell the names of places apart, and options for reaching registries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ocidiff.errors import UsageError
from ocidiff.values import dataclass

STORE: Final = ""
"""The scheme of plain names, which are in the store that the call works on."""

MODULES: Final = {
    STORE: "ocidiff.transport.store",
    "containerd:": "ocidiff.transport.store",
    "oci:": "ocidiff.transport.layout",
    "oci-archive:": "ocidiff.transport.archive.place",
    "docker-archive:": "ocidiff.transport.archive.place",
    "docker://": "ocidiff.transport.registry.place",
}
# A text that looks like the scheme of another tool is not the name of an image.
_FOREIGN_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://|(docker-daemon|containers-storage):")


@dataclass(frozen=True, slots=True)
class Registry:
    """Options for reaching registries.

    Attributes:
        insecure: Accept plain HTTP and any certificate. Without it plain HTTP is for this machine's own addresses only.
        cert_dir: Directory with certificates (`*.crt`) and keys (`*.cert`, `*.key`); None for those of Docker and Podman.
        chunk_bytes: Send blobs in requests of this size; 0 for one request a blob.
        tags: Tags to give beside that of the name.
    """

    insecure: bool = False
    cert_dir: str | None = None
    chunk_bytes: int = 0
    tags: Sequence[str] = ()


def split(text: str) -> tuple[str, str]:
    """Return the scheme of the name of a place, and what follows it.

    Raises:
        UsageError: There is no such scheme.
    """
    for scheme in filter(None, MODULES):
        if text.startswith(scheme):
            return scheme, text.removeprefix(scheme)
    if match := _FOREIGN_SCHEME.match(text):
        known = ", ".join(filter(None, MODULES))
        raise UsageError(f"{text[:100]}: no place begins with {match[0]!r}; there are {known} and names in the store")
    return STORE, text


def check_tags(target: str, registry: Registry) -> None:
    """Refuse more tags for a place that is no registry.

    Raises:
        UsageError: There are more tags, and another place.
    """
    if registry.tags and split(target)[0] != "docker://":
        raise UsageError(f"tag {registry.tags[0][:100]}: only registries take more tags; give {target[:100]} one with `tag`")


def is_plain(text: str) -> bool:
    """True if a name has no scheme, so that it is in the store that the call works on."""
    return split(text)[0] == STORE


def is_in_store(text: str) -> bool:
    """True if a name is in the store that the call works on, or in containerd."""
    return MODULES[split(text)[0]] == MODULES[STORE]
