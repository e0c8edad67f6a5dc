"""Imports point one way; what is special is imported in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import ocidiff

PACKAGE = Path(ocidiff.__file__).parent
# A module may import from its own room and from rooms of lower rank: two rooms of one rank do not know one another.
RANKS = {
    "opening": -1,
    "access": 0,
    "errors": 1,
    "log": 1,
    "values": 1,
    "output": 2,
    "frozen": 1,
    "largest": 1,
    "printable": 1,
    "sizes": 1,
    "walk": 1,
    "oci": 2,
    "workspace": 2,
    "mounts": 3,
    "layer": 4,
    "services": 5,
    "image": 6,
    "segments": 6,
    "containerd": 7,
    "embedded": 7,
    "transport": 8,
    "report": 8,
    "store": 9,
    "bench": 9,
    "cli": 10,
}
# The two that stand above all rooms, and may be imported by the command line only.
FRONT = {"__init__", "__main__"}
# The one file that may import a module, by top-level name.
ONLY_IN = {"ocidiff._core": "layer/rust.py", "grpc": "containerd/", "sqlite3": "embedded/", "click": "cli/", "rich": "cli/"}

FILES = sorted(PACKAGE.rglob("*.py"))
ROOT = Path(__file__).parents[2]
MAX_LINES = 500
SOURCES = sorted(
    str(path.relative_to(ROOT)) for path in (*FILES, *ROOT.glob("rust/ocidiff-*/src/**/*.rs")) if path.is_relative_to(ROOT)
)


def _imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports anywhere, also inside functions and for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(relative: str) -> str:
    return relative.split("/", maxsplit=1)[0].removesuffix(".py")


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_point_one_way(path: Path) -> None:
    room = _room(_name(path))
    if room in FRONT:
        return
    assert room in RANKS, f"{room} has no rank"
    for imported in _imports(path):
        first, _, rest = imported.partition(".")
        if first != "ocidiff":
            continue
        other = rest.split(".")[0]
        if other in RANKS:
            allowed = RANKS[other] < RANKS[room] or other == room
            assert allowed, f"{_name(path)} imports {imported}, which points the wrong way"
        elif other != "_core":
            assert room == "cli", f"{_name(path)} imports {imported}: only the command line uses the public names"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_what_is_special_is_imported_in_one_place(path: Path) -> None:
    for imported in _imports(path):
        for module, home in ONLY_IN.items():
            if imported == module or imported.startswith(module + "."):
                assert _name(path).startswith(home), f"{_name(path)} imports {imported}, which belongs to {home}"


def test_the_nouns_do_no_input_or_output() -> None:
    forbidden = {"io", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile"}
    for path in (PACKAGE / "oci").glob("*.py"):
        # A platform asks the machine what it is.
        allowed = {"os"} if path.name == "platform.py" else set()
        assert (forbidden - allowed).isdisjoint(name.split(".")[0] for name in _imports(path)), path.name


def test_there_is_no_room_for_odds_and_ends() -> None:
    homeless = {"utils", "util", "common", "helpers", "base", "types", "misc"}
    assert homeless.isdisjoint(part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", SOURCES)
def test_no_file_is_too_long_to_be_read_at_once(path: str) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= MAX_LINES


def test_the_page_on_the_architecture_has_the_chain_of_imports() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    chain = next(line for line in page.splitlines() if line.startswith("Python   "))
    steps = [step.split(", ") for step in chain.removeprefix("Python   ").split(" → ")]
    ranks = [{RANKS[room] for room in step} for step in steps]
    assert all(min(above) > max(below) for above, below in pairwise(ranks)), chain
    assert {room for step in steps for room in step} == RANKS.keys()
