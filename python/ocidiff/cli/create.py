"""`ocidiff create`: a working container over an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.names import IMAGE
from ocidiff.cli.options import engine_option, limit_options, platform_option
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import emit
from ocidiff.output import naming

if TYPE_CHECKING:
    from ocidiff.embedded.drivers.select import DriverName
    from ocidiff.layer.options import EngineName


@click.command("create", epilog="Example: ocidiff create app:v1 work && cd $(ocidiff mount work)")
@click.argument("image", metavar="IMAGE", type=IMAGE)
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "--driver",
    type=click.Choice(("overlay", "directory")),
    help="How its tree is kept.  [default: overlay where it works, else directory]",
)
@platform_option
@limit_options
@engine_option
@common("store", "json", "quiet", "progress", "verbose")
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    image: str,
    name: str | None,
    driver: DriverName | None,
    platform: str | None,
    limits: ocidiff.Limits,
    engine: EngineName | None,
) -> None:
    """Make a working container over IMAGE.

    The image is unpacked once, for all containers over it. Prints the container's name.
    """
    place = settings.store_path()
    with (
        naming(place),
        ocidiff.Store.open(place, create=False) as store,
        shown(settings, "create") as progress,
    ):
        container = store.create(
            image,
            name,
            driver=driver,
            platform=platform,
            limits=limits,
            engine=engine,
            progress=progress,
        )
    emit(as_json(container.to_dict()) if settings.json else container.name)
