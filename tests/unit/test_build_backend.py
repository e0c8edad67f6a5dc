"""What the source distribution says where it cannot be built."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def requires(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The hook that pip calls first, in the directory in which it calls it."""
    monkeypatch.chdir(_ROOT)
    hook: Any = runpy.run_path(str(_ROOT / "release" / "ocidiff_build.py"))["get_requires_for_build_wheel"]
    return lambda: hook(None)


def _tool(place: Path, name: str, says: str = "") -> None:
    (place / name).write_text(f"#!/bin/sh\necho {says}\n")
    (place / name).chmod(0o755)


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ({}, "cargo not found: install Rust 1."),
        ({"cargo": "cargo 1.70.0 (ec8a8a0ca 2023-04-25)", "cc": ""}, "Rust 1.70.0 is too old: install Rust 1."),
        ({"cargo": "cargo 1.999.0-nightly"}, "cc not found: install a C compiler"),
    ],
)
def test_one_line_says_what_is_missing(
    requires: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: dict[str, str], said: str
) -> None:
    for name, says in tools.items():
        _tool(tmp_path, name, f"'{says}'")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as refused:
        requires()
    message = str(refused.value)
    assert said in message
    assert "\n" not in message


def test_nothing_else_is_required_where_the_tools_are(
    requires: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tool(tmp_path, "cargo", "'cargo 1.999.0'")
    _tool(tmp_path, "cc")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requires() == []
