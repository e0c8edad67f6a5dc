"""What a command imports before it does anything, since the time of a short command is little else.

Foreign modules are named. Own modules are bounded by the size of their bytecode, so that splitting a file costs nothing.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import subprocess
import sys
from pathlib import Path

import pytest

import ocidiff

PACKAGE = Path(ocidiff.__file__).parent
# Says which modules were imported, whatever the exit status.
SPY = "import sys; from ocidiff.cli.main import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
# Each takes milliseconds, and is needed by few commands or never.
SELDOM_NEEDED = {
    *("asyncio", "ctypes", "difflib", "logging", "pathlib", "random", "subprocess", "tempfile", "urllib"),
    *("rich", "xxhash", "ocidiff.layer.pure"),
}
# Values in the classes of which something can be set, or put in order; one extends another value.
OF_THE_STANDARD_LIBRARY = {"embedded/gc.py", "layer/totals.py", "layer/options.py", "report/tree.py"}


def imported_by(*words: str) -> set[str]:
    """All modules in memory at the end of a command."""
    done = subprocess.run([sys.executable, "-c", SPY, *words], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "ocidiff"}


def compiled_bytes(modules: set[str]) -> int:
    """Size of the bytecode of our modules among these."""
    total = 0
    for name in ours(modules):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            total += len(marshal.dumps(compile(Path(spec.origin).read_bytes(), spec.origin, "exec")))
    return total


def foreign(modules: set[str]) -> set[str]:
    """Names of installed packages, but not of what the environment itself imports into every process."""
    names = {name.partition(".")[0] for name in modules}
    nothing = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return names - sys.stdlib_module_names - {name.partition(".")[0] for name in nothing.stdout.split()} - {"ocidiff"}


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with a working container, and a file in the container's directory."""
    (tmp_path / "tree").mkdir()
    place = str(tmp_path / "store")
    with ocidiff.Store.open(place) as store:
        store.commit(tmp_path / "tree", "base:1")
        store.create("base:1", "work", driver="directory")
        (Path(store.containers.mount("work")) / "file").touch()
    return place


def test_version_imports_nothing() -> None:
    modules = imported_by("--version")
    assert ours(modules) == {"ocidiff", "ocidiff.cli", "ocidiff.cli.main"}
    assert not foreign(modules)
    assert not modules & {"dataclasses", "enum", "re", "signal", "typing"}


def test_help_imports_the_command_and_not_what_it_does() -> None:
    modules = imported_by("commit", "--help")
    assert compiled_bytes(modules) <= 154_000, sorted(ours(modules))
    assert foreign(modules) == {"click"}
    assert not modules & {"sqlite3", "hashlib", "ocidiff._core", "ocidiff.store"}


def test_ps_imports_little(store: str) -> None:
    modules = imported_by("--store", store, "ps")
    assert compiled_bytes(modules) <= 740_000, sorted(ours(modules))
    assert foreign(modules) == {"click"}
    assert not modules & (SELDOM_NEEDED | {"hashlib", "ocidiff._core"})


def test_commit_of_a_container_imports_what_it_needs(store: str) -> None:
    modules = imported_by("--store", store, "commit", "work", "new:1")
    assert compiled_bytes(modules) <= 1_105_000, sorted(ours(modules))
    assert foreign(modules) == {"click"}
    assert not modules & SELDOM_NEEDED


def test_diff_imports_no_store(tmp_path: Path) -> None:
    modules = imported_by("diff", "scratch", str(tmp_path), "--output", str(tmp_path / "layer"))
    assert compiled_bytes(modules) <= 355_000, sorted(ours(modules))
    assert foreign(modules) == {"click"}
    assert not modules & (SELDOM_NEEDED | {"hashlib", "sqlite3", "ocidiff.embedded", "ocidiff.image", "ocidiff.services"})


def test_dataclasses_that_are_slow_to_define_are_off_the_way() -> None:
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "dataclasses":
                users |= {str(path.relative_to(PACKAGE)) for alias in node.names if alias.name == "dataclass"}
    users = {name for name in users if not name.startswith("layer/pure/")}
    assert users == OF_THE_STANDARD_LIBRARY | {"values.py"}
