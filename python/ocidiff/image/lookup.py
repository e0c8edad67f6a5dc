"""Lookup: which image a name stands for, and which names there are."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import Final, NoReturn

from ocidiff.content.layout import Layout
from ocidiff.content.names import understood
from ocidiff.errors import DigestMismatchError, DocumentError, NotFoundError, UnsupportedError, UsageError
from ocidiff.image.image import Image, ImageRecord, read_image
from ocidiff.image.reference import Reference
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import parse_object
from ocidiff.oci.index import REF_NAME, Entry
from ocidiff.oci.platform import Platform

# Twelve digits are shown; fewer than four are more likely a name.
_PREFIX: Final = r"[0-9a-f]{4,64}"
_DIGEST: Final = "sha256:"
_MOST_SHOWN: Final = 5
_KINDS: Final = media_type.MANIFESTS | media_type.INDEXES


def resolve(layout: Layout, name: str) -> Descriptor:
    """See `Store.resolve`."""
    try:
        return understood(find_entry(layout, name))
    except NotFoundError:
        reference = Reference.parse(name)
        if reference.name or reference.digest is None:
            raise
    return _unlisted(layout, reference.digest)


def find_entry(layout: Layout, name: str) -> Entry:
    """Return the entry that a name stands for, also one that is not understood; errors as in `Store.resolve`."""
    try:
        reference = Reference.parse(name)
    except UsageError:
        if found := _by_prefix(layout, name.removeprefix(_DIGEST)):
            return found
        # Other tools may have other rules.
        with suppress(NotFoundError):
            return _foreign_entry(layout, name)
        raise
    if reference.digest is not None:
        return _entry_by_digest(layout, reference, reference.digest)
    for stored_name in (reference.stored_name, name):
        with suppress(NotFoundError):
            return layout.names.entry(stored_name)
    return _by_prefix(layout, name) or _missing(layout, reference)


def find_image(layout: Layout, name: str, platform: Platform | None) -> Image:
    """The image that a name stands for, kept by the lease that the layout is under; errors as in `read_image`."""
    descriptor = resolve(layout, name)
    # Before it is read, since the name may go at any time.
    layout.protect(descriptor.digest)
    return read_image(layout, descriptor.annotations.get(REF_NAME, name), descriptor, platform)


def records(layout: Layout) -> list[ImageRecord]:
    """See `Store.images`."""
    known: dict[tuple[str, str, int], ImageRecord] = {}
    return [_record(layout, entry, known) for entry in layout.names.index().entries]


def _record(layout: Layout, entry: Entry, known: dict[tuple[str, str, int], ImageRecord]) -> ImageRecord:
    """One line; an image of several names is read once."""
    descriptor = entry.descriptor
    if descriptor is None:
        return ImageRecord(entry.name, entry.digest, None, None, None)
    blob = (descriptor.media_type, descriptor.digest, descriptor.size)
    if blob not in known:
        known[blob] = _facts(layout, descriptor)
    return replace(known[blob], name=entry.name)


def _facts(layout: Layout, descriptor: Descriptor) -> ImageRecord:
    try:
        image = read_image(layout, descriptor.digest, descriptor)
    except (NotFoundError, DocumentError, DigestMismatchError, UnsupportedError):
        return ImageRecord(None, descriptor.digest, None, None, None)
    return ImageRecord(None, descriptor.digest, image.config.created or None, image.size, image.config.platform)


def _by_prefix(layout: Layout, text: str) -> Entry | None:
    """Return the image whose manifest or config digest begins with these digits; None if there is none.

    Raises:
        UsageError: Several images do.
    """
    if not re.fullmatch(_PREFIX, text):
        return None
    entries = [entry for entry in layout.names.index().entries if (entry.digest or "").partition(":")[2].startswith(text)]
    found = {entry.digest: entry for entry in entries}
    if len(found) > 1:
        raise UsageError(f"image {text}: is the beginning of {len(found)} digests; give more digits")
    return next(iter(found.values()), None)


def _missing(layout: Layout, reference: Reference) -> NoReturn:
    """Say that there is no such image, and which tags of that name there are."""
    names = [entry.name or "" for entry in layout.names.index().entries]
    others = sorted(name for name in names if name.rpartition(":")[0] == reference.name)[:_MOST_SHOWN]
    hint = f"; there is {', '.join(others)}" if others else ""
    raise NotFoundError(f"no image {reference.stored_name!r} in {layout.path}{hint}")


def _foreign_entry(layout: Layout, name: str) -> Entry:
    """Return the entry of a name, or of a digest, that could not be one of ours."""
    try:
        return layout.names.entry(name)
    except NotFoundError:
        for entry in layout.names.index().entries:
            if entry.digest == name:
                return entry
        raise


def _entry_by_digest(layout: Layout, reference: Reference, digest: Digest) -> Entry:
    found = [
        entry
        for entry in layout.names.index().entries
        if entry.digest == digest and (not reference.name or reference.covers(entry.name or ""))
    ]
    if found:
        # One that is not understood does not stand before one that is.
        return min(found, key=lambda entry: entry.descriptor is None)
    if reference.name:
        raise NotFoundError(f"{layout.path}: no image {reference.name!r} of digest {digest}")
    raise NotFoundError(f"{layout.path}: no name leads to {digest}")


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
