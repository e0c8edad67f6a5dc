"""What people and programs are shown of numbers, names and progress."""

from __future__ import annotations

import json

import pytest

from ocidiff.cli import progress
from ocidiff.cli.render import columns
from ocidiff.cli.settings import Settings
from ocidiff.layer.monitor import BlobProgress, BlobState, Monitor, Progress
from ocidiff.printable import printable
from ocidiff.sizes import counted

Output = pytest.CaptureFixture[str]


def test_columns_are_as_wide_as_their_widest_cell_and_end_without_blanks() -> None:
    assert columns(("A", "B"), [("long", "x"), ("y", "a\nb")]) == ["A     B", "long  x", "y     a\\nb"]


def test_backslashes_are_kept_as_docker_diff_keeps_them() -> None:
    assert printable("system-\\x2d.slice") == "system-\\x2d.slice"


def run(settings: Settings, *steps: Progress) -> None:
    with progress.shown(settings, "diff") as show:
        for step in steps:
            assert show is not None
            show(step)


def test_json_progress_ends_with_the_last_state(capsys: Output) -> None:
    run(Settings(progress="json"), Progress(1, 10, 5), Progress(2, 20, 9))
    *_, last = map(json.loads, capsys.readouterr().err.splitlines())
    assert last.pop("seconds") >= 0
    assert last == {
        "command": "diff",
        "entries": 2,
        "bytesPlain": 20,
        "bytesBlob": 9,
        "phase": "diff",
        "totalBytes": None,
        "item": None,
    }


def test_plain_progress_writes_a_line_when_it_is_time(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 2.5, 2.5, 3.0, 3.5])
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    run(Settings(progress="plain"), Progress(1, 1000, 5), Progress(2000, 2000, 9), Progress(3000, 3000, 10))
    assert capsys.readouterr().err.splitlines() == [
        "diff: 2,000 entries, 9 B, 2.0 kB uncompressed, 2.5 s",
        "diff: 3,000 entries, 10 B, 3.0 kB uncompressed, 3.5 s",
    ]


def test_plain_progress_tells_the_phase_and_how_much_of_it_is_done(capsys: Output) -> None:
    with progress.shown(Settings(progress="plain"), "commit") as show:
        assert show is not None
        show(Progress(1, 2000, 500, "unpack", 2000))
    assert capsys.readouterr().err == "commit: unpack: 25 %, 1 entry, 500 B, 2.0 kB uncompressed, 0.0 s\n"


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("plain", "bench: diff: tar + gzip: 3 of 36 runs, "),
        ("json", '"runs": 3, "totalRuns": 36}'),
    ],
)
def test_progress_counts_the_runs_of_a_benchmark(mode: str, told: str, capsys: Output) -> None:
    with progress.shown(Settings(progress=mode), "bench") as show:
        assert show is not None
        show(Progress(0, 0, 0, "diff: tar + gzip", runs=(3, 36)))
    assert told in capsys.readouterr().err


def test_a_monitor_adds_up_the_items_of_a_phase() -> None:
    seen: list[Progress] = []
    monitor = Monitor(seen.append).of("unpack", 100)
    monitor.poll(1, 10, 5)
    monitor.working_on("second", 2, 20, 9).poll(1, 10, 5)
    assert seen == [Progress(1, 10, 5, "unpack", 100), Progress(3, 30, 14, "unpack", 100, "second")]


@pytest.mark.parametrize("settings", [Settings(quiet=True, progress="json"), Settings(progress="none"), Settings()])
def test_progress_is_silent_when_quiet_off_or_without_a_terminal(settings: Settings, capsys: Output) -> None:
    with progress.shown(settings, "diff") as show:
        assert show is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("option", "environment", "path"),
    [
        ("given", {"OCIDIFF_STORE": "e", "XDG_DATA_HOME": "/x"}, "given"),
        (None, {"OCIDIFF_STORE": "e", "XDG_DATA_HOME": "/x"}, "e"),
        (None, {"XDG_DATA_HOME": "/x"}, "/x/ocidiff"),
        (None, {"XDG_DATA_HOME": "relative"}, "/home/me/.local/share/ocidiff"),
        (None, {}, "/home/me/.local/share/ocidiff"),
    ],
)
def test_the_store_is_the_one_given_or_of_the_environment(
    option: str | None, environment: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OCIDIFF_STORE", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    assert Settings(store=option).store_path() == path


def test_one_of_a_thing_has_no_plural() -> None:
    assert [counted(count, "layer") for count in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
    assert [counted(count, "entry", "entries") for count in (1, 2000)] == ["1 entry", "2,000 entries"]


@pytest.mark.parametrize(
    ("shown", "seconds", "text"),
    [
        (Progress(20_000, 10**9, 999_900_000, "diff"), 2.0, "20,000 entries, 999.9 MB"),
        (Progress(1, 0, 999_900_000, "unpack", 10**12), 1.0, "0 %, 999.9 MB/s, 999 s left"),
        (Progress(1, 0, 500, "unpack", 500), 1.0, "100 %, 500 B/s"),
        (Progress(0, 0, 0, "diff", runs=(3, 36)), 1.0, "3 of 36 runs"),
        # Of a moment no rate is told: it was 1.7 TB/s once.
        (Progress(1, 0, 10**9, "unpack", 10**12), 0.001, "0 %"),
    ],
)
def test_a_narrow_terminal_gets_what_fits(shown: Progress, seconds: float, text: str) -> None:
    assert progress._short(shown, seconds) == text
    assert len(f"unpack {text}") <= 40


def test_a_narrow_bar_is_not_cut(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with progress.shown(Settings(progress="tty"), "commit") as show:
        assert show is not None
        show(Progress(20_000, 10**9, 999_900_000, "diff"))
    assert "diff 20,000 entries, 999.9 MB" in capsys.readouterr().err


def test_rows_of_blobs_leave_room_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    times = iter([0.0, 0.0, *[2.0] * 20])
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    blob = BlobProgress("sha256:" + "a" * 64, 10**9, 187_000_000, state=BlobState.COPYING)
    with progress.shown(Settings(progress="tty"), "pull") as show:
        assert show is not None
        show(Progress(0, 0, 10, "copy", 10**9, blobs=(blob,)))
        show(Progress(0, 0, 374_000_000, "copy", 10**9, blobs=(blob,)))
    shown = capsys.readouterr().err
    assert "37 %, 187.0 MB/s, 3 s left" in shown
    assert "aaaaaa 187.0 MB of 1.0 GB" in shown


def test_the_clock_goes_on_in_a_phase_without_a_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    from rich.progress import Progress as Bar

    bars: list[Bar] = []
    begin = Bar.start

    def start(bar: Bar) -> None:
        bars.append(bar)
        begin(bar)

    monkeypatch.setattr(Bar, "start", start)
    with progress.shown(Settings(progress="tty"), "commit") as show:
        assert show is not None
        show(Progress(1, 10, 10, "unpack", 10))
        assert bars[0].tasks[0].finished
        show(Progress(1, 10, 10, "diff"))
        assert not bars[0].tasks[0].finished
