"""`ocidiff apply`: write a layer onto a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.options import engine_option, limit_options
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit, source_of, warn_of_skipped
from ocidiff.layer.layer import RECORD
from ocidiff.output import naming
from ocidiff.sizes import counted, size

if TYPE_CHECKING:
    from ocidiff.layer.arguments import DestinationName
    from ocidiff.layer.options import EngineName


@click.command("apply", epilog="Example: ocidiff apply layer.tar.gz rootfs")
@click.argument("layer", type=click.Path(allow_dash=True))
@click.argument("target", type=click.Path())
@click.option("--diff-id", metavar="DIGEST", help="What the uncompressed layer must hash to.")
@click.option(
    "--same-owner/--no-same-owner",
    default=None,
    help="Give every entry its recorded owner, or leave out what may not be set.  [default: same owner for root]",
)
@click.option(
    "--destination",
    type=click.Choice(("directory", "overlay", "overlay-userxattr")),
    default="directory",
    show_default=True,
    help="What TARGET is: a plain tree, or the upperdir of an overlay.",
)
@limit_options
@engine_option
@common("json", "quiet", "progress", "verbose")
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    layer: str,
    target: str,
    diff_id: str | None,
    same_owner: bool | None,
    destination: DestinationName,
    engine: EngineName | None,
    limits: ocidiff.Limits,
) -> None:
    """Write LAYER onto the directory TARGET.

    LAYER is a file, or - for stdin; its compression is detected. An error may leave TARGET half written. Prints the
    layer's diff ID.
    """
    with naming(target), shown(settings, "apply") as progress:
        summary = ocidiff.apply(
            source_of(layer),
            target,
            diff_id=diff_id,
            same_owner=same_owner,
            destination=destination,
            limits=limits,
            engine=engine,
            progress=progress,
        )
    if not settings.quiet:
        warn_of_skipped("apply", summary.skipped)
        if summary.recorded:
            complain(f"warning: apply: {summary.recorded} of these are noted in {RECORD}")
    if settings.verbose:
        complain(
            f"apply: {counted(summary.entries, 'entry', 'entries')}, {counted(summary.whiteouts, 'whiteout')}, "
            f"{size(summary.uncompressed_size)} uncompressed"
        )
    emit(as_json(summary.to_dict()) if settings.json else summary.diff_id)
