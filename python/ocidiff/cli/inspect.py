"""`ocidiff inspect`: show the documents of an image."""

from __future__ import annotations

import json

import click

from ocidiff.cli.options import CONTAINERD, Settings, common, pass_settings, platform_option
from ocidiff.cli.render import as_json
from ocidiff.cli.streams import emit


@click.command("inspect", epilog="Example: ocidiff inspect app:v2")
@click.argument("image", metavar="IMAGE")
@platform_option
@common("store", "containerd", "address", "namespace", "json")
@pass_settings
def command(settings: Settings, image: str, platform: str | None) -> None:
    """Show the descriptor, manifest and config of IMAGE as JSON; with --json on one line."""
    with settings.open_store(image) as store:
        document = store.inspect(image.removeprefix(CONTAINERD), platform=platform)
    emit(as_json(document) if settings.json else json.dumps(document, indent=2))
