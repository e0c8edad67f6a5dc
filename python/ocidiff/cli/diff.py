"""`ocidiff diff`: write the layer that turns LOWER into UPPER."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.options import (
    layer_options,
    limit_options,
    upper_tar_of,
    upper_tar_option,
)
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json, layer_line
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit, sink_of, warn_of_changes, warn_of_skipped
from ocidiff.cli.trees import compared_trees, trees_of
from ocidiff.output import naming

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.layer.arguments import DiffArguments
    from ocidiff.mounts.layers import OverlayLayers


@click.command("diff", epilog="Example: ocidiff diff lower upper -o layer.tar.gz")
@compared_trees
@upper_tar_option
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(), help="The layer; - for stdout.")
@partial(layer_options, compression="by the name of -o: .tar, .tar.gz, .tar.zst")
@limit_options
@common("json", "quiet", "progress", "verbose")
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    lower: str | None,
    upper: str | None,
    upperdir: str | None,
    lowerdir: str | None,
    upper_tar: str | None,
    output: str,
    limits: ocidiff.Limits,
    **options: Unpack[DiffArguments],
) -> None:
    """Write the layer that turns LOWER into UPPER.

    Both are directories. LOWER may be the word scratch, for a layer that holds all of UPPER (./scratch is a directory), or
    index:FILE for a tree of which there is an index. Where UPPER is an overlay mount over LOWER, only its upperdir is read.
    With --upper-tar there is no UPPER, and the limits hold for the tar. Prints the digest of the layer.
    """
    below: str | None
    above: str | OverlayLayers | ocidiff.UpperTar
    if upper_tar is None:
        below, above = trees_of(lower, upper, upperdir, lowerdir)
    elif lower is None or upper is not None or upperdir is not None or lowerdir is not None:
        raise click.UsageError("--upper-tar: give LOWER only; the tar stands for UPPER")
    else:
        below, above = lower, upper_tar_of(upper_tar, limits)
    sink, to_stdout = sink_of(output, "a layer", json=settings.json), output == "-"
    with naming("stdout" if to_stdout else output), shown(settings, "diff") as progress:
        layer = ocidiff.diff(
            below,
            above,
            sink,
            progress=progress,
            **options,
        )
    if not settings.quiet:
        warn_of_skipped("diff", layer.skipped)
        warn_of_changes("diff", layer)
    if settings.verbose:
        complain(f"diff: {layer_line(layer)}")
    if not to_stdout:
        emit(as_json(layer.to_dict()) if settings.json else layer.descriptor.digest)
