"""`ocidiff tag`: give an image one name more."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.streams import emit


@click.command("tag", epilog="Example: ocidiff tag app:v2 app:stable")
@click.argument("image", metavar="IMAGE")
@click.argument("name", metavar="NAME[:TAG]")
@common("store")
@pass_settings
def command(settings: Settings, image: str, name: str) -> None:
    """Give IMAGE the name NAME too; an image that has it loses it.

    Prints the digest of the image's manifest or index.
    """
    with ocidiff.Store.open(settings.store_path(), create=False) as store:
        descriptor = store.tag(image, name)
    emit(descriptor.digest)
