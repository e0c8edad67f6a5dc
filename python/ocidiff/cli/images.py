"""`ocidiff images`: list the images in the store."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

import click

import ocidiff
from ocidiff.cli.listing import Row, ago, listing_options, short_id, write_listing
from ocidiff.cli.names import IMAGE
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.image.image import ImageRecord
from ocidiff.image.reference import Reference, is_same
from ocidiff.oci.timestamp import time_ns_of
from ocidiff.sizes import size

_HEADS: Final = ("NAME", "ID", "CREATED", "SIZE", "PLATFORM")
_MOST_SHOWN: Final = 2
_FILTERS: Final = ("reference", "dangling", "before", "since")


@click.command("images", epilog="Example: ocidiff images app")
@click.argument("name", type=IMAGE, required=False)
@listing_options(_FILTERS)
@common("store", "containerd", "address", "namespace", "json", without=("quiet",))
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    name: str | None,
    only_ids: bool,
    no_trunc: bool,
    filters: list[tuple[str, str]],
    template: str | None,
) -> None:
    """List the images in the store, the newest first.

    With NAME only the images of that name, with any tag unless NAME has one. An id is the beginning of the digest of the
    image's manifest, and is accepted wherever an image is named.
    """
    images = [image for image in _images(settings) if name is None or _has_name(image, name)]
    for key, value in filters:
        images = [image for image in images if _passes(image, key, value, images)]
    images.sort(key=lambda image: time_ns_of(image.created or "") or 0, reverse=True)
    rows = map(_row, images)
    write_listing(_HEADS, rows, settings, only_ids=only_ids, no_trunc=no_trunc, template=template)


def _images(settings: Settings) -> list[ImageRecord]:
    try:
        with settings.open_store() as store:
            return store.images()
    except FileNotFoundError:
        # Before the first commit the default store is missing, and so nothing is in it. A named one should exist.
        if settings.chosen_store() or settings.is_containerd():
            raise
        return []


def _has_name(image: ImageRecord, name: str) -> bool:
    if image.name is None or image.name == name:
        return image.name is not None
    try:
        return Reference.parse(name).covers(image.name)
    except ocidiff.UsageError:
        # Other tools may have other rules.
        return image.name.rpartition(":")[0] == name


def _passes(image: ImageRecord, key: str, value: str, images: list[ImageRecord]) -> bool:
    if key == "reference":
        stem = (image.name or "").rpartition(":")[0]
        return image.name is not None and (fnmatchcase(image.name, value) or fnmatchcase(stem, value))
    if key == "dangling":
        if value not in {"true", "false"}:
            raise click.UsageError(f"--filter dangling={value}: must be true or false")
        return (image.name is None) == (value == "true")
    other = next((found for found in images if is_same(value, found.name)), None)
    if other is None:
        raise click.UsageError(f"--filter {key}={value}: no such image")
    mine, its = (time_ns_of(found.created or "") or 0 for found in (image, other))
    return mine < its if key == "before" else mine > its


def _row(image: ImageRecord) -> Row:
    name, bytes_ = image.name or "-", "-" if image.size is None else size(image.size)
    digest, platforms = image.digest or "-", list(map(str, image.platforms or filter(None, [image.platform])))
    # That of this machine first, which the other facts are of.
    platforms.sort(key=lambda one: one != str(image.platform))
    platform = ", ".join(platforms) or "-"
    short = f"{platforms[0]} +{len(platforms) - 1}" if len(platforms) > _MOST_SHOWN else platform
    created = ago(time_ns_of(image.created or ""))
    return Row(
        digest,
        image.to_dict(),
        (name, short_id(digest), created, bytes_, short),
        (name, digest, image.created or "-", bytes_, platform),
    )
