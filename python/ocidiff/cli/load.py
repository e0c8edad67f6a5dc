"""`ocidiff load`: the images of an archive come into the store."""

from __future__ import annotations

import sys

import click

import ocidiff
from ocidiff.cli.options import everything_option, limit_options, platform_option
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit
from ocidiff.output import naming

_STDIN = "-"


@click.command("load", epilog="Example: ocidiff load -i app.tar")
@click.option(
    "-i",
    "--input",
    "archive",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    default=_STDIN,
    help="The archive.  [default: stdin]",
)
@platform_option
@everything_option
@limit_options
@common("store", "containerd", "address", "namespace", "json", "quiet", "progress", "verbose")
@pass_settings
def command(settings: Settings, archive: str, platform: str | None, *, everything: bool, limits: ocidiff.Limits) -> None:
    """Store the images of an archive under the names that they have in it.

    Reads what docker save, podman save, skopeo, buildah and other OCI tools write, also compressed with gzip or zstd. Prints
    the name of each image.
    """
    if archive == _STDIN and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("stdin is a terminal or closed; give an archive with -i FILE")
    with naming(archive), settings.open_store(create=True) as store, shown(settings, "load") as progress:
        loaded = store.load(archive, platform=platform, everything=everything, limits=limits, progress=progress)
    for one in loaded:
        emit(as_json(one.to_dict()) if settings.json else one.target)
        if settings.verbose:
            complain(f"load: {one.target} {one.descriptor.digest}")
