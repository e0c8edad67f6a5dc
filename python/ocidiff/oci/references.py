"""References: which blobs a document needs. No I/O."""

from __future__ import annotations

import json
import re
from typing import Final

from ocidiff.errors import DocumentError
from ocidiff.oci import media_type
from ocidiff.oci.digest import AnyDigest

_NEEDED: Final = ("config", "layers", "blobs")
_OPTIONAL: Final = ("manifests", "subject")
# `blobSum` is the word of Docker's first schema.
_DIGEST_MEMBERS: Final = frozenset({"digest", "blobsum"})
_DIGEST: Final = re.compile(rb"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")


def mentioned(data: bytes) -> set[AnyDigest]:
    """Return the digests of all descriptors in a JSON document, wherever they stand in it.

    A collection must not lose what a document needs that it does not understand, so any object with a digest counts. In a
    document that the parser refuses any text that looks like a digest does.
    """
    found: set[AnyDigest] = set()

    def note(text: str) -> None:
        try:
            found.add(AnyDigest(text))
        except DocumentError:
            return

    def take(pairs: list[tuple[str, object]]) -> None:
        for name, value in pairs:
            if isinstance(value, str) and name.casefold() in _DIGEST_MEMBERS:
                note(value)

    try:
        json.loads(data, object_pairs_hook=take, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        for match in _DIGEST.finditer(data):
            note(match[0].decode())
    return found


def parts(data: bytes) -> tuple[list[AnyDigest], list[AnyDigest]]:
    """Return what a manifest or an index cannot do without, and what may be missing.

    Layers that are fetched from their `urls` may be missing, and so may members of an index, which is often kept for some
    platforms only. A document that is neither manifest nor index has no parts.
    """
    try:
        document = json.loads(data, parse_int=float)
    except (ValueError, RecursionError):
        return [], []
    if not isinstance(document, dict):
        return [], []
    needed: list[AnyDigest] = []
    optional: list[AnyDigest] = []
    for names, found in ((_NEEDED, needed), (_OPTIONAL, optional)):
        for name in names:
            value = document.get(name)
            for descriptor in value if isinstance(value, list) else [value]:
                if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
                    continue
                is_foreign = media_type.is_foreign_layer(descriptor.get("mediaType"))
                (optional if is_foreign else found).append(AnyDigest(descriptor["digest"]))
    return needed, optional
