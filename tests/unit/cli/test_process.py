"""The command as a process: interrupts, pipes, terminals and full disks."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ocidiff

OCIDIFF = [sys.executable, "-m", "ocidiff"]


@pytest.fixture
def endless_tree(tmp_path: Path) -> Path:
    """A tree that takes no space, but any engine many seconds."""
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.truncate(100 << 30)
    return tree


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("engine", ["rust", "pure"])
def test_a_signal_ends_a_diff_at_once_and_leaves_nothing(
    engine: str, number: signal.Signals, status: int, endless_tree: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    layer = output / "layer"
    words = ["diff", "scratch", str(endless_tree), "-o", str(layer), "--progress", "json", "--engine", engine]
    options = ["--compression", "gzip", "--level", "9"]
    with subprocess.Popen(
        # A signal that the caller of the tests ignores, as nohup does, would stay ignored.
        ["env", f"--default-signal={number.name.removeprefix('SIG')}", *OCIDIFF, *words, *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        # The first line of progress says that the engine is at work.
        assert '"command": "diff"' in process.stderr.readline()
        process.send_signal(number)
        sent = time.monotonic()
        assert process.wait(timeout=20) == status
        # A tenth of a second is for the engine; the rest is for the interpreter's end on a busy machine.
        assert time.monotonic() - sent < 2
        # A busy machine may be slow enough for the word that it is stopping.
        rest = [line for line in process.stderr if '"command"' not in line and "stopping" not in line]
        assert rest == (["ocidiff: interrupted\n"] if number == signal.SIGINT else [])
        assert process.stdout.read() == ""
    assert os.listdir(output) == []


@pytest.mark.parametrize(
    ("number", "last", "status"), [(signal.SIGINT, ["ocidiff: interrupted"], 130), (signal.SIGTERM, [], 143)]
)
@pytest.mark.parametrize(("seconds", "told"), [(0.0, []), (1.0, ["ocidiff: stopping and cleaning up"])])
def test_a_process_that_takes_long_to_clean_up_says_so_at_once(
    seconds: float, told: list[str], number: signal.Signals, last: list[str], status: int
) -> None:
    code = f"""
import os, signal, sys, time
from ocidiff.cli import group, main
def invoke(*_):
    try:
        os.kill(os.getpid(), {int(number)})
        time.sleep(5)
    finally:
        time.sleep({seconds})
        print("cleaned up", file=sys.stderr, flush=True)
