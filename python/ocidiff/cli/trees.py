"""The two trees that a command compares: LOWER and UPPER, or the layers of an overlay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import click

import ocidiff
from ocidiff.cli.names import ANY_OPERAND
from ocidiff.cli.settings import Command, decorated

if TYPE_CHECKING:
    from ocidiff.mounts.layers import OverlayLayers

_LAYERS: Final = (
    click.option(
        "--upperdir",
        metavar="DIR",
        type=click.Path(),
        help="Read an overlay's changes from DIR, in place of LOWER and UPPER.",
    ),
    click.option("--lowerdir", metavar="DIR:…", help="Name the directories below --upperdir, top first."),
)


def compared_trees(command: Command) -> Command:
    """LOWER and UPPER, or the layers of an overlay: see `trees_of`."""
    arguments = (
        click.argument("lower", type=ANY_OPERAND, required=False),
        click.argument("upper", type=ANY_OPERAND, required=False),
    )
    return decorated(command, *arguments, *_LAYERS)


def trees_of(
    lower: str | None, upper: str | None, upperdir: str | None, lowerdir: str | None
) -> tuple[str | None, str | OverlayLayers]:
    """The two trees that a command line names.

    Raises:
        UsageError: It does not name two trees, or names them twice.
    """
    if upperdir is None and lowerdir is None:
        if lower is None or upper is None:
            raise click.UsageError("missing argument: give LOWER and UPPER, or --upperdir and --lowerdir")
        return lower, upper
    if upperdir is None or lowerdir is None or lower is not None:
        raise click.UsageError("--upperdir and --lowerdir: give both of them, and no LOWER and UPPER")
    from ocidiff.mounts.mount import split_lowerdir

    below, data = split_lowerdir(os.fsencode(lowerdir))
    if b"" in below + data:
        raise click.UsageError(f"--lowerdir: {lowerdir!r} names an empty directory")
    return None, ocidiff.overlay_layers(upperdir, list(map(os.fsdecode, below)), datadirs=list(map(os.fsdecode, data)))
