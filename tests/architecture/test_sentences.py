"""The sentences of errors stand in one list for each engine, and both lists are equal."""

from __future__ import annotations

import ast
import re
import string
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import ocidiff
from ocidiff.errors import OUTCOMES
from ocidiff.layer.pure import sentences

ROOT = Path(__file__).parents[2]
CORE = ROOT / "rust/ocidiff-core/src"
PURE = sorted((Path(ocidiff.__file__).parent / "layer/pure").glob("*.py"))
# What only the core can meet: threads, compiled patterns, an old kernel, the words of the binding.
OF_THE_CORE_ALONE = {"NoOpenat2", "UnevenPatterns", "TooLittleMemory", "NotDigest", "UnknownKind"}
OF_PYTHON_ALONE = {"NO_ZSTD"}
# They are told by Python's `OSError`, and by a cause alone.
WITHOUT_A_HEAD = {"Io", "Usage"}
# What takes a sentence: every exception, and what carries one to where the place is known.
MAKERS = {kind.__name__ for kind in OUTCOMES} - {"OSError"}
MAKERS |= {"FieldError", "BrokenIndex", "malformed", "unsafe", "unsupported", "unrepresentable", "source_changed"}
MAKERS |= {"unreadable_overlay", "refuse", "wrong", "broken_compression", "broken_link"}


def templates(path: Path, enum: str) -> dict[str, str]:
    """The texts of the variants of an enum, with named fields."""
    body = path.read_text().split(f"pub enum {enum} {{", 1)[1].split("\n}\n", 1)[0]
    found = {}
    for text, arguments, variant in re.findall(r'#\[error\(\s*"((?:[^"\\]|\\.)*)"((?:, [^\n]*)?)\s*\)\]\s+([A-Z]\w+)', body):
        fields = iter(re.findall(r"\w+\((\w+)\)", arguments))
        found[variant] = re.sub(r"\{\}", lambda _, fields=fields: "{" + next(fields) + "}", text)  # type: ignore[misc]
    return found


def constant(variant: str) -> str:
    """The name of a variant in Python."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", variant).upper()


def told() -> dict[str, str]:
    """All sentences of the pure engine."""
    return {name: value for name, value in vars(sentences).items() if name.isupper()}


@cache
def nodes() -> list[tuple[Path, ast.AST]]:
    """All nodes of the pure engine."""
    return [(path, node) for path in PURE for node in ast.walk(ast.parse(path.read_text()))]


@cache
def uses() -> dict[str, tuple[int, list[set[str | None]]]]:
    """How often each sentence is used, and the fields that are given to it where it is formatted."""
    names = Counter(name for _, node in nodes() if (name := _name_of(node)))
    formatted: dict[str, list[set[str | None]]] = {name: [] for name in told()}
    for _, node in nodes():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            name = _name_of(node.func.value)
            if name is not None:
                formatted[name].append({keyword.arg for keyword in node.keywords})
    return {name: (names[name], formatted[name]) for name in told()}


def test_both_lists_are_the_same() -> None:
    heads, causes = templates(CORE / "error.rs", "Error"), templates(CORE / "cause.rs", "Cause")
    assert causes.keys() >= OF_THE_CORE_ALONE
    assert heads.keys() >= WITHOUT_A_HEAD
    core = {name: text for name, text in {**heads, **causes}.items() if name not in OF_THE_CORE_ALONE | WITHOUT_A_HEAD}
    assert {constant(name): text for name, text in core.items()} == {
        name: text for name, text in told().items() if name not in OF_PYTHON_ALONE
    }


def test_every_sentence_of_the_core_is_used() -> None:
    source = "".join(path.read_text() for path in CORE.parent.parent.rglob("src/**/*.rs") if path.name != "cause.rs")
    unused = [name for name in templates(CORE / "cause.rs", "Cause") if not re.search(rf"Cause::{name}\b", source)]
    assert unused in ([], ["OfEntry"])  # made by `Cause::of`


@pytest.mark.parametrize("name", told())
def test_every_sentence_is_used_with_its_fields(name: str) -> None:
    fields = {field for _, field, _, _ in string.Formatter().parse(told()[name]) if field}
    names, formatted = uses()[name]
    assert names
    assert len(formatted) == (names if fields else 0), f"{name} is used without its fields"
    assert all(given == fields for given in formatted)


def test_no_error_is_worded_where_it_is_raised() -> None:
    for path, call in nodes():
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in MAKERS:
            texts = [node for node in ast.walk(call) if isinstance(node, ast.JoinedStr) or _is_sentence(node)]
            assert not texts, f"{path.name}:{call.lineno}: {ast.unparse(call)}"


def _name_of(node: ast.AST) -> str | None:
    """NAME of `sentences.NAME`."""
    is_use = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sentences"
    return node.attr if is_use and isinstance(node, ast.Attribute) else None


def _is_sentence(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