group.group.invoke = invoke
sys.argv = ["ocidiff", "images"]
main.run()
"""
    words = ["env", f"--default-signal={number.name.removeprefix('SIG')}", sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines() == [*told, "cleaned up", *last]
    assert done.returncode == status


def test_a_reader_that_leaves_ends_a_listing_quietly(tmp_path: Path) -> None:
    for number in range(5000):
        (tmp_path / f"a-name-of-some-length-{number}").touch()
    with subprocess.Popen(
        [*OCIDIFF, "changes", "scratch", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"A /a-name")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize("words", [["changes"], ["diff", "-o", "-"]])
def test_a_full_disk_behind_stdout_is_a_failure(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*OCIDIFF, *words, "scratch", str(tmp_path)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == f"ocidiff: {words[0]}: stdout: No space left on device\n"


@pytest.mark.parametrize("option", ["--iidfile", "--metadata-file", "--index"])
def test_a_full_disk_behind_an_option_is_told_by_its_name(option: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    store = ["--store", str(tmp_path / "store")]
    commit = [*OCIDIFF, "commit", f"{tmp_path}/tree", "a:1", *store]
    verb, words = "commit", [*commit, option, "/dev/full"]
    if option == "--index":
        subprocess.run(commit, stdout=subprocess.DEVNULL, check=True)
        verb, words = "unpack", [*OCIDIFF, "unpack", "a:1", f"{tmp_path}/target", *store, option, "/dev/full"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"ocidiff: {verb}: /dev/full: No space left on device\n")
    # An image that is made is told, whatever becomes of the file.
    assert done.stdout.startswith("sha256:") == (option != "--index")


@pytest.mark.parametrize("words", [["changes", "--upperdir", ".", "--lowerdir", ".:"], ["changes", "scratch", ""]])
def test_an_empty_name_is_shown(words: list[str]) -> None:
    done = subprocess.run([*OCIDIFF, *words], capture_output=True, text=True, check=False)
    assert done.returncode in {1, 2}
    assert "''" in done.stderr or "'.:'" in done.stderr


def test_a_closed_stdout_is_no_reason_for_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = f'exec "{sys.executable}" -m ocidiff changes scratch "{tmp_path}" >&-'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "ocidiff: changes: stdout: is closed\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("changes scratch tree >&-", (1, "ocidiff: changes: stdout: is closed")),
        ("commit ./tree b:1 >&-", (1, "ocidiff: commit: stdout: is closed")),
        ("commit ./tree b:1 --dry-run >&-", (1, "ocidiff: commit: stdout: is closed")),
        ("create a:1 >&-", (1, "ocidiff: create: stdout: is closed")),
        ("diff scratch tree -o layer >&-", (1, "ocidiff: diff: stdout: is closed")),
        ("gc -q >&-", (1, "ocidiff: gc: stdout: is closed")),
        ("history a:1 >&-", (1, "ocidiff: history: stdout: is closed")),
        ("images >&-", (1, "ocidiff: images: stdout: is closed")),
        ("images --json >&-", (1, "ocidiff: images: stdout: is closed")),
        ("inspect a:1 >&-", (1, "ocidiff: inspect: stdout: is closed")),
        ("bench --size 9kB --files 8 --rounds 1 --peers none >&-", (1, "ocidiff: bench: stdout: is closed")),
        ("bench --size 9kB --files 8 --rounds 1 --peers none --json >&-", (1, "ocidiff: bench: stdout: is closed")),
        ("tag a:1 c:1 >&-", (1, "ocidiff: tag: stdout: is closed")),
        ("diff scratch tree -o - >&-", (2, "ocidiff: diff: -o -: stdout is closed")),
        ("batch lines -q >&-", (1, "ocidiff: batch: stdout: is closed; 1 made; run it again to go on")),
        ("batch - <&-", (2, "ocidiff: batch: -: stdin is closed")),
        ("apply - target <&-", (2, "ocidiff: apply: -: stdin is closed")),
        ("load <&-", (2, "ocidiff: load: stdin is a terminal or closed; give an archive with -i FILE")),
    ],
)
def test_a_closed_stream_is_one_line_if_it_is_needed(words: str, expected: tuple[int, str], tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").touch()
    (tmp_path / "target").mkdir()
    place = {**os.environ, "OCIDIFF_STORE": str(tmp_path / "store")}
    subprocess.run([*OCIDIFF, "commit", "./tree", "a:1", "-q"], cwd=tmp_path, env=place, check=True)
    (tmp_path / "lines").write_text('{"source": "./tree", "name": "b:1"}')
    command = f'exec "{sys.executable}" -m ocidiff {words}'
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=place, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.partition("; see")[0].rstrip("\n")) == expected


@pytest.mark.parametrize("words", ["commit ./tree b:1 --report", "save a:1 -o", "diff scratch tree -o"])
@pytest.mark.parametrize("name", ["index.json", "oci-layout", "ocidiff.db"])
def test_no_output_replaces_a_document_of_a_store(words: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    place = {**os.environ, "OCIDIFF_STORE": str(tmp_path / "store")}
    subprocess.run([*OCIDIFF, "commit", "./tree", "a:1", "-q"], cwd=tmp_path, env=place, check=True)
    before = (tmp_path / "store" / name).read_bytes()
    line = [*OCIDIFF, *words.split(), f"store/{name}"]
    done = subprocess.run(line, cwd=tmp_path, env=place, capture_output=True, text=True, check=False)
    assert (done.returncode, "belongs to a store" in done.stderr) == (2, True), done.stderr
    assert (tmp_path / "store" / name).read_bytes() == before


def test_what_a_closed_stderr_does_not_take_is_no_result(tmp_path: Path) -> None:
    for words in (f'changes "{tmp_path}/missing" "{tmp_path}"', "unknown", "changes --unknown"):
        command = f'exec "{sys.executable}" -m ocidiff {words} 2>&-'
        done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stdout) in {(1, ""), (2, "")}


def test_an_interrupt_that_python_wraps_is_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from ocidiff.cli import group, main

    def interrupted(*_: object) -> None:
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    monkeypatch.setattr(group.group, "invoke", interrupted)
    assert main.main(["ps"]) == 130
    assert capsys.readouterr().err == "ocidiff: interrupted\n"


def test_names_survive_an_encoding_that_lacks_them(tmp_path: Path) -> None:
    (tmp_path / "Grüße").touch()
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*OCIDIFF, "changes", "scratch", str(tmp_path)], env=environment, capture_output=True, check=True)
    assert done.stdout == b"A /Gr\\xfc\\xdfe\n"


def test_a_layer_goes_through_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/file").write_text("content")
    (tmp_path / "target").mkdir()
    command = f'"{sys.executable}" -m ocidiff'
    pipe = f"{command} diff scratch '{tmp_path}/upper' -o - | {command} apply - '{tmp_path}/target'"
    done = subprocess.run(["sh", "-c", pipe], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("sha256:")
    assert done.stderr == ""
    assert (tmp_path / "target/file").read_text() == "content"


def test_an_index_goes_through_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    done = subprocess.run([*OCIDIFF, "index", str(tmp_path), "-o", "-"], capture_output=True, check=True)
    assert done.stdout.startswith(b"OCIDIFFX")
    assert done.stderr == b""


def on_terminal(*words: str) -> tuple[int, str]:
    """Exit status of a command whose stdout and stderr are a terminal, and what it wrote there."""
    controller, terminal = pty.openpty()
    with subprocess.Popen([*OCIDIFF, *words], stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(controller, 65536):
                shown += chunk
        except OSError:
            pass  # a terminal whose other end is closed answers EIO
    os.close(controller)
    return process.returncode, shown.decode()


def test_a_layer_is_not_written_to_a_terminal(tmp_path: Path) -> None:
    status, shown = on_terminal("diff", "scratch", str(tmp_path), "-o", "-")
    assert status == 2
    assert "a layer is not written to a terminal" in shown
    status, shown = on_terminal("index", str(tmp_path), "-o", "-")
    assert status == 2
    assert "an index is not written to a terminal" in shown


def test_a_terminal_gets_a_bar_and_then_the_digest(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    status, shown = on_terminal("diff", "scratch", str(tmp_path / "tree"), "-o", str(tmp_path / "layer"))
    assert status == 0
    assert "entries" in shown
    assert shown.rstrip().splitlines()[-1].rpartition("sha256:")[2].isalnum()


def test_completion_comes_from_click() -> None:
    environment = os.environ | {"_OCIDIFF_COMPLETE": "bash_complete", "COMP_WORDS": "ocidiff c", "COMP_CWORD": "1"}
    done = subprocess.run(OCIDIFF, env=environment, capture_output=True, text=True, check=False)
    assert sorted(done.stdout.split()) == ["plain,changes", "plain,commit", "plain,commit-pod", "plain,copy", "plain,create"]


@pytest.mark.parametrize(
    ("words", "items"),
    [
        ("unpack", ["plain,app:v1", "plain,app:v2"]),
        ("commit ./tree new --base", ["plain,app:v1", "plain,app:v2"]),
        ("mount", ["plain,work"]),
        ("rm", ["plain,work"]),
        ("commit", ["file,", "plain,work"]),
        ("changes", ["file,", "plain,app:v1", "plain,app:v2", "plain,work"]),
        ("--store /nowhere unpack", []),
    ],
)
def test_a_shell_completes_what_is_in_the_store(words: str, items: list[str], tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with ocidiff.Store.open(tmp_path / "store") as store:
        for name in ("app:v1", "app:v2"):
            store.commit(tmp_path / "tree", name)
        store.create("app:v1", "work", driver="directory")
    line = f"ocidiff {words} "
    environment = os.environ | {
        "_OCIDIFF_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split())),
    }
    environment["OCIDIFF_STORE"] = str(tmp_path / "store")
    done = subprocess.run(OCIDIFF, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (items, "")


def test_a_commit_says_on_a_terminal_what_it_stored(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").touch()
    ours, theirs = pty.openpty()
    words = ["--store", str(tmp_path / "store"), "--progress", "none", "commit", str(tmp_path / "tree"), "app:v1"]
    done = subprocess.run([*OCIDIFF, *words], stdout=subprocess.PIPE, stderr=theirs, check=True)
    subprocess.run([*OCIDIFF, "-q", *words], stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert done.stdout.startswith(b"sha256:")
    assert said.startswith("ocidiff: app:v1: 1 added, 0 modified, 0 deleted; ")
    assert said.count("\n") == 1
