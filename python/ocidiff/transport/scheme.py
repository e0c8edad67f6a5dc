"""The schemes of places, by which names in a store are told from names of other places."""

from __future__ import annotations

import re
from typing import Final

from ocidiff.errors import UsageError

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
# What looks like the scheme of another tool is no name of an image.
_FOREIGN_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://|(docker-daemon|containers-storage):")


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


def is_plain(text: str) -> bool:
    """True if a name has no scheme, so that it is in the store that the call works on."""
    return split(text)[0] == STORE
