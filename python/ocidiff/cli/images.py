"""`ocidiff images`: what is in the store."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.render import as_json, columns, size
from ocidiff.cli.streams import emit
from ocidiff.image.image import ImageRecord


@click.command("images", epilog="Example: ocidiff images --json")
@common("store", "json")
@pass_settings
def command(settings: Settings) -> None:
    """List the images in the store."""
    images = _images(settings)
    if settings.json:
        for image in images:
            emit(as_json(_document(image)))
    else:
        for line in columns(("NAME", "DIGEST", "CREATED", "SIZE", "PLATFORM"), map(_row, images)):
            emit(line)


def _images(settings: Settings) -> list[ImageRecord]:
    try:
        with ocidiff.Store.open(settings.store_path(), create=False) as store:
            return store.images()
    except FileNotFoundError:
        # Before the first commit there is no default store, and so nothing in it. One that was named should be there.
        if settings.chosen_store():
            raise
        return []


def _document(image: ImageRecord) -> dict[str, object]:
    return {
        "name": image.name,
        "digest": image.digest,
        "created": image.created,
        "size": image.size,
        "platform": image.platform and str(image.platform),
    }


def _row(image: ImageRecord) -> tuple[str, ...]:
    return (
        image.name or "-",
        image.digest,
        image.created or "-",
        "-" if image.size is None else size(image.size),
        "-" if image.platform is None else str(image.platform),
    )
