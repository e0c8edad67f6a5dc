"""`ocidiff batch`: what it prints, how it ends, and that the job and the example that call it are understood."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ocidiff
from ocidiff.cli.batch import command
from ocidiff.cli.main import main

ROOT = Path(__file__).parents[3]
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCIDIFF_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name in ("base", "one", "two"):
        Path(name).mkdir()
        Path(name, "file").write_text(name)
    with ocidiff.Store.open("store") as store:
        store.commit("./base", "base:1")
    Path("lines").write_text('{"upper": "one", "name": "app:1"}\n{"upper": "two", "name": "app:2"}\n')


def test_a_line_of_json_for_each_image(capsys: Output) -> None:
    assert main(["batch", "lines", "--base", "base:1"]) == 0
    out, err = capsys.readouterr()
    found = {line["line"]: line for line in map(json.loads, out.splitlines())}
    assert {number: (line["status"], line["name"]) for number, line in found.items()} == {
        1: ("made", "app:1"),
        2: ("made", "app:2"),
    }
    assert found[1]["layers"][0]["changes"] == {"added": 0, "modified": 1, "deleted": 0}
    assert err == "ocidiff: batch: 2 made\n"
    with ocidiff.Store.open("store") as store:
        assert store.resolve("app:1").digest == found[1]["digest"]


def test_a_failure_is_told_on_both_streams_and_by_the_status(capsys: Output) -> None:
    Path("lines").write_text('{"upper": "one", "name": "app:1"}\n{"upper": "none", "name": "app:2"}\nnonsense\n')
    assert main(["batch", "lines", "--base", "base:1", "-q"]) == 1
    out, err = capsys.readouterr()
    found = {line["line"]: line for line in map(json.loads, out.splitlines())}
    assert found[2] == {"line": 2, "status": "failed", "name": "app:2", "error": "none: No such file or directory"}
    assert found[3]["name"] is None
    assert found[3]["error"].startswith("not JSON")
    assert min(err.splitlines()) == "ocidiff: batch: line 2: none: No such file or directory"
    assert len(err.splitlines()) == 2


def test_lines_come_from_stdin_too(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("lines").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert main(["batch", "-", "--base", "base:1", "--shard", "1/2"]) == 0
        assert [json.loads(line)["line"] for line in capsys.readouterr().out.splitlines()] == [2]


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["nowhere"], 1, "batch: nowhere: No such file or directory"),
        (["."], 1, "batch: .: Is a directory"),
        (["lines", "--base", "none:1"], 1, "batch: no image 'none:1' in {store}; run `ocidiff images` to list"),
        (["lines", "--shard", "2/2"], 2, "batch: shard '2/2': the index must be 0 to 1, not 2"),
        (["lines", "--lower", "base"], 2, "batch: lower 'base': needs a base, the image that it is the tree of"),
        (["lines", "--containerd"], 2, "batch: containerd: not supported by this command, which works on the local store"),
    ],
)
def test_what_ends_the_whole_run(words: list[str], status: int, line: str, tmp_path: Path, capsys: Output) -> None:
    assert main(["batch", *words]) == status
    expected = line.format(store=tmp_path / "store").partition("; run")[0]
    assert capsys.readouterr().err.startswith(f"ocidiff: {expected}")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "upper: needs a base; give --base"),
        (["--base", "base:1", "--memory", "1MB"], "memory: "),
    ],
)
def test_what_fails_every_line(words: list[str], error: str, capsys: Output) -> None:
    assert main(["batch", "lines", *words]) == 1
    out, err = capsys.readouterr()
    assert all(line["error"].startswith(error) for line in map(json.loads, out.splitlines()))
    told = err.splitlines()
    assert min(told[:-1]).startswith(f"ocidiff: batch: line 1: {error}")
    assert told[-1] == "ocidiff: batch: 2 failed"


def test_the_arguments_of_the_job_are_understood() -> None:
    text = (ROOT / "deploy/batch-job.yaml").read_text()
    block = re.search(r"^ +args:\n((?: +(?:- |#).*\n)+)", text, re.MULTILINE)
    assert block
    words = [re.sub("[<>]", "", word) for word in re.findall(r"^ +- (.+)$", block[1], re.MULTILINE)]
    assert words.pop(0) == "batch"
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in words]
    context = command.make_context("batch", words)
    assert context.params["shard"] == "/4"
    completions = re.search(r"completions: (\d+)", text)
    assert completions
    assert context.params["shard"] == f"/{completions[1]}"
    most_failed = re.search(r"maxFailedIndexes: (\d+)", text)
    assert most_failed is None or int(most_failed[1]) < int(completions[1])


@pytest.fixture
def ray_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return `main` of the example, with a Ray that runs each task at once."""

    class Task:
        def __init__(self, function: Any) -> None:
            self.function = function

        def remote(self, *arguments: Any) -> Any:
            return self.function(*arguments)

    ray = ModuleType("ray")
    ray.init = lambda: None  # type: ignore[attr-defined]
    ray.remote = lambda **_: Task  # type: ignore[attr-defined]
    ray.wait = lambda left: (left[:1], left[1:])  # type: ignore[attr-defined]
    ray.get = lambda done: done  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    main_of_example: Callable[..., int] = runpy.run_path(str(ROOT / "examples/ray_batch.py"))["main"]
    return main_of_example


def test_the_example_of_ray_fails_if_a_shard_is_killed(
    ray_main: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bin").mkdir()
    Path("bin/ocidiff").write_text("#!/bin/sh\nkill -KILL $$\n")
    Path("bin/ocidiff").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    assert ray_main(1, "lines", "base:1") == 137


def test_the_example_of_ray_runs_its_shards(ray_main: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    assert ray_main(2, "lines", "base:1", "-q") == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert sorted(line["name"] for line in found) == ["app:1", "app:2"]
