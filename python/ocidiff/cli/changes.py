"""`ocidiff changes`: list what differs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

import ocidiff
from ocidiff.cli.options import (
    comparison_options,
    size_gate,
)
from ocidiff.cli.render import as_json, columns, explained, totals_document
from ocidiff.cli.settings import CONTAINERD, FAILED_STATUS, Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit, warn_of_skipped
from ocidiff.cli.trees import compared_trees, trees_of
from ocidiff.errors import OUTCOMES, ChangeTooLargeError
from ocidiff.layer.layer import ChangeKind
from ocidiff.layer.operand import is_tree, may_be_container
from ocidiff.layer.totals import Totals
from ocidiff.printable import printable
from ocidiff.sizes import size, size_and_bound

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.layer.arguments import DiffArguments

# As `docker diff` has it.
_LETTERS: Final = {ChangeKind.ADD: "A", ChangeKind.MODIFY: "C", ChangeKind.DELETE: "D"}
_DIFFERENT: Final = 1
_TROUBLE: Final = 2
_TOO_LARGE: Final = OUTCOMES[ChangeTooLargeError].status
_WORDS: Final = ("added", "modified", "deleted")


@click.command("changes", epilog="Example: ocidiff changes lower upper; ocidiff changes app:v1 app:v2; ocidiff changes work")
@compared_trees
@click.option("--explain", is_flag=True, help="Say why each is a change, and where most of it is.")
@click.option("--exit-code", is_flag=True, help="Exit as diff(1): 0 same, 1 different, 2 trouble.")
@size_gate("Exit with 3 if the files in the change have more bytes than this, for example 500MB.")
@comparison_options
@common("store", "address", "namespace", "json")
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
    explain: bool,
    exit_code: bool,
    **options: Unpack[DiffArguments],
) -> None:
    """List what turns LOWER into UPPER, or what changed in the working container LOWER, or in containerd:ID.

    Both are directories, images of the store, or index:FILE for a tree of which there is an index; a name that is a
    directory is taken for it. LOWER may be the word scratch, to which all of UPPER is an addition (./scratch is a
    directory). Prints a line each, in layer order: A /added, C /modified, D /deleted.

    With --explain tabs follow, with the reasons and the sizes, and the directories with most of the change at the end.
    """
    if exit_code:
        context.meta[FAILED_STATUS] = _TROUBLE
    totals = Totals()
    comparison = _changes_of(settings, (lower, upper, upperdir, lowerdir), explain=explain, **options)
    with comparison as found:
        for change in found:
            totals.add(change)
            if settings.json:
                emit(as_json(change.to_dict()))
            else:
                emit(f"{_LETTERS[change.kind]} {printable(change.path)}" + (explained(change) if explain else ""))
        warn_of_skipped("changes", found.skipped)
    if explain and settings.json:
        skipped = {"skipped": dict(found.skipped)} if found.skipped else {}
        emit(as_json({"summary": {**totals_document(totals), **skipped}}))
    elif explain:
        _emit_totals(totals)
    fail_above = options.get("fail_above")
    if fail_above is not None and totals.layer_bytes > fail_above:
        found_bytes, bound = size_and_bound(totals.layer_bytes, fail_above)
        complain(f"changes: the files in the change take {found_bytes}, more than {bound}")
        context.exit(_TOO_LARGE)
    if exit_code and totals.kinds:
        context.exit(_DIFFERENT)


@contextmanager
def _changes_of(
    settings: Settings,
    named: tuple[str | None, str | None, str | None, str | None],
    *,
    explain: bool,
    **options: Unpack[DiffArguments],
) -> Iterator[ocidiff.Changes]:
    """Yield the changes that a command line asks for: of a container, of images and trees, or of trees alone."""
    lower, upper, upperdir, lowerdir = named
    sides = [side for side in (lower, upper) if side is not None]
    if upperdir is not None or lowerdir is not None or not sides or (len(sides) == 2 and all(map(_is_tree_here, sides))):
        yield ocidiff.changes(*trees_of(lower, upper, upperdir, lowerdir), explain=explain, **options)
        return
    # A single name is that of a container, even where there is a directory of that name.
    if len(sides) == 1 and (is_tree(sides[0]) or not may_be_container(sides[0])):
        raise click.UsageError("missing argument: give LOWER and UPPER, or the name of a working container")
    images = [side for side in sides if len(sides) == 1 or not _is_tree_here(side)]
    try:
        opened = settings.open_store(*images)
    except FileNotFoundError:
        if settings.is_containerd(*images):
            raise
        if len(sides) == 1:
            raise ocidiff.NotFoundError(f"no working container {sides[0]!r}") from None
        missing = next(side for side in sides if not _is_tree_here(side))
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), missing) from None
    sides = [side.removeprefix(CONTAINERD) for side in sides]
    with opened as store:
        found = store.changes(*[_operand(side) if len(sides) == 2 else side for side in sides], explain=explain, **options)
        try:
            yield found
        finally:
            found.close()


def _is_tree_here(side: str) -> bool:
    return is_tree(side) or os.path.isdir(side)


def _operand(side: str) -> str:
    """Return the side as `Store.changes` takes it, which knows a tree by its first character."""
    return f"./{side}" if _is_tree_here(side) and not is_tree(side) else side


def _emit_totals(totals: Totals) -> None:
    rows = [(size(total.layer_bytes), str(total.changes), total.path) for total in totals.largest_directories()]
    kinds = ", ".join(f"{totals.kinds[kind]} {word}" for kind, word in zip(ChangeKind, _WORDS, strict=True))
    emit(f"\n{kinds}; {size(totals.layer_bytes)} of files\n")
    for line in columns(("SIZE", "CHANGES", "DIRECTORY"), rows):
        emit(line)
