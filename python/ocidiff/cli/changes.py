"""`ocidiff changes`: list what differs."""

from __future__ import annotations

from typing import Final

import click

import ocidiff
from ocidiff.cli.options import Settings, common, compared_trees, comparison_options, pass_settings, trees_of
from ocidiff.cli.render import as_json, printable
from ocidiff.cli.streams import emit
from ocidiff.layer.layer import ChangeKind

# As `docker diff` has it.
_LETTERS: Final = {ChangeKind.ADD: "A", ChangeKind.MODIFY: "C", ChangeKind.DELETE: "D"}


@click.command("changes", epilog="Example: ocidiff changes lower upper")
@compared_trees
@click.option("--exit-code", is_flag=True, help="Exit with 1 when the trees differ.")
@comparison_options
@common("json")
@pass_settings
@click.pass_context
def command(
    context: click.Context,
    settings: Settings,
    /,
    *,
    lower: str | None,
    upper: str | None,
    upperdir: str | None,
    lowerdir: str | None,
    exit_code: bool,
    profile: str,
    overlay: str,
    uid_map: tuple[str, ...],
    gid_map: tuple[str, ...],
    userns: int | None,
    threads: int,
    engine: str | None,
) -> None:
    """List what turns LOWER into UPPER.

    Both are directories. LOWER may be the word scratch, to which all of UPPER is an addition (./scratch is a directory).
    Prints a line each, in layer order: A /added, C /changed, D /deleted.
    """
    differ = False
    below, above = trees_of(lower, upper, upperdir, lowerdir)
    for change in ocidiff.changes(
        below,
        above,
        overlay=overlay,
        profile=profile,
        threads=threads,
        uid_map=uid_map,
        gid_map=gid_map,
        userns=userns,
        engine=engine,
    ):
        differ = True
        if settings.json:
            emit(as_json({"kind": change.kind, "path": change.path}))
        else:
            emit(f"{_LETTERS[change.kind]} {printable(change.path)}")
    if differ and exit_code:
        context.exit(1)
