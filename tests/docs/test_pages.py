"""The pages: links lead somewhere, commands run as pasted, the reference is current."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RUN = [ROOT / "README.md", ROOT / "docs/tour.md", *sorted((ROOT / "docs/how-to").glob("*.md"))]
LINK = r"\[[^\]]*\]\(([^)\s]+)\)"


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ +(.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(LINK, text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in _anchors(target), f"{link}: no such heading"


def test_the_recipes_name_files_that_exist() -> None:
    named = re.findall(r"`([\w./-]+/[\w.-]+\.(?:rs|pyi?|md))`", (ROOT / "CONTRIBUTING.md").read_text())
    places = (ROOT, ROOT / "python/ocidiff", ROOT / "python")
    # NAME stands for the new one.
    missing = [name for name in named if "NAME" not in name and not any((place / name).exists() for place in places)]
    assert named
    assert not missing


DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
PARTS = ["Context", "Choice", "Set aside", "What would change our mind"]


@pytest.mark.parametrize("page", DECISIONS, ids=_name)
def test_a_decision_has_the_parts_of_the_template(page: Path) -> None:
    text = page.read_text()
    number = page.name[:4]
    title = re.match(rf"# {number}: (.+)\n", text)
    assert title, f"the first line must be '# {number}: TITLE'"
    assert [part for part in re.findall(r"^## (.+)$", text, re.MULTILINE) if part in PARTS] == PARTS
    assert f"| [{number}]({page.name}) | {title[1]} |" in (page.parent / "index.md").read_text()


def test_the_navigation_of_the_site_names_every_page() -> None:
    named = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(named) == sorted(page for page in pages if not re.match(r"decisions/\d", page))


def test_the_start_page_links_every_page() -> None:
    index = ROOT / "docs/index.md"
    linked = {path for path in re.findall(LINK, index.read_text()) if path.endswith(".md")}
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"index.md"}
    assert linked == {page for page in pages if not re.match(r"decisions/\d", page)}


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in RUN if _blocks(page, "sh")], ids=_name)
def test_the_commands_of_a_page_run_as_pasted(page: Path, tmp_path: Path) -> None:
    script = "set -eu\n" + "\n".join(block for block in _blocks(page, "sh") if "make " not in block and "pip " not in block)
    environment = {
        **os.environ,
        "OCIDIFF_STORE": str(tmp_path / "store"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for point in subprocess.run(["findmnt", "-rno", "TARGET"], capture_output=True, text=True, check=False).stdout.split():
        if point.startswith(str(tmp_path)):
            subprocess.run(["umount", point], check=True)


def test_the_batch_of_the_page_gives_the_same_images_again(tmp_path: Path) -> None:
    # Everything was changed a moment ago, so that nothing is skipped.
    first = _blocks(ROOT / "docs/how-to/commit-many.md", "sh")[0]
    batch = first.splitlines()[-1]
    assert batch.startswith("ocidiff batch ")
    environment = {
        **os.environ,
        "OCIDIFF_STORE": str(tmp_path / "store"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def run(script: str) -> dict[str, str]:
        done = subprocess.run(
            ["sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return {line["name"]: line["digest"] for line in map(json.loads, re.findall("^{.*", done.stdout, re.MULTILINE))}

    whole = run(first)
    time.sleep(1.1)
    assert len(whole) == 3
    assert run(batch) == whole


@pytest.mark.parametrize("page", [page for page in RUN if _blocks(page, "python")], ids=_name)
def test_the_python_of_a_page_runs_as_pasted(page: Path, tmp_path: Path) -> None:
    for tree in ("lower", "upper", "top", "bottom", "target", "rootfs"):
        (tmp_path / tree).mkdir()
        (tmp_path / tree / tree).touch()
    # A timer that nobody stops would hold the process up.
    script = "\n".join(_blocks(page, "python")) + "\nimport os\nos._exit(0)\n"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)


def test_the_reference_of_commands_is_current() -> None:
    check = [sys.executable, str(ROOT / "docs/commands.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
