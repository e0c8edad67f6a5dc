"""One version, wherever it is written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import ocidiff

ROOT = Path(__file__).parents[2]


def test_the_changelog_has_a_section_for_the_version_being_built() -> None:
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(section for section in sections if section != "Unreleased") == version


def test_the_package_has_the_version_of_the_workspace() -> None:
    assert ocidiff.__version__ == tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def test_the_wheel_takes_its_version_from_the_workspace() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    binding = tomllib.loads((ROOT / "rust/ocidiff-py/Cargo.toml").read_text())["package"]
    assert binding["version"] == {"workspace": True}
