"""`ocidiff bench`: its table, its JSON and its page, other tools that fail, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.bench import ours as own
from ocidiff.bench import run, scene
from ocidiff.bench.workload import TITLES, Kind
from ocidiff.cli.main import main
from support import probes
from support.pages import ATTRIBUTES, PLOT_ATTRIBUTES, Page

Output = pytest.CaptureFixture[str]
TINY = ["--size", "200kB", "--files", "16", "--rounds", "1"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory to work in, which must be empty afterwards."""
    directory = tmp_path / "place"
    directory.mkdir()
    yield directory
    assert os.listdir(directory) == []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a program out of lines of a shell; no other tool that is measured is on the path, but GNU tar and gzip."""
    directory = tmp_path / "programs"
    directory.mkdir()
    for name in ("sh", "tar", "gzip", "sleep", "env"):
        (directory / name).symlink_to(shutil.which(name) or probes.missing(f"needs {name}"))

    def program(name: str, lines: str) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).write_text(f"#!/bin/sh\n{lines}\n")
        (directory / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(directory))
    return program


def test_the_figures_are_told_three_times(place: Path, tmp_path: Path, capsys: Output) -> None:
    report = tmp_path / "bench.html"
    words = ["bench", *TINY, "--rounds", "2", "--directory", str(place), "--compression", "none"]
    assert main([*words, "--report", str(report), "--peers", "tar", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err == ""
    assert [one["name"] for one in told["workloads"]] == [str(kind) for kind in Kind]
    assert told["failures"] == []
    rows = {one["name"]: {row["tool"]: row for row in one["rows"]} for one in told["workloads"]}
    ours = {"ocidiff gzip", "ocidiff none"}
    assert {"tar + gzip"} <= rows["diff"].keys() - ours
    assert rows["unpack"].keys() == ours
    for name in ("diff-same", "diff-small", "diff-large", "commit", "commit-change", "commit-again"):
        assert rows[name].keys() == ours, name
        assert all(len(row["seconds"]) == len(row["processorSeconds"]) == 2 for row in rows[name].values())
        assert all(row["peakBytes"] > 1 << 20 for row in rows[name].values())
    assert rows["diff"]["ocidiff none"]["layerSize"] > rows["diff"]["ocidiff gzip"]["layerSize"]
    assert rows["diff-same"]["ocidiff none"]["layerSize"] == 1024
    assert all(one["rows"][0]["ratio"] == 1 for one in told["workloads"])
    assert told["input"]["names"] > 16
    page = Page(report.read_bytes(), ATTRIBUTES | PLOT_ATTRIBUTES)
    figures = page.table("Work", "Tool", "Median, s", "Least, s", "Most, s", "Ratio", "Processor, s", "Peak", "Layer")
    assert [row[:2] for row in figures] == [[name, tool] for name, tools in rows.items() for tool in tools]
    assert set(page.tags).isdisjoint({"script", "img", "link", "iframe"})
    # One for the ratios, one for each workload, two for the sizes, one for the memory.
    assert page.tags.count("svg") == 1 + len(Kind) + 2 + 1
    assert {link.removeprefix("#") for link in page.links} <= page.ids


def test_the_table_fits_eighty_columns(place: Path, capsys: Output) -> None:
    assert main(["bench", *TINY, "--directory", str(place), "--peers", "none", "--threads", "1", "-q"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line in TITLES.values()] == list(TITLES.values())
    assert sum(line.startswith("  ocidiff gzip ") for line in lines) == len(Kind)
    # Applying has no such option.
    assert sum(line.startswith("  ocidiff gzip, 1 thread ") for line in lines) == len(Kind) - 2
    assert lines[0].startswith("processor ")


def test_a_tree_is_read_only(place: Path, tmp_path: Path, capsys: Output) -> None:
    tree = tmp_path / "tree"
    (tree / "closed").mkdir(parents=True)
    for number in range(9):
        (tree / f"file{number}").write_bytes(os.urandom(2000 + number))
    (tree / "closed/file").write_text("a secret")
    (tree / "link").symlink_to("file1")
    os.link(tree / "file1", tree / "hard")
    os.mkfifo(tree / "pipe")
    (tree / ".ocidiffignore").write_text("file2\n")
    (tree / "closed").chmod(0o500)

    def state() -> list[tuple[str, int, int, int]]:
        paths = sorted([tree, *tree.rglob("*")])
        return [(str(path), info.st_ino, info.st_mtime_ns, info.st_ctime_ns) for path in paths for info in [path.lstat()]]

    before = state()
    assert main(["bench", str(tree), "--rounds", "1", "--directory", str(place), "--peers", "tar", "--json"]) == 0
    assert state() == before
    told = json.loads(capsys.readouterr().out)
    assert told["failures"] == []
    assert told["input"] == {"tree": str(tree), "names": len(before) - 1, "bytes": told["input"]["bytes"]}


def test_a_peer_that_fails_is_named_and_the_rest_goes_on(
    place: Path, programs: Callable[[str, str], None], capsys: Output
) -> None:
    programs(
        "umoci",
        '[ "$1" = --version ] && echo umoci version 9 && exit\necho "first" >&2\necho "boom: \033[1mbroken" >&2\nexit 3',
    )
    # A tar that extracts nothing.
    tar = os.readlink(f"{os.environ['PATH']}/tar")
    programs("tar", f'case "$*" in *-xpf*) exit 0;; esac\nexec {tar} "$@"')
    assert main(["bench", *TINY, "--directory", str(place), "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    failures = {(one["tool"], one["workload"]): one["reason"] for one in told["failures"]}
    assert failures.pop(("buildah", None)) == "buildah is not on the path"
    assert failures.pop(("umoci", TITLES[Kind.COMMIT])) == "boom: \\x1b[1mbroken"
    assert "results disagree: tar + gzip made sha256:" in failures.pop(("tar + gzip", TITLES[Kind.APPLY]))
    assert failures == {}
    # Also of those that failed later.
    assert told["versions"].keys() == {"ocidiff", "tar", "umoci"}
    lines = err.splitlines()
    # A tool that is not there is no news.
    assert [line.split(": ")[:3] for line in lines] == [
        ["ocidiff", "warning", "bench"],
        ["ocidiff", "warning", "bench"],
    ]
    tools = {one["name"]: [row["tool"] for row in one["rows"]] for one in told["workloads"]}
    assert tools["diff"] == ["ocidiff gzip", "tar + gzip"]
    assert {name for name, rows in tools.items() if rows == ["ocidiff gzip"]} == {*map(str, Kind)} - {"diff"}
    # What is asked for by name, and is not there, is told.
    assert main(["bench", *TINY, "--directory", str(place), "--peers", "umoci,buildah"]) == 0
    out, err = capsys.readouterr()
    assert "bench: buildah: buildah is not on the path" in err
    assert "not measured: umoci: commit: the whole tree as an image: boom: \\x1b[1mbroken" in out


@pytest.mark.interop
@pytest.mark.root
def test_peers_do_the_same_work_and_leave_nothing(place: Path, capsys: Output) -> None:
    for name in ("umoci", "buildah"):
        if shutil.which(name) is None:
            probes.missing(f"needs {name}")
    assert main(["bench", *TINY, "--directory", str(place), "--rounds", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failures"] == []
    tools = {one["name"]: {row["tool"]: row["layerSize"] for row in one["rows"]} for one in told["workloads"]}
    assert tools["unpack"].keys() == {"ocidiff gzip", "umoci"}
    for name in ("commit", "commit-change", "commit-again"):
        sizes = tools[name]
        assert sizes.keys() == {"ocidiff gzip", "umoci", "buildah (plain)"}
        assert sizes["buildah (plain)"] > sizes["umoci"] > 0
    assert tools["commit"]["umoci"] > tools["commit-change"]["umoci"]


def test_a_user_without_root_measures_all_but_buildah(place: Path) -> None:
    # In a user namespace, where this process is not root, but may read what it may read outside.
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if subprocess.run([*user, "true"], check=False, capture_output=True).returncode != 0:
        probes.missing("needs user namespaces")
    words = [*user, sys.executable, "-m", "ocidiff", "bench", *TINY, "--directory", str(place), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reasons = {one["tool"]: one["reason"] for one in json.loads(done.stdout)["failures"]}
    assert reasons.pop("buildah") in {"buildah needs root to mount its containers", "buildah is not on the path"}
    assert all(reason.endswith("is not on the path") for reason in reasons.values())


def test_results_that_disagree_are_an_error(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def lying(lower: Any, upper: Any, *arguments: Any, **options: Any) -> ocidiff.Layer:
        # The pure engine leaves a file out of one diff.
        if options.get("engine") == "pure" and lower is not None:
            (Path(upper) / "unexpected").write_text("")
        try:
            return ocidiff.diff(lower, upper, *arguments, **options)
        finally:
            (Path(upper) / "unexpected").unlink(missing_ok=True)

    monkeypatch.setattr(scene, "diff", lying)
    assert main(["bench", *TINY, "--directory", str(place), "--peers", "none"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ocidiff: bench: diff-same: results disagree: one thread made sha256:")
    assert err.count("\n") == 1


def test_a_command_of_ours_that_fails_ends_it(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    line = (sys.executable, "-m", "ocidiff")
    monkeypatch.setattr(own, "_command", lambda *words: (*line, *words[: words == ("--version",)], "no"))
    assert main(["bench", *TINY, "--directory", str(place), "--peers", "none"]) == 1
    assert capsys.readouterr().err == "ocidiff: bench: no such command 'no'; `ocidiff --help` lists them\n"


def living(group: int) -> list[str]:
    """The processes of a group that have not ended, though nobody may have asked for their status."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stats.append(path.read_text())
    fields = [(stat, stat.rpartition(")")[2].split()) for stat in stats]
    return [stat for stat, (state, _, its_group, *_) in fields if int(its_group) == group and state not in {"Z", "X"}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_that_runs_and_leaves_nothing(
    number: signal.Signals, place: Path, tmp_path: Path, programs: Callable[[str, str], None]
) -> None:
    note = tmp_path / "note"
    programs("umoci", f'[ "$1" = --version ] && exit\necho $$ > {note}.new\nmv {note}.new {note}\nsleep 1000 & wait')
    programs("mv", f'exec {shutil.which("mv", path="/usr/bin:/bin")} "$@"')
    line = [sys.executable, "-m", "ocidiff", "bench", *TINY, "--directory", str(place), "--peers", "umoci"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not note.exists():
            assert process.poll() is None
            time.sleep(0.02)
        group = os.getpgid(int(note.read_text()))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number is signal.SIGINT else 143)
    assert out == ""
    lines = [one for one in err.splitlines() if "stopping" not in one]
    assert lines == (["ocidiff: interrupted"] if number is signal.SIGINT else [])
    assert living(group) == []


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_else(
    place: Path, tmp_path: Path, programs: Callable[[str, str], None], capsys: Output
) -> None:
    note = tmp_path / "note"
    programs("umoci", f'[ "$1" = --version ] && exit\necho $$ > {note}.new\nmv {note}.new {note}\nexec sleep 1000')
    programs("mv", f'exec {shutil.which("mv", path="/usr/bin:/bin")} "$@"')
    line = [sys.executable, "-m", "ocidiff", "bench", *TINY, "--directory", str(place), "--peers", "umoci"]
    names = ["", "of-another", "12345678.tar", "baseline", "2026_q4_"]
    foreign = [place / f"ocidiff-bench-{name}" for name in names]
    for one in foreign:
        one.mkdir()
        (one / "report.html").write_text("precious")
    link = place / "ocidiff-bench-abcdefgh"
    link.symlink_to(foreign[0])
    left = list[Path]()
    told = tmp_path / "told"
    for ends in (True, False):
        note.unlink(missing_ok=True)
        with told.open("w") as err, subprocess.Popen(line, stderr=err, stdout=subprocess.DEVNULL) as process:
            while not note.exists():
                assert process.poll() is None
                time.sleep(0.02)
            left += set(place.iterdir()) - {*foreign, link, *left}
            if ends:
                process.kill()
                process.wait()
                assert left[0].is_dir()
                os.kill(int(note.read_text()), signal.SIGKILL)
                continue
            # A third run leaves this one alone.
            status = main(["bench", *TINY, "--directory", str(place), "--peers", "none"])
            there = set(place.iterdir())
            process.send_signal(signal.SIGTERM)
    capsys.readouterr()
    assert f"ocidiff: warning: {left[0]}: a killed run left it; it is removed\n" in told.read_text()
    assert status == 0
    assert len(left) == 2
    assert there == {left[1], link, *foreign}
    assert set(place.iterdir()) == {link, *foreign}
    link.unlink()
    for one in foreign:
        assert (one / "report.html").read_text() == "precious"
        shutil.rmtree(one)


def test_a_tree_that_holds_the_place_is_refused(place: Path, capsys: Output) -> None:
    assert main(["bench", str(place.parent), "--directory", str(place)]) == 2
    assert capsys.readouterr().err == (
        f"ocidiff: bench: tree {str(place.parent)!r}: holds {place}; --directory must name a place outside of it\n"
    )


def test_too_little_room_is_told_before_anything_is_written(place: Path, capsys: Output) -> None:
    assert main(["bench", "--size", "900TB", "--directory", str(place), "--peers", "none"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"ocidiff: bench: {place}/ocidiff-bench-")
    assert "about 5400.0 TB are needed" in err
    assert err.endswith("; --directory names another place, --size and --files make the tree smaller\n")


@pytest.mark.root
def test_a_full_disk_is_one_line_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk], check=True)
    try:
        monkeypatch.setattr(run, "check_room", lambda *_: None)
        assert main(["bench", *TINY, "--directory", str(disk), "--peers", "none"]) == 1
        err = capsys.readouterr().err
        assert "No space left on device" in err
        assert err.count("\n") == 1
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peers", "docker"], "peer 'docker': must be auto, none or some of tar, buildah, umoci"),
        (["--report", "-"], "must be a file"),
        (["--rounds", "0"], "0 is not in the range"),
        (["--directory", "/nowhere"], "/nowhere"),
        (["/nowhere"], "/nowhere: No such file or directory"),
    ],
)
def test_wrong_words_are_told_in_a_line(words: list[str], message: str, capsys: Output) -> None:
    assert main(["bench", *words]) in {1, 2}
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("names", [[], ["usr", "usr/lib"]])
def test_a_tree_without_files_is_refused(names: list[str], place: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "tree").mkdir()
    for name in names:
        (tmp_path / "tree" / name).mkdir()
    assert main(["bench", str(tmp_path / "tree"), "--rounds", "1", "--peers", "none", "--directory", str(place)]) == 2
    assert capsys.readouterr().err == f"ocidiff: bench: tree '{tmp_path}/tree': holds no files to change\n"


