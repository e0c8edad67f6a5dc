"""The public names: sorted, whole, cheap to import, and the same for type checkers."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import ocidiff
from ocidiff import errors

SOURCE = Path(ocidiff.__file__)
# Modules that would make `import ocidiff` slow.
HEAVY = {
    "asyncio",
    "click",
    "dataclasses",
    "hashlib",
    "json",
    "ocidiff._core",
    "ocidiff.layer",
    "rich",
    "tarfile",
    "threading",
}


def test_exports_are_sorted_and_there() -> None:
    assert ocidiff.__all__ == sorted(ocidiff.__all__)
    assert len(set(ocidiff.__all__)) == len(ocidiff.__all__)
    for name in ocidiff.__all__:
        assert getattr(ocidiff, name) is not None
    assert dir(ocidiff) == ocidiff.__all__


def test_every_error_is_public_and_derives_from_the_base() -> None:
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert classes <= set(ocidiff.__all__)
    assert all(issubclass(getattr(errors, name), errors.OcidiffError) for name in classes)


def test_every_error_stands_in_the_drawing_of_the_tree() -> None:
    assert errors.__doc__ is not None
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, Exception):
            assert name in errors.__doc__


def test_type_checkers_see_the_same_names_from_the_same_homes() -> None:
    tree = ast.parse(SOURCE.read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: (node.module or "").removeprefix("ocidiff.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == ocidiff._HOME_OF
    assert {*seen, "__version__"} == set(ocidiff.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(ocidiff, "nonsense")


def test_importing_the_package_loads_nothing_heavy() -> None:
    run = subprocess.run(
        [sys.executable, "-S", "-c", "import sys, ocidiff; print(*sys.modules, sep='\\n')"],
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent.parent)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert HEAVY.isdisjoint(run.stdout.split())
