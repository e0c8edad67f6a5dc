"""The parts of a benchmark: trees made again are the same, ticks are round, names of others stay text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ocidiff
from ocidiff.bench.measure import Usage, launch
from ocidiff.bench.ours import Variant
from ocidiff.bench.page import page_of
from ocidiff.bench.plot import linear_ticks, log_ticks
from ocidiff.bench.result import Failure, Result, Row, Workload
from ocidiff.bench.run import variants_of
from ocidiff.bench.table import lines
from ocidiff.bench.trees import change_tree, make_tree, measure_tree
from ocidiff.errors import OcidiffError
from support.pages import ATTRIBUTES, PLOT_ATTRIBUTES, Page

MACHINE: dict[str, str | float] = {
    "processor": "<b>fast</b>",
    "cores": 2,
    "shaInstructions": "yes",
    "memoryBytes": 1 << 30,
    "kernel": "Linux 6",
    "fileSystem": "ext4",
    "load": 0.1,
    "python": "3.11",
}


def diff_id(tree: Path) -> str:
    return ocidiff.diff(None, tree, os.devnull, compression="none").diff_id


def test_the_same_seed_makes_the_same_tree_and_the_same_changes(tmp_path: Path) -> None:
    found = []
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        tree = tmp_path / name
        tree.mkdir()
        make_tree(str(tree), 60, 300_000, seed)
        names, size = measure_tree(str(tree))
        assert 60 < names < 200
        assert 299_000 < size <= 300_000
        found.append(diff_id(tree))
        assert change_tree(str(tree), 0.2, seed) == 12
        found.append(diff_id(tree))
    assert found[:2] == found[2:4]
    assert len(set(found)) == 4


def test_a_change_leaves_other_names_of_a_file_alone(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "tree").mkdir()
    os.link(tmp_path / "outside", tmp_path / "tree/file")
    assert change_tree(str(tmp_path / "tree"), 1.0, 1) == 1
    assert (tmp_path / "outside").read_text() == "kept"
    assert (tmp_path / "tree/file").read_bytes() != b"kept"
    assert change_tree(str(tmp_path / "tree"), 0.0001, 1) == 1


def test_a_command_is_told_with_what_it_took(tmp_path: Path) -> None:
    usage, text = launch(["sh", "-c", "echo one; echo two; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"])
    assert text == "one\ntwo\n"
    assert usage.processor_seconds
    assert usage.processor_seconds > 0
    assert usage.peak_bytes
    with pytest.raises(OcidiffError, match=r"^the cause$"):
        launch(["sh", "-c", "echo before >&2; echo the cause >&2; exit 4"])
    with pytest.raises(OcidiffError, match=r"^ended with status 137$"):
        launch(["sh", "-c", "kill -9 $$"])


def test_a_command_whose_output_is_discarded_writes_to_the_null_device() -> None:
    script = '[ "$(readlink /proc/$$/fd/1)" = /dev/null ] || exit 4; head -c 100000 /dev/zero'
    usage, text = launch(["sh", "-c", script], discards_output=True)
    assert text == ""
    assert usage.seconds > 0
    with pytest.raises(OcidiffError, match=r"^ended with status 4$"):
        launch(["sh", "-c", script])


def test_the_default_comes_first_and_nothing_twice() -> None:
    assert variants_of((), ()) == (Variant(),)
    assert variants_of(("gzip",), ()) == (Variant(),)
    found = variants_of(("zstd",), (2,))
    assert [one.label for one in found] == [
        "ocidiff gzip",
        "ocidiff zstd",
        "ocidiff gzip, 2 threads",
        "ocidiff zstd, 2 threads",
    ]


@pytest.mark.parametrize("most", [0.0, 0.0031, 0.1, 0.3, 1.0, 3.7, 10.0, 999.0, 12345.6])
def test_linear_ticks_are_round_and_cover_everything(most: float) -> None:
    ticks = linear_ticks(most)
    assert ticks[0] == 0
    assert ticks[-1] >= most
    assert len(ticks) < 2 or ticks[-2] < (most or 1)
    assert 2 <= len(ticks) <= 6


@pytest.mark.parametrize(("least", "most"), [(1.0, 2.0), (0.3, 4.0), (0.02, 117.0), (1.0, 1.0e4), (1.0, 10.0)])
def test_logarithmic_ticks_cover_everything(least: float, most: float) -> None:
    ticks = log_ticks(least, most)
    assert ticks[0] <= least
    assert ticks[-1] >= most
    assert 1.0 in ticks
    assert 2 <= len(ticks) <= 10


def test_names_of_others_stay_text() -> None:
    unknown = Usage(2.0, None, None)
    rows = (
        Row("ocidiff gzip", (Usage(1.0, 0.5, 1 << 20), Usage(3.0, 1.5, 2 << 20), Usage(1.5, 1.0, 1 << 20)), 1000),
        Row("<script>\n\033[1m", (unknown,), 500),
    )
    workload = Workload("diff", "a <title>", rows)
    failure = Failure("evil", "<img src=x>\n", "a <title>")
    made = Result(MACHINE, {"ocidiff": "1"}, {"tree": "/<i>", "names": 1, "bytes": 10}, 3, (workload,), (failure,), 1.0)
    page = Page(page_of(made), ATTRIBUTES | PLOT_ATTRIBUTES)
    assert set(page.tags).isdisjoint({"script", "img", "i"})
    figures = page.table("Work", "Tool", "Median, s", "Least, s", "Most, s", "Ratio", "Processor, s", "Peak", "Layer")
    assert figures == [
        ["diff", "ocidiff gzip", "1.500", "1.000", "3.000", "1.00x", "1.000", "2.1 MB", "1.0 kB"],
        ["diff", "<script>\\n\\x1b[1m", "2.000", "2.000", "2.000", "1.33x", "-", "-", "500 B"],
    ]
    text = "\n".join(lines(made))
    assert "\033" not in text
    assert "not measured: evil: a <title>: <img src=x>\\n" in text
    assert made.to_dict()["failures"] == [{"tool": "evil", "workload": "a <title>", "reason": "<img src=x>\n"}]