REMOVING = """
import os, signal, sys, time
from ocidiff import workspace
from ocidiff.bench import run
remove, signals = workspace.remove, list(map(int, sys.argv[2].split(",")))
def interrupted(*arguments):
    for number in signals:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    remove(*arguments)
def scene(root):
    workspace.remove = interrupted
    open(root + "/file", "w").close()
    if sys.argv[3] == "at work":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    raise OSError(5, "no scene", "here")
run.Scene = scene
sys.argv = ["ocidiff", "bench", "--size", "9kB", "--files", "8", "--peers", "none", "--directory", sys.argv[1]]
from ocidiff.cli.main import run
run()
"""


def removing(place: Path, signals: list[signal.Signals], moment: str) -> subprocess.CompletedProcess[str]:
    words = [str(place), ",".join(str(int(number)) for number in signals), moment]
    program = ["env", "--default-signal=INT,TERM,HUP", sys.executable, "-c", REMOVING, *words]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(signal.SIGINT, 130, ["ocidiff: interrupted"]), (signal.SIGTERM, 143, []), (signal.SIGHUP, 129, [])],
)
@pytest.mark.parametrize("moment", ["at the end", "at work"])
def test_a_signal_waits_for_the_removal(
    moment: str, number: signal.Signals, status: int, told: list[str], place: Path
) -> None:
    done = removing(place, [number], moment)
    assert done.returncode == status
    assert [line for line in done.stderr.splitlines() if "stopping" not in line] == told


def test_a_second_signal_ends_the_removal_and_names_the_directory(tmp_path: Path) -> None:
    done = removing(tmp_path, [signal.SIGINT, signal.SIGINT], "at the end")
    (left,) = tmp_path.iterdir()
    assert done.returncode == 130
    lines = [line for line in done.stderr.splitlines() if "stopping" not in line]
    assert lines == [
        f"ocidiff: warning: {left}: is left behind, since the removal was interrupted",
        "ocidiff: interrupted",
    ]
