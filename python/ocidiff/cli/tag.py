"""`ocidiff tag`: give an image one name more."""

from __future__ import annotations

import click

from ocidiff.cli.names import IMAGE
from ocidiff.cli.settings import CONTAINERD, Settings, common, pass_settings
from ocidiff.cli.streams import emit


@click.command("tag", epilog="Example: ocidiff tag app:v2 app:stable")
@click.argument("image", metavar="IMAGE", type=IMAGE)
@click.argument("name", metavar="NAME[:TAG]")
@common("store", "containerd", "address", "namespace")
@pass_settings
def command(settings: Settings, image: str, name: str) -> None:
    """Give IMAGE the name NAME too; an image that has it loses it.

    Prints the digest of the image's manifest or index.
    """
    settings.check_new_name(name, in_containerd=settings.is_containerd(image))
    with settings.open_store(image) as store:
        descriptor = store.tag(image.removeprefix(CONTAINERD), name.removeprefix(CONTAINERD))
    emit(descriptor.digest)
