"""Patterns of a call that match nothing are told: a misspelt one leaves its files in the image."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import ocidiff
from ocidiff.layer.options import EngineName


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for tree in (lower, upper):
        (tree / "var/cache").mkdir(parents=True)
        (tree / "same").write_text("same")
    (lower / "gone.log").write_text("")
    (upper / "var/cache/x.tmp").write_text("new")
    return lower, upper


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


@pytest.mark.parametrize(
    ("patterns", "unfitted"),
    [
        (["/tpm/*"], ["/tpm/*"]),
        (["*.tmp"], []),
        (["*.log", "same", "/var/cache/"], []),
        (["same/", "*.tmp"], ["same/"]),
        (["*.tmp", "!x.tmp", "*.pyc", "!*.py"], ["*.pyc", "!*.py"]),
        (["@runtime"], []),
        (["@runtime", "/var/cahce"], ["/var/cahce"]),
        ([f"/{number}" for number in range(7)], [f"/{number}" for number in range(5)]),
        # Paths below an excluded directory are not looked at.
        (["/var", "/var/cache/x.tmp"], ["/var/cache/x.tmp"]),
    ],
)
def test_patterns_that_match_no_path_are_told(
    patterns: list[str],
    unfitted: list[str],
    trees: tuple[Path, Path],
    tmp_path: Path,
    engine_name: EngineName,
    caplog: pytest.LogCaptureFixture,
) -> None:
    more = " and 2 more" if len(patterns) == 7 else ""
    expected = [f"exclude: no path matches {', '.join(map(repr, unfitted))}{more}"] if unfitted else []
    ocidiff.diff(*trees, tmp_path / "layer.tar", exclude=patterns, engine=engine_name)
    assert said(caplog) == expected
    list(ocidiff.changes(*trees, exclude=patterns, engine=engine_name))
    assert said(caplog) == expected
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.commit(trees[0], "base", exclude=[], engine=engine_name)
        assert said(caplog) == []
        store.commit(trees[1], "new", base="base", exclude=patterns, engine=engine_name)
    assert said(caplog) == expected


def test_patterns_of_a_file_are_not_told(
    trees: tuple[Path, Path], tmp_path: Path, engine_name: EngineName, caplog: pytest.LogCaptureFixture
) -> None:
    (trees[1] / ".ocidiffignore").write_text("*.pyc\n/nowhere\n")
    ocidiff.diff(*trees, tmp_path / "layer.tar", exclude=["*.tmp"], engine=engine_name)
    assert said(caplog) == []
    ocidiff.diff(*trees, tmp_path / "layer.tar", exclude=["*.tpm"], engine=engine_name)
    assert said(caplog) == ["exclude: no path matches '*.tpm'"]


def test_of_an_overlay_it_is_said_that_only_changes_are_looked_at(
    trees: tuple[Path, Path], tmp_path: Path, engine_name: EngineName, caplog: pytest.LogCaptureFixture
) -> None:
    layers = ocidiff.overlay_layers(trees[1], [trees[0]])
    ocidiff.diff(None, layers, tmp_path / "layer.tar", exclude=["/nowhere", "*.tmp"], engine=engine_name)
    assert said(caplog) == ["exclude: no change matches '/nowhere'; unchanged paths of an overlay are not looked at"]
    ocidiff.diff(None, layers, tmp_path / "layer.tar", exclude=["*.tmp"], engine=engine_name)
    assert said(caplog) == []
