"""The sentences of errors stand in one list for each engine, and both lists are equal."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import ocidiff
from ocidiff.errors import OUTCOMES
from ocidiff.layer.pure import sentences

ROOT = Path(__file__).parents[2]
CORE = ROOT / "rust/ocidiff-core/src"
PURE = sorted((Path(ocidiff.__file__).parent / "layer/pure").glob("*.py"))
# What only the core can meet: threads, compiled patterns, an old kernel, the words of the binding.
OF_THE_CORE_ALONE = {"NoOpenat2", "UnevenPatterns", "TooLittleMemory", "NotAChoice", "NotDigest", "UnknownKind"}
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
    for text, arguments, variant in re.findall(r'#\[error\("((?:[^"\\]|\\.)*)"((?:, [^\n]*)?)\)\]\s+([A-Z]\w+)', body):
        fields = iter(re.findall(r"\w+\((\w+)\)", arguments))
        found[variant] = re.sub(r"\{\}", lambda _, fields=fields: "{" + next(fields) + "}", text)  # type: ignore[misc]
    return found


def constant(variant: str) -> str:
    """The name of a variant in Python."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", variant).upper()


def told() -> dict[str, str]:
    """All sentences of the pure engine."""
    return {name: value for name, value in vars(sentences).items() if name.isupper()}


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in PURE:
        yield from ((path, node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


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
    used = 0
    for path in PURE:
        tree = ast.parse(path.read_text())
        names = [node for node in ast.walk(tree) if _is_use(node, name)]
        formatted = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "format"
            and _is_use(node.func.value, name)
        ]
        used += len(names)
        assert len(formatted) == (len(names) if fields else 0), f"{path.name}: {name} is used without its fields"
        for call in formatted:
            assert {keyword.arg for keyword in call.keywords} == fields, f"{path.name}: {name}"
    assert used


def test_no_error_is_worded_where_it_is_raised() -> None:
    for path, call in calls():
        if isinstance(call.func, ast.Name) and call.func.id in MAKERS:
            texts = [node for node in ast.walk(call) if isinstance(node, ast.JoinedStr) or _is_sentence(node)]
            assert not texts, f"{path.name}:{call.lineno}: {ast.unparse(call)}"


def _is_use(node: ast.AST, name: str) -> bool:
    """True for `sentences.NAME`."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.value, ast.Name)
        and node.value.id == "sentences"
    )


def _is_sentence(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
