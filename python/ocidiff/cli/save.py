"""`ocidiff save`: images become one archive."""

from __future__ import annotations

import click

from ocidiff.cli.names import IMAGE
from ocidiff.cli.options import everything_option, platform_option
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import CONTAINERD, Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit, sink_of


@click.command("save", epilog="Example: ocidiff save app:v2 -o app.tar")
@click.argument("images", metavar="IMAGE...", type=IMAGE, nargs=-1, required=True)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(allow_dash=True), default="-", help="The archive.  [default: stdout]"
)
@platform_option
@everything_option
@common("store", "containerd", "address", "namespace", "json", "quiet", "progress", "verbose")
@pass_settings
def command(settings: Settings, images: tuple[str, ...], output: str, platform: str | None, *, everything: bool) -> None:
    """Write images into one archive that docker load, podman load and OCI tools read.

    The same images give the same bytes. Prints nothing, or with --json a line for each image.
    """
    sink = sink_of(output, "an archive", json=settings.json)
    with settings.open_store(*images) as store, shown(settings, "save") as progress:
        saved = store.save(
            [image.removeprefix(CONTAINERD) for image in images],
            sink,
            platform=platform,
            everything=everything,
            progress=progress,
        )
    for one in saved:
        if settings.json:
            emit(as_json(one.to_dict()))
        if settings.verbose:
            complain(f"save: {one.source} {one.descriptor.digest}")
