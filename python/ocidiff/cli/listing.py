"""Listings: `images`, `ps` and `history` share their options and the way their lines are written."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from ocidiff.cli.render import as_json, columns
from ocidiff.cli.settings import Settings
from ocidiff.cli.streams import emit, is_terminal
from ocidiff.oci.timestamp import NS_PER_SECOND
from ocidiff.printable import printable

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SHORT_DIGITS: Final = 12
_FIELD: Final = r"\{\{ *\.(\w+) *\}\}"
_ESCAPES: Final = {r"\t": "\t", r"\n": "\n"}
_NARROWEST: Final = 8
# Seconds of each unit, up to which number it is used, and its name.
_UNITS: Final = (
    (1, 60, "second"),
    (60, 60, "minute"),
    (3600, 48, "hour"),
    (86_400, 14, "day"),
    (604_800, 9, "week"),
    (2_592_000, 24, "month"),
    (31_536_000, 10_000, "year"),
)


class Row:
    """One line of a listing.

    Attributes:
        id: What `-q` prints.
        document: JSON object of the line.
        cells: Text of each column.
        full: The same with `--no-trunc`.
    """

    __slots__ = ("cells", "document", "full", "id")

    def __init__(self, identity: str, document: Mapping[str, object], cells: Sequence[str], full: Sequence[str]) -> None:
        self.id = identity
        self.document = document
        self.cells = cells
        self.full = full


def listing_options(filters: Sequence[str]) -> Callable[[_Command], _Command]:
    """Add the options that all listings have.

    Args:
        filters: Names that `--filter` takes.
    """
    filter_help = f"Only lines with this: {', '.join(f'{name}=VALUE' for name in filters)}. Repeat to narrow."
    options = (
        click.option("-q", "--quiet", "only_ids", is_flag=True, help="Print ids only."),
        click.option("--no-trunc", is_flag=True, help="Show ids, times and texts whole."),
        click.option(
            "--filter", "filters", multiple=True, metavar="NAME=VALUE", callback=_filters(filters), help=filter_help
        ),
        click.option(
            "--format",
            "template",
            metavar="json|TEMPLATE",
            help="json, or a text with a field for each column: '{{.Name}} {{.Size}}'.",
        ),
    )

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def write_listing(
    heads: Sequence[str],
    rows: Iterable[Row],
    settings: Settings,
    *,
    only_ids: bool,
    no_trunc: bool,
    template: str | None,
) -> None:
    """Write the lines of a listing to stdout, in the form that the options ask for."""
    if only_ids:
        for row in rows:
            emit(row.id if no_trunc else short_id(row.id))
    elif settings.json or template == "json":
        for row in rows:
            emit(as_json(row.document))
    elif template is not None:
        fields = [_field(head) for head in heads]
        _check_template(template, fields)
        for row in rows:
            emit(_filled(template, dict(zip(fields, row.full if no_trunc else row.cells, strict=True))))
    else:
        cells = [row.full if no_trunc else row.cells for row in rows]
        for line in columns(heads, cells if no_trunc else _fitted(heads, cells)):
            emit(line)


def short_id(identity: str) -> str:
    """Return the first 12 digits of a digest; any other text as it is."""
    algorithm, colon, digits = identity.partition(":")
    return digits[:_SHORT_DIGITS] if colon and algorithm == "sha256" else identity


def ago(time_ns: int | None, now_ns: int | None = None) -> str:
    """Return how long ago a time was, as "2 minutes ago"; `-` for an unknown time.

    Args:
        time_ns: Nanoseconds since 1970; None if unknown.
        now_ns: Nanoseconds since 1970; None for now.
    """
    if time_ns is None:
        return "-"
    seconds = ((time.time_ns() if now_ns is None else now_ns) - time_ns) // NS_PER_SECOND
    if seconds < 0:
        return "in the future"
    if seconds < 1:
        return "just now"
    unit, word = next((unit, word) for unit, most, word in _UNITS if seconds < unit * most)
    count = seconds // unit
    return f"{count} {word}{'' if count == 1 else 's'} ago"


def _filters(known: Sequence[str]) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], list[tuple[str, str]]]:
    def parse(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
        parsed = []
        for text in values:
            name, equals, value = text.partition("=")
            if not equals or name not in known:
                choices = ", ".join(known)
                raise click.BadParameter(f"{text!r}: must be NAME=VALUE with one of {choices}", context, parameter)
            parsed.append((name, value))
        return parsed

    return parse


def _field(head: str) -> str:
    """Return the name that a template gives to a column."""
    return head.title().replace(" ", "").replace("Id", "ID")


def _check_template(template: str, fields: Sequence[str]) -> None:
    for name in re.findall(_FIELD, template):
        if name not in fields:
            raise click.UsageError(f"--format: no field {name!r}; there are {', '.join(fields)}")


def _filled(template: str, values: Mapping[str, str]) -> str:
    for escape, char in _ESCAPES.items():
        template = template.replace(escape, char)
    return re.sub(_FIELD, lambda found: printable(values[found[1]]), template)


def _fitted(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the cells, the widest columns cut so that lines fit the terminal. Pipes get them whole."""
    shown = [tuple(map(printable, row)) for row in rows]
    if not is_terminal(sys.stdout):
        return shown
    widths = [max(map(len, column)) for column in zip(heads, *shown, strict=True)]
    room = shutil.get_terminal_size().columns - 2 * (len(heads) - 1)
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return [tuple(_cut(cell, width) for cell, width in zip(row, widths, strict=True)) for row in shown]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
