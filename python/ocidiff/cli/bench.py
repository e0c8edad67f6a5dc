"""`ocidiff bench`: this machine and the tools on it are measured."""

from __future__ import annotations

from typing import Final

import click

from ocidiff.cli.options import refuse_dash, size_type
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit
from ocidiff.output import naming, open_output, write_all
from ocidiff.sizes import counted

_MOST_ROUNDS: Final = 1000


@click.command("bench", epilog="Example: ocidiff bench --report bench.html")
@click.argument("tree", metavar="[TREE]", required=False, type=click.Path())
@click.option("--size", type=size_type, default="50MB", show_default=True, help="Bytes of the made-up tree.")
@click.option(
    "--files", type=click.IntRange(min=8), default=5000, show_default=True, metavar="N", help="Number of its files."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, metavar="N", help="Choose the tree.")
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(),
    help="Work in a directory in DIR.  [default: $TMPDIR, else /var/tmp]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, _MOST_ROUNDS),
    default=3,
    show_default=True,
    metavar="N",
    help="How often each tool does each work, in turns.",
)
@click.option(
    "--peers",
    default="auto",
    show_default=True,
    metavar="auto|none|NAME,…",
    help="Other tools to measure: tar, buildah, umoci; auto for all that are installed.",
)
@click.option(
    "--compression",
    "compressions",
    multiple=True,
    type=click.Choice(("gzip", "zstd", "none")),
    help="Measure this compression beside the default, gzip; may be repeated.",
)
@click.option(
    "--threads",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Measure this number of threads beside the default, all cores; may be repeated.",
)
@click.option(
    "--report", metavar="FILE", type=click.Path(), callback=refuse_dash, help="Write an HTML page with plots to this file."
)
@common("json", "quiet", "progress", "verbose")
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    tree: str | None,
    size: int,
    files: int,
    seed: int,
    directory: str | None,
    rounds: int,
    peers: str,
    compressions: tuple[str, ...],
    threads: tuple[int, ...],
    report: str | None,
) -> None:
    """Measure this machine: diff, commit, apply and unpack, beside other tools.

    The work is done on a made-up tree, or on a copy of TREE, which is only read. Everything is removed at the end.
    Results that differ are an error.
    """
    from contextlib import ExitStack

    from ocidiff.bench.page import page_of
    from ocidiff.bench.run import Plan, run, variants_of
    from ocidiff.bench.table import lines

    names = {"auto": None, "none": ()}.get(peers, tuple(dict.fromkeys(filter(None, peers.split(",")))))
    plan = Plan(tree, files, size, seed, directory, rounds, variants_of(compressions, threads), names)

    def warn(text: str) -> None:
        if not settings.quiet:
            complain(f"warning: bench: {text}")

    with ExitStack() as stack:
        # Opened before the work, which takes long.
        page = None if report is None else stack.enter_context(open_output(report))
        with shown(settings, "bench") as progress:
            result = run(plan, warn=warn, progress=progress)
        if page is not None:
            with naming(report or ""):
                write_all(page, page_of(result))
    if settings.verbose:
        complain(f"bench: {counted(len(result.workloads), 'workload')}; {result.seconds:.0f} s")
    emit(as_json(result.to_dict()) if settings.json else "\n".join(lines(result)))
