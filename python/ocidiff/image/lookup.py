"""Lookup: which image a name stands for, and which names there are."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import Final, NoReturn

from ocidiff.errors import DigestMismatchError, DocumentError, NotFoundError, UnsupportedError, UsageError
from ocidiff.image.image import Image, ImageRecord, platforms_of, read_image
from ocidiff.image.reference import Reference
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import parse_object
from ocidiff.oci.index import REF_NAME, Entry
from ocidiff.oci.platform import Platform
from ocidiff.services.bundle import Services
from ocidiff.services.content import Provider
from ocidiff.services.images import ImageStore, understood

# Twelve digits are shown; fewer than four are more likely a name.
_PREFIX: Final = r"[0-9a-f]{4,64}"
_DIGEST: Final = "sha256:"
_MOST_SHOWN: Final = 5
_KINDS: Final = media_type.MANIFESTS | media_type.INDEXES


def resolve(services: Services, name: str) -> Descriptor:
    """See `Store.resolve`."""
    try:
        return understood(find_entry(services.images, name))
    except NotFoundError:
        reference = Reference.parse(name)
        if reference.name or reference.digest is None:
            raise
    return _unlisted(services, reference.digest)


def find_entry(images: ImageStore, name: str) -> Entry:
    """Return the entry that a name stands for, also one that is not understood; errors as in `Store.resolve`."""
    try:
        reference = Reference.parse(name)
    except UsageError:
        if found := _by_prefix(images, name.removeprefix(_DIGEST)):
            return found
        # Other tools may have other rules.
        with suppress(NotFoundError):
            return _foreign_entry(images, name)
        raise
    if reference.digest is not None:
        return _entry_by_digest(images, reference, reference.digest)
    for stored_name in (reference.stored_name, name):
        with suppress(NotFoundError):
            return images.entry(stored_name)
    return _by_spelling(images, reference) or _by_prefix(images, name) or _missing(images, reference)


def find_image(services: Services, name: str, platform: Platform | None) -> Image:
    """Return the image that a name stands for, kept until the lease ends; errors as in `read_image`."""
    descriptor = resolve(services, name)
    # Before it is read, since the name may go at any time.
    services.keep_blob(descriptor.digest)
    return read_image(services.content, descriptor.annotations.get(REF_NAME, name), descriptor, platform)


def records(services: Services) -> list[ImageRecord]:
    """See `Store.images`."""
    known: dict[tuple[str, str, int], ImageRecord] = {}
    return [_record(services.content, entry, known) for entry in services.images.list()]


def _record(content: Provider, entry: Entry, known: dict[tuple[str, str, int], ImageRecord]) -> ImageRecord:
    """One line; an image of several names is read once."""
    descriptor = entry.descriptor
    if descriptor is None:
        return ImageRecord(entry.name, entry.digest, None, None, None)
    blob = (descriptor.media_type, descriptor.digest, descriptor.size)
    if blob not in known:
        known[blob] = _facts(content, descriptor)
    return replace(known[blob], name=entry.name)


def _facts(content: Provider, descriptor: Descriptor) -> ImageRecord:
    record = ImageRecord(None, descriptor.digest, None, None, None)
    try:
        if descriptor.media_type in media_type.INDEXES:
            record = replace(record, platforms=platforms_of(content, descriptor.digest, descriptor))
        image = read_image(content, descriptor.digest, descriptor)
    except (NotFoundError, DocumentError, DigestMismatchError, UnsupportedError):
        return record
    return replace(record, created=image.config.created or None, size=image.size, platform=image.config.platform)


def _by_spelling(images: ImageStore, reference: Reference) -> Entry | None:
    """Return the image of a name that means the same, as `docker.io/library/foo:1` for `foo:1`; None if there is none.

    Raises:
        DocumentError: Several images have such a name.
    """
    names = reference.spellings
    entries = [entry for entry in images.list() if entry.name in names]
    if len({entry.digest for entry in entries}) > 1:
        raise DocumentError(f"{len(entries)} images are named {reference.stored_name!r} in {images.place}")
    return next(iter(entries), None)


def _by_prefix(images: ImageStore, text: str) -> Entry | None:
    """Return the image whose manifest or config digest begins with these digits; None if there is none.

    Raises:
        UsageError: Several images do.
    """
    if not re.fullmatch(_PREFIX, text):
        return None
    entries = [entry for entry in images.list() if (entry.digest or "").partition(":")[2].startswith(text)]
    found = {entry.digest: entry for entry in entries}
    if len(found) > 1:
        raise UsageError(f"image {text}: ambiguous: {len(found)} digests begin with it; give more digits")
    return next(iter(found.values()), None)


def _missing(images: ImageStore, reference: Reference) -> NoReturn:
    """Say that there is no such image, and which tags of that name there are."""
    names = [entry.name or "" for entry in images.list()]
    others = sorted(filter(replace(reference, tag="").covers, names))[:_MOST_SHOWN]
    hint = f"; there is {', '.join(others)}" if others else ""
    raise NotFoundError(f"no image {reference.stored_name!r} in {images.place}{hint}")


def _foreign_entry(images: ImageStore, name: str) -> Entry:
    """Return the entry of a name, or of a digest, that could not be one of ours."""
    try:
        return images.entry(name)
    except NotFoundError:
        for entry in images.list():
            if entry.digest == name:
                return entry
        raise


def _entry_by_digest(images: ImageStore, reference: Reference, digest: Digest) -> Entry:
    found = [
        entry
        for entry in images.list()
        if entry.digest == digest and (not reference.name or reference.covers(entry.name or ""))
    ]
    if found:
        # One that is not understood does not stand before one that is.
        return min(found, key=lambda entry: entry.descriptor is None)
    if reference.name:
        raise NotFoundError(f"no image {reference.name!r} of digest {digest} in {images.place}")
    raise NotFoundError(f"no image of digest {digest} in {images.place}")


def _unlisted(services: Services, digest: Digest) -> Descriptor:
    """A manifest or index that no name leads to: part of an index, or replaced under its name."""
    untyped = Descriptor("", digest, services.content.info(digest).size)
    try:
        kind = parse_object(services.content.read(untyped), f"blob {digest}").get("mediaType")
    except DocumentError:
        kind = None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise NotFoundError(f"blob {digest} in {services.images.place} is not an image")
    return replace(untyped, media_type=kind)
