"""Trees are walked in one place, where no error is swallowed: what cannot be read is never taken for what is not there."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import ocidiff

PACKAGE = Path(ocidiff.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# They swallow errors by default, or take paths, which may be too long for the kernel.
WALKS = {"walk", "fwalk", "scandir", "rmtree", "glob", "iglob", "rglob", "iterdir", "copytree", "removedirs"}
# They take an error for absence. What is no step of a walk may use them: whether to show, try or tell something.
TESTS = {"exists", "lexists", "isdir", "isfile", "islink", "ismount"}
MAY_TEST = {
    "embedded/connection.py": 1,
    "output.py": 1,
    "mounts/behind.py": 1,
    "cli/changes.py": 1,
    "cli/index.py": 1,
    "cli/commit.py": 1,
}
# Where every failure of the system is ignored: what is cleaned up after a failure, what `gc` and `verify` tell, other
# processes that may end, images that only decide where snapshots end, and the size that progress is measured by.
MAY_SUPPRESS = {
    "layer/pure/apply.py": 1,
    "embedded/trees.py": 1,
    "embedded/share.py": 1,
    "embedded/pending.py": 1,
    "mounts/mountinfo.py": 1,
    "embedded/containers.py": 1,
    "embedded/reuse.py": 1,
    "image/chain.py": 1,
    "containerd/content.py": 3,
    "containerd/serve/notify.py": 1,
    "containerd/serve/server.py": 1,
    "transport/layout.py": 1,
    "transport/store.py": 1,
    "embedded/segments.py": 3,
    "segments.py": 1,
}


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def _calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_walk_swallows_errors(path: Path) -> None:
    for call in _calls(path):
        assert not any(word.arg == "ignore_errors" for word in call.keywords), f"{_name(path)}: ignore_errors"
        name = call.func
        if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and name.value.id in {"os", "shutil"}:
            assert name.attr not in WALKS, f"{_name(path)}: {name.value.id}.{name.attr}: use ocidiff.walk"
        elif isinstance(name, ast.Attribute):
            assert name.attr not in WALKS - {"walk"}, f"{_name(path)}: {name.attr}: use ocidiff.walk"


def test_few_places_take_an_error_for_absence() -> None:
    found: Counter[str] = Counter()
    for path in FILES:
        for call in _calls(path):
            found[_name(path)] += isinstance(call.func, ast.Attribute) and call.func.attr in TESTS
    assert +found == Counter(MAY_TEST)


def test_few_places_pass_over_every_failure_of_the_system() -> None:
    found: Counter[str] = Counter()
    for path in FILES:
        for call in _calls(path):
            is_suppress = isinstance(call.func, ast.Name | ast.Attribute) and ast.unparse(call.func).endswith("suppress")
            found[_name(path)] += is_suppress and any(
                isinstance(kind, ast.Name) and kind.id in {"OSError", "Exception"} for kind in call.args
            )
    assert +found == Counter(MAY_SUPPRESS)
