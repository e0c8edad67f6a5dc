"""An option is said once: the fields of `DiffOptions` are the keyword arguments, the command-line options and the words."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections import defaultdict
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest

import ocidiff
from ocidiff.cli import apply, changes, commit, diff, index
from ocidiff.errors import UsageError
from ocidiff.image.request import Request
from ocidiff.layer import arguments, indexer
from ocidiff.layer.apply_options import ApplyOptions, IndexOptions
from ocidiff.layer.engine import select_engine
from ocidiff.layer.idmap import IdMaps, IdRange
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import (
    DEFAULT_LEVELS,
    ENGINES,
    LEVELS,
    MOST_LAYERS,
    Compression,
    DiffOptions,
    EngineName,
    LayerOptions,
    OnChange,
    OverlayMode,
    Profile,
    Segments,
)
from ocidiff.layer.patterns import Automaton
from ocidiff.layer.scope import Scope
from support import probes

OPTIONS = {one.name for one in fields(DiffOptions)}
# What `changes` has no blob for. It lists everything before `--fail-above` fails it.
OF_THE_BLOB = {"compression", "level", "memory_bytes", "source_date_epoch"}
# What Python alone acts on: it chooses the engine, the trees and the segments, and stops a call whose layer grows too large.
OF_PYTHON = {"engine", "overlay", "fail_above", "reuse", "proves_reuse"}
# What the binding reads in place of a field: words are read in Python, once for both engines.
READ_AS = {
    **dict.fromkeys(("uid_map", "gid_map", "userns"), "ids"),
    **dict.fromkeys(("exclude", "ignore_file", "cross_mounts"), "scope"),
    "lower_lacks_owners": "lower_has_ids",
    "links_by_device": "device_in_links",
}
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


@pytest.mark.parametrize("verb", [ocidiff.diff, ocidiff.changes, ocidiff.Store.commit, ocidiff.Store.changes])
def test_verbs_take_the_value_or_its_fields_and_repeat_none(verb: object) -> None:
    assert callable(verb)
    parameters = inspect.signature(verb).parameters
    kind = "CommitArguments" if verb is ocidiff.Store.commit else "DiffArguments"
    assert parameters["arguments"].annotation == f"Unpack[{kind}]"
    assert parameters["options"].annotation == "DiffOptions | None"
    assert not parameters.keys() & OPTIONS
    assert "`DiffOptions`" in (inspect.getdoc(verb) or "")


def test_the_arguments_of_commit_are_those_of_its_request() -> None:
    own = ocidiff.CommitArguments.__annotations__.keys() - OPTIONS
    parameters = inspect.signature(Request.of).parameters.values()
    assert own == {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    described = inspect.getdoc(ocidiff.CommitArguments) or ""
    assert all(f"\n    {name}: " in described for name in own)


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


def test_helps_tell_the_defaults() -> None:
    told = {
        option.name: help_.partition("[default: ")[2].rstrip("]")
        for option in apply.command.params
        if isinstance(option, click.Option) and (option.name or "").startswith("limit_") and (help_ := option.help)
    }
    limits = {f"limit_{one.name.removeprefix('max_')}": one.default for one in fields(ocidiff.Limits)}
    assert {name: "1 TiB" if value == 1 << 40 else str(value) for name, value in limits.items()} == told
    level = next(one for one in commit.command.params if one.name == "level")
    levels = ", ".join(f"{value} for {name}" for name, value in DEFAULT_LEVELS.items())
    assert isinstance(level, click.Option)
    assert f"[default: {levels}]" in (level.help or "")


@pytest.mark.parametrize("name", ENGINES)
def test_engines_and_the_command_line_write_the_same_numbers_of_layers(name: EngineName, tmp_path: Path) -> None:
    layers = next(one for one in commit.command.params if one.name == "layers")
    assert isinstance(layers.type, click.IntRange)
    assert (layers.type.min, layers.type.max) == (1, MOST_LAYERS)
    if name == "rust" and not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    engine, tree, options = select_engine(name), os.fsencode(tmp_path), LayerOptions()
    with tempfile.TemporaryFile() as sink:
        for count in (1, MOST_LAYERS):
            done = engine.write_layers(None, tree, [*[None] * (count - 1), sink.fileno()], options, Monitor())
            assert len(done.layers) == count
        for count in (0, MOST_LAYERS + 1):
            with pytest.raises(UsageError, match=rf"^layers {count}: must be 1 to {MOST_LAYERS}$"):
                engine.write_layers(None, tree, [sink.fileno()] * count, options, Monitor())


def test_every_field_is_described() -> None:
    described = inspect.getdoc(DiffOptions) or ""
    assert all(f"\n    {name}: " in described for name in OPTIONS)
    assert get_type_hints(arguments.DiffArguments).keys() == OPTIONS


class _Recorder:
    """A value that notes, by its type, which of its fields are read, and of the values in it."""

    def __init__(self, value: object, read: dict[type, set[str]]) -> None:
        self._value, self._read = value, read

    def __getattr__(self, name: str) -> object:
        self._read[type(self._value)].add(name)
        return self._recorded(getattr(self._value, name))

    def _recorded(self, found: object) -> object:
        if isinstance(found, tuple):
            return tuple(map(self._recorded, found))
        return _Recorder(found, self._read) if is_dataclass(found) else found


def _fields(kind: Any) -> set[str]:
    return {one.name for one in fields(kind)}


def test_the_binding_reads_each_field_that_python_does_not_act_on_alone(tmp_path: Path) -> None:
    if not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    from ocidiff.layer.rust import RustEngine

    engine: Any = RustEngine()
    read = defaultdict[type, set[str]](set)
    ids, scope = IdMaps((IdRange(0, 0, 1),)), Scope.of(["*.log"])
    tree, target = tmp_path / "tree", tmp_path / "target"
    tree.mkdir()
    target.mkdir()
    with tempfile.TemporaryFile() as layer, tempfile.TemporaryFile() as sink, tempfile.TemporaryFile() as table:
        segments = Segments((), (table.fileno(),))
        options = _Recorder(LayerOptions(ids=ids, scope=scope, segments=segments), read)
        engine.write_layer(None, os.fsencode(tree), layer.fileno(), options, Monitor())
        engine.write_index(os.fsencode(tree), sink.fileno(), _Recorder(IndexOptions(ids=ids), read), Monitor())
        layer.seek(0)
        engine.apply_layer(layer.fileno(), os.fsencode(target), _Recorder(ApplyOptions(), read), Monitor())
    assert read == {
        LayerOptions: {READ_AS.get(name, name) for name in _fields(LayerOptions) - OF_PYTHON},
        Scope: _fields(Scope) - {"rules"} | {"automaton", "warn_of_unfitted"},
        Automaton: _fields(Automaton),
        Segments: _fields(Segments),
        IdMaps: _fields(IdMaps),
        IdRange: _fields(IdRange),
        IndexOptions: _fields(IndexOptions),
        ApplyOptions: _fields(ApplyOptions) - {"same_owner"} | {"restores_owners"},
        Limits: _fields(Limits),
    }
