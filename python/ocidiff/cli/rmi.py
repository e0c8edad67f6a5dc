"""`ocidiff rmi`: take names of images away."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.streams import emit


@click.command("rmi", epilog="Example: ocidiff rmi app:v1 && ocidiff gc")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@common("store")
@pass_settings
def command(settings: Settings, images: tuple[str, ...]) -> None:
    """Take the names of images away; what only they needed goes with the next `ocidiff gc`.

    Prints the digest that each name stood for.
    """
    with ocidiff.Store.open(settings.store_path(), create=False) as store:
        for image in images:
            emit(store.untag(image).digest)
