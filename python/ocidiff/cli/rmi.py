"""`ocidiff rmi`: remove names of images."""

from __future__ import annotations

import click

from ocidiff.cli.each import for_each
from ocidiff.cli.names import IMAGE
from ocidiff.cli.settings import CONTAINERD, Settings, common, pass_settings
from ocidiff.printable import printable


@click.command("rmi", epilog="Example: ocidiff rmi app:v1 && ocidiff gc")
@click.argument("images", metavar="IMAGE...", type=IMAGE, nargs=-1, required=True)
@common("store", "containerd", "address", "namespace")
@pass_settings
def command(settings: Settings, images: tuple[str, ...]) -> None:
    """Remove names of images; the next `ocidiff gc` frees what nothing else needs.

    Prints the digest that each name stood for. Goes on after a failure, and exits with 1 at the end.
    """
    with settings.open_store(*images) as store:
        for_each(images, lambda image: printable(store.untag(image.removeprefix(CONTAINERD))))
