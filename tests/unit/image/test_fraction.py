"""Fractions of times are adopted only where nothing else differs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocidiff.errors import Cancelled
from ocidiff.image.fraction import adopt_fractions
from ocidiff.layer.layer import Cancellation, Monitor

SECOND = 10**9
WHOLE, WITH_FRACTION = 1_700_000_000 * SECOND, 1_700_000_000 * SECOND + 5


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("unpacked", "changed"):
        (tmp_path / name / "d").mkdir(parents=True)
    return tmp_path / "unpacked", tmp_path / "changed"


def _write(path: Path, content: str, mtime_ns: int) -> None:
    path.write_text(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def _adopt(trees: tuple[Path, Path]) -> None:
    adopt_fractions(os.fsencode(trees[0]), os.fsencode(trees[1]), Monitor())


@pytest.mark.parametrize(
    ("mine", "mtime_ns", "adopted"),
    [
        ("same text", WHOLE, True),
        ("same tex!", WHOLE, False),
        ("same", WHOLE, False),
        ("same text", WHOLE - SECOND, False),
        ("same text", WHOLE + SECOND, False),
        ("same text", WHOLE + 1, False),
    ],
)
def test_only_a_file_of_same_second_size_and_content_adopts(
    trees: tuple[Path, Path], mine: str, mtime_ns: int, adopted: bool
) -> None:
    _write(trees[0] / "d" / "f", mine, mtime_ns)
    _write(trees[1] / "d" / "f", "same text", WITH_FRACTION)
    _adopt(trees)
    assert (trees[0] / "d" / "f").stat().st_mtime_ns == (WITH_FRACTION if adopted else mtime_ns)
    assert (trees[1] / "d" / "f").stat().st_mtime_ns == WITH_FRACTION


@pytest.mark.parametrize(("target", "adopted"), [("there", True), ("where", False)])
def test_only_a_symlink_of_the_same_target_adopts(trees: tuple[Path, Path], target: str, adopted: bool) -> None:
    for tree, text, mtime_ns in ((trees[0], target, WHOLE), (trees[1], "there", WITH_FRACTION)):
        (tree / "l").symlink_to(text)
        os.utime(tree / "l", ns=(mtime_ns, mtime_ns), follow_symlinks=False)
    _adopt(trees)
    assert (trees[0] / "l").lstat().st_mtime_ns == (WITH_FRACTION if adopted else WHOLE)


def test_a_large_file_is_compared_to_its_end(trees: tuple[Path, Path]) -> None:
    _write(trees[0] / "f", "x" * (3 << 20) + "a", WHOLE)
    _write(trees[1] / "f", "x" * (3 << 20) + "b", WITH_FRACTION)
    _adopt(trees)
    assert (trees[0] / "f").stat().st_mtime_ns == WHOLE


def test_links_out_of_the_unpacked_tree_are_not_followed(trees: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    _write(tmp_path / "outside" / "f", "text", WHOLE)
    (trees[0] / "way").symlink_to(tmp_path / "outside")
    (trees[1] / "way").mkdir()
    _write(trees[1] / "way" / "f", "text", WITH_FRACTION)
    _adopt(trees)
    assert (tmp_path / "outside" / "f").stat().st_mtime_ns == WHOLE


def test_what_is_on_one_side_only_or_of_another_type_is_passed_over(trees: tuple[Path, Path]) -> None:
    _write(trees[0] / "mine", "", WHOLE)
    _write(trees[1] / "theirs", "", WITH_FRACTION)
    _write(trees[0] / "type", "", WHOLE)
    os.mkfifo(trees[1] / "type")
    os.utime(trees[1] / "type", ns=(WITH_FRACTION, WITH_FRACTION))
    _adopt(trees)
    assert {path.stat().st_mtime_ns for path in (trees[0] / "mine", trees[0] / "type")} == {WHOLE}


def test_it_can_be_cancelled(trees: tuple[Path, Path]) -> None:
    cancel = Cancellation()
    cancel.cancel()
    with pytest.raises(Cancelled):
        adopt_fractions(os.fsencode(trees[0]), os.fsencode(trees[1]), Monitor(cancel=cancel))
