"""`ocidiff index`: save what a tree is, to compare with later without it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.names import IMAGE_OR_PATH
from ocidiff.cli.options import (
    cross_mounts_option,
    engine_option,
    id_options,
    limit_options,
    platform_option,
    threads_option,
)
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit, sink_of, warn_of_skipped
from ocidiff.layer.operand import is_path
from ocidiff.output import naming
from ocidiff.sizes import counted, size

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.layer.arguments import TreeArguments


@click.command(
    "index", epilog="Example: ocidiff index ./rootfs -o base.idx && ocidiff diff index:base.idx changed -o layer.tar.gz"
)
@click.argument("source", metavar="TREE_OR_IMAGE", type=IMAGE_OR_PATH)
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(), help="The index; - for stdout.")
@click.option("--sha256", is_flag=True, help="Give contents a sha256 too, which then decides whether they are the same.")
@click.option(
    "--stamps", is_flag=True, help="Keep inodes and change times too, to compare with this very tree, changed in place."
)
@platform_option
@id_options
@cross_mounts_option
@threads_option
@limit_options
@engine_option
@common("store", "json", "quiet", "progress", "verbose")
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    source: str,
    output: str,
    sha256: bool,
    stamps: bool,
    platform: str | None,
    limits: ocidiff.Limits,
    **options: Unpack[TreeArguments],
) -> None:
    """Save what a tree is, so that index:FILE can stand for it as LOWER.

    TREE_OR_IMAGE is a directory; where there is none of that name, an image of the store, whose layers are read and not
    unpacked. Prints the digest of the index.
    """
    is_tree = os.path.isdir(source) or (platform is None and is_path(source))
    if is_tree and platform is not None:
        raise click.UsageError("--platform: cannot be used with a directory")
    if not is_tree and any(options.get(name) for name in ("uid_map", "gid_map", "userns")):
        raise click.UsageError("--uid-map, --gid-map and --userns: cannot be used with an image")
    if not is_tree and (options.get("cross_mounts") or stamps):
        raise click.UsageError("--cross-mounts and --stamps: cannot be used with an image")
    sink, to_stdout = sink_of(output, "an index", json=settings.json), output == "-"
    with naming("stdout" if to_stdout else output), shown(settings, "index") as progress:
        if is_tree:
            done = ocidiff.index(
                source,
                sink,
                sha256=sha256,
                stamps=stamps,
                progress=progress,
                **options,
            )
        else:
            with ocidiff.Store.open(settings.store_path(), create=False) as store:
                done = store.index(
                    source,
                    sink,
                    sha256=sha256,
                    platform=platform,
                    limits=limits,
                    engine=options.get("engine"),
                    progress=progress,
                )
    if not settings.quiet:
        warn_of_skipped("index", done.skipped)
    if settings.verbose:
        complain(f"index: {counted(done.entries, 'entry', 'entries')}, {size(done.size)}; {done.seconds:.2f} s")
    if to_stdout:
        return
    emit(as_json(done.to_dict()) if settings.json else done.digest)
