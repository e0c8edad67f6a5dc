"""`ocidiff unpack`: an image becomes a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.names import IMAGE
from ocidiff.cli.options import engine_option, limit_options, platform_option
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import CONTAINERD, Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit
from ocidiff.output import naming
from ocidiff.sizes import counted

if TYPE_CHECKING:
    from ocidiff.layer.options import EngineName


@click.command("unpack", epilog="Example: ocidiff unpack app:v2 ./rootfs")
@click.argument("image", metavar="IMAGE", type=IMAGE)
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option(
    "--same-owner/--no-same-owner",
    default=None,
    help="Give every entry its recorded owner, or leave out what may not be set.  [default: same owner for root]",
)
@click.option("--index", metavar="FILE", type=click.Path(), help="Save an index of the tree too, for diff index:FILE.")
@platform_option
@limit_options
@engine_option
@common("store", "containerd", "address", "namespace", "json", "quiet", "progress", "verbose")
@pass_settings
def command(
    settings: Settings,
    image: str,
    directory: str,
    same_owner: bool | None,
    index: str | None,
    platform: str | None,
    engine: EngineName | None,
    limits: ocidiff.Limits,
) -> None:
    """Write the root file system of IMAGE to DIR.

    DIR is missing or empty, and stays so when this fails. Prints the digest of the image's manifest.
    """
    with (
        naming(directory),
        settings.open_store(image) as store,
        shown(settings, "unpack") as progress,
    ):
        unpacked = store.unpack(
            image.removeprefix(CONTAINERD),
            directory,
            same_owner=same_owner,
            index=index,
            platform=platform,
            limits=limits,
            engine=engine,
            progress=progress,
        )
    if settings.verbose:
        complain(f"unpack: {counted(len(unpacked.manifest.layers), 'layer')}; {unpacked.seconds:.2f} s")
    emit(as_json(unpacked.to_dict()) if settings.json else unpacked.descriptor.digest)
