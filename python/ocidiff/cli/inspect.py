"""`ocidiff inspect`: all that the store knows of an image."""

from __future__ import annotations

import json

import click

import ocidiff
from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.render import as_json
from ocidiff.cli.streams import emit


@click.command("inspect", epilog="Example: ocidiff inspect app:v2")
@click.argument("image", metavar="IMAGE")
@common("store", "json")
@pass_settings
def command(settings: Settings, image: str) -> None:
    """Show manifest and config of IMAGE.

    Prints one JSON object, with --json on one line.
    """
    with ocidiff.Store.open(settings.store_path(), create=False) as store:
        document = store.inspect(image)
    emit(as_json(document) if settings.json else json.dumps(document, indent=2))
