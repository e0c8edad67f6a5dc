"""`ocidiff batch`: many directories or working containers over one base become images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.names import IMAGE
from ocidiff.cli.options import layer_options, limit_options, platform_option, size_option
from ocidiff.cli.registry import registry_options
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.split import split_option
from ocidiff.cli.streams import complain, emit, source_of
from ocidiff.output import naming

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.layer.arguments import DiffArguments

_FAILED = 1


@click.command("batch", epilog="Example: ocidiff batch images.jsonl --base app:v1 --shard 0/4")
@click.argument("manifest", type=click.Path(allow_dash=True))
@click.option("--base", metavar="IMAGE", type=IMAGE, help="Base image of all lines; required for `upper`.")
@click.option(
    "--lower",
    metavar="DIR|index:FILE",
    type=click.Path(),
    help="The tree of the base, or an index of it (only with `source`).  [default: the base, unpacked once]",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Do every N-th line only, from line I + 1 on; /N takes I from $JOB_COMPLETION_INDEX.  [default: all lines]",
)
@size_option(
    "--disk",
    "disk_bytes",
    "Stop before more than this is added to the store.  [default: stop before the file system is full]",
)
@platform_option
@split_option
@layer_options
@limit_options
@registry_options
@common("store", "quiet")
@pass_settings
@click.pass_context
def command(
    context: click.Context,
    settings: Settings,
    /,
    *,
    manifest: str,
    base: str | None,
    lower: str | None,
    shard: str | None,
    disk_bytes: int | None,
    platform: str | None,
    layers: int,
    limits: ocidiff.Limits,
    registry: ocidiff.Registry,
    **options: Unpack[DiffArguments],
) -> None:
    """Commit what each line of MANIFEST says.

    MANIFEST is a file of JSON Lines, or - for stdin. Members of a line: "upper", the upper directory of an overlay over the
    base, or "source", a directory or a working container as `ocidiff commit` takes it; "name", the name of the image; and
    "changes", a list of Dockerfile instructions. Paths are relative to the current directory.

    Prints a JSON line for each line of MANIFEST, in the order in which they are done: "line", "status" (made, present,
    failed or stopped), "name", and "digest" or "error". A made image is safe on disk by then. A line is
    skipped, and its image present, if an earlier run made it of the same input: run the same command again after a failure,
    an interrupt or a full disk. Exits with 1 if a line has no image. --threads, --memory and --disk bound the whole run.
    """
    place = settings.store_path()

    def tell(result: ocidiff.BatchResult) -> None:
        emit(as_json(result.to_dict()), flush=True)
        if result.error:
            complain(f"batch: line {result.line}: {result.error}")

    with naming(place), ocidiff.Store.open(place) as store:
        try:
            done = store.batch(
                source_of(manifest),
                tell,
                base=base,
                lower=lower,
                shard=shard,
                disk_bytes=disk_bytes,
                platform=platform,
                layers=layers,
                limits=limits,
                registry=registry,
                **options,
            )
        except SystemExit as end:
            # A signal: an interrupt says it by itself.
            complain("; ".join(["batch: stopped", *getattr(end, "__notes__", ())]))
            raise
    if not settings.quiet:
        complain(f"batch: {done}")
    if not done.is_done:
        context.exit(_FAILED)
