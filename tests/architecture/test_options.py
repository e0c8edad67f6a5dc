"""An option is said once: the fields of `DiffOptions` are the keyword arguments, the command-line options and the words."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import get_args, get_type_hints

import click
import pytest

import ocidiff
from ocidiff.cli import changes, commit, diff, index
from ocidiff.layer import arguments, indexer
from ocidiff.layer.options import ENGINES, LEVELS, Compression, DiffOptions, OnChange, OverlayMode, Profile

OPTIONS = {one.name for one in fields(DiffOptions)}
# What `changes` has no blob for. It lists everything before `--fail-above` fails it.
OF_THE_BLOB = {"compression", "level", "memory_bytes", "source_date_epoch"}
TREES = {"lower", "upper", "upperdir", "lowerdir", "upper_tar"}


def _names(command: click.Command) -> set[str]:
    # Options of all commands go to `Settings`.
    names = {parameter.name or "" for parameter in command.params if parameter.expose_value}
    return {name for name in names if not name.startswith("limit_")}


def test_the_keyword_arguments_are_the_fields() -> None:
    assert arguments.DiffArguments.__annotations__.keys() == OPTIONS
    assert arguments.TreeArguments.__annotations__.keys() == indexer.TREE_OPTIONS


def test_the_command_line_has_each_field_and_no_other() -> None:
    assert _names(diff.command) - TREES - {"output"} == OPTIONS
    assert _names(changes.command) - TREES - {"explain", "exit_code"} == OPTIONS - OF_THE_BLOB
    assert _names(commit.command) >= OPTIONS
    assert _names(index.command) & OPTIONS == indexer.TREE_OPTIONS


@pytest.mark.parametrize("verb", [ocidiff.diff, ocidiff.changes, ocidiff.Store.commit])
def test_verbs_take_the_value_or_its_fields_and_repeat_none(verb: object) -> None:
    assert callable(verb)
    parameters = inspect.signature(verb).parameters
    assert parameters["arguments"].annotation == "Unpack[DiffArguments]"
    assert parameters["options"].annotation == "DiffOptions | None"
    assert not parameters.keys() & OPTIONS
    assert "`DiffOptions`" in (inspect.getdoc(verb) or "")


def test_words_are_the_members_of_the_enumerations_and_the_choices_of_the_command_line() -> None:
    choices = {
        parameter.name: tuple(parameter.type.choices)
        for parameter in diff.command.params
        if isinstance(parameter.type, click.Choice)
    }
    for name, kind, words in (
        ("compression", Compression, arguments.CompressionName),
        ("profile", Profile, arguments.ProfileName),
        ("overlay", OverlayMode, arguments.OverlayName),
        ("on_change", OnChange, arguments.OnChangeName),
    ):
        literal = next(part for part in get_args(words) if part is not kind)
        assert set(get_args(literal)) == set(choices[name]) == set(kind)
    assert choices["engine"] == ENGINES
    assert LEVELS.keys() == set(Compression)


def test_every_field_is_described() -> None:
    described = inspect.getdoc(DiffOptions) or ""
    assert all(f"\n    {name}: " in described for name in OPTIONS)
    assert get_type_hints(arguments.DiffArguments).keys() == OPTIONS
