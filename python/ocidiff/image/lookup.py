"""Lookup: which image a name stands for, and which names there are."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import Final, NoReturn

from ocidiff.content.layout import REF_NAME, Layout
from ocidiff.errors import DigestMismatchError, DocumentError, NotFoundError, UnsupportedError, UsageError
from ocidiff.image.image import Image, ImageRecord, read_image
from ocidiff.image.reference import Reference
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import parse_object
from ocidiff.oci.platform import Platform

# Twelve digits are shown; fewer than four are more likely a name.
_PREFIX: Final = r"[0-9a-f]{4,64}"
_DIGEST: Final = "sha256:"
_MOST_SHOWN: Final = 5
_KINDS: Final = media_type.MANIFESTS | media_type.INDEXES


def resolve(layout: Layout, name: str) -> Descriptor:
    """See `Store.resolve`."""
    try:
        reference = Reference.parse(name)
    except UsageError:
        if found := _by_prefix(layout, name.removeprefix(_DIGEST)):
            return found
        # Other tools may have other rules.
        try:
            return layout.named(name)
        except NotFoundError:
            pass
        raise
    if reference.digest is not None:
        return _by_digest(layout, reference, reference.digest)
    for stored_name in (reference.stored_name, name):
        with suppress(NotFoundError):
            return layout.named(stored_name)
    return _by_prefix(layout, name) or _missing(layout, reference)


def find_image(layout: Layout, name: str, platform: Platform | None) -> Image:
    """The image that a name stands for, kept by the lease that the layout is under; errors as in `read_image`."""
    descriptor = resolve(layout, name)
    # Before it is read, since the name may go at any time.
    layout.protect(descriptor.digest)
    return read_image(layout, descriptor.annotations.get(REF_NAME, name), descriptor, platform)


def records(layout: Layout) -> list[ImageRecord]:
    """See `Store.images`."""
    return [_record(layout, entry) for entry in layout.index().manifests]


def _record(layout: Layout, entry: Descriptor) -> ImageRecord:
    name = entry.annotations.get(REF_NAME)
    try:
        image = read_image(layout, name or entry.digest, entry)
    except (NotFoundError, DocumentError, DigestMismatchError, UnsupportedError):
        return ImageRecord(name, entry.digest, None, None, None)
    return ImageRecord(name, entry.digest, image.config.created or None, image.size, image.config.platform)


def _by_prefix(layout: Layout, text: str) -> Descriptor | None:
    """Return the image whose manifest or config digest begins with these digits; None if there is none.

    Raises:
        UsageError: Several images do.
    """
    if not re.fullmatch(_PREFIX, text):
        return None
    found = {entry.digest: entry for entry in layout.index().manifests if entry.digest.hex.startswith(text)}
    if len(found) > 1:
        raise UsageError(f"image {text}: is the beginning of {len(found)} digests; give more digits")
    return next(iter(found.values()), None)


def _missing(layout: Layout, reference: Reference) -> NoReturn:
    """Say that there is no such image, and which tags of that name there are."""
    names = [entry.annotations.get(REF_NAME, "") for entry in layout.index().manifests]
    others = sorted(name for name in names if name.rpartition(":")[0] == reference.name)[:_MOST_SHOWN]
    hint = f"; there is {', '.join(others)}" if others else ""
    raise NotFoundError(f"no image {reference.stored_name!r} in {layout.path}{hint}")


def _by_digest(layout: Layout, reference: Reference, digest: Digest) -> Descriptor:
    for entry in layout.index().manifests:
        if entry.digest == digest and (not reference.name or reference.covers(entry.annotations.get(REF_NAME, ""))):
            return entry
    if reference.name:
        raise NotFoundError(f"{layout.path}: no image {reference.name!r} of digest {digest}")
    return _unlisted(layout, digest)


def _unlisted(layout: Layout, digest: Digest) -> Descriptor:
    """A manifest or index that no name leads to: part of an index, or replaced under its name."""
    untyped = layout.describe(digest, "")
    try:
        kind = parse_object(layout.read(untyped), f"blob {digest}").get("mediaType")
    except DocumentError:
        kind = None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise NotFoundError(f"{layout.path}: blob {digest} is no image")
    return replace(untyped, media_type=kind)
