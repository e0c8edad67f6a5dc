"""Checks an installed ocidiff as its users run it: a diff, an apply, two commits and an unpack, whose results are compared.

Prints the digests of layer and images. They must not depend on the engine, so two installations print the same.

    python check_installed.py rust|pure OCIDIFF
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

_EPOCH = 1_700_000_000
# gzip of the two engines differs, the tar does not.
_PLAIN = ("--compression", "none", "--source-date-epoch", str(_EPOCH))


def main(engine: str, command: str) -> None:
    """Run the commands in a new directory, with the engine that the installation chooses by itself."""
    extension = find_spec("ocidiff._core")
    if (extension is None) != (engine == "pure"):
        raise SystemExit(f"ocidiff._core: {extension}, expected the engine {engine}")
    os.environ.pop("OCIDIFF_ENGINE", None)
    with tempfile.TemporaryDirectory(prefix="ocidiff-installed-") as place:
        print(*_digests(command, Path(place)), sep="\n")


def _digests(command: str, place: Path) -> list[str]:
    lower, upper, store = place / "lower", place / "upper", place / "store"
    _make(lower)
    shutil.copytree(lower, upper, symlinks=True)
    _change(upper)

    def ocidiff(*arguments: str | Path) -> str:
        done = subprocess.run([command, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    layer = ocidiff("diff", lower, upper, "-o", place / "layer.tar", *_PLAIN)
    ocidiff("apply", place / "layer.tar", lower)
    _same(upper, lower)
    first = ocidiff("commit", "--store", store, f"{lower}/", "check:first", "--base", "scratch", *_PLAIN)
    (upper / "etc" / "second").write_text("second\n")
    second = ocidiff("commit", "--store", store, f"{upper}/", "check:second", "--base", "check:first", *_PLAIN)
    ocidiff("unpack", "--store", store, "check:second", place / "unpacked")
    _same(upper, place / "unpacked")
    return [layer, first, second]


def _make(tree: Path) -> None:
    for name, content in {"bin/tool": b"tool" * 50_000, "etc/old": b"old\n", "etc/same": b"same\n"}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    (tree / "bin" / "link").symlink_to("tool")
    _rest(tree)


def _change(tree: Path) -> None:
    (tree / "etc" / "old").unlink()
    (tree / "etc" / "new").write_text("new\n")
    (tree / "etc" / "same").write_text("not the same\n")
    _rest(tree)


def _rest(tree: Path) -> None:
    """Give all of a tree one time, so that the digests do not depend on the hour."""
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (_EPOCH, _EPOCH), follow_symlinks=False)


def _same(expected: Path, found: Path) -> None:
    """Compare names, kinds, modes and contents."""

    def listing(tree: Path) -> dict[str, tuple[int, bytes]]:
        paths = {str(path.relative_to(tree)): path for path in tree.rglob("*")}
        return {name: (path.lstat().st_mode, _content(path)) for name, path in paths.items()}

    if listing(expected) != listing(found):
        raise SystemExit(f"{found} differs from {expected}")


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


if __name__ == "__main__":
    main(*sys.argv[1:])
