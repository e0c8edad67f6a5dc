"""What a new user meets first: make says all that is missing at once, and an index shows a page without dead links."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

from support import probes

ROOT = Path(__file__).parents[2]
SMALL_TOOLS = ("sh", "sort", "sed", "cut", "awk", "env", "printf", "find", "cat")


def test_make_names_all_missing_tools_at_once(tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        probes.missing("needs make")
    for tool in SMALL_TOOLS:
        found = shutil.which(tool)
        if found:
            (tmp_path / tool).symlink_to(found)
    done = subprocess.run(
        [str(make), "--dry-run", f"VENV={tmp_path / 'venv'}", "dev"],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    wanted = re.search(r'^rust-version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert wanted is not None
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "missing: a C compiler (Debian: gcc libc6-dev)",
        f"missing: Rust {wanted[1]} or newer (rustup, or Debian 13: cargo-web rustc-web)",
        "missing: Python 3.11 or newer with venv (Debian: python3 python3-venv)",
    ]
    assert "install what is missing, then run make again" in done.stderr


def test_the_page_of_the_wheel_links_to_nothing_that_an_index_lacks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / project["readme"]).read_text()
    links = re.findall(r"\]\(([^)]*)\)|<(?:img|a)[^>]*(?:src|href)=\"([^\"]*)", page)
    assert not [link for pair in links for link in pair if link and not link.startswith("https://")]
    assert project["authors"] == [{"name": "The ocidiff authors"}]
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in page
