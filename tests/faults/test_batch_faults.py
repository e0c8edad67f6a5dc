"""A batch that is killed, interrupted, or meets a full disk leaves whole images, and the same command goes on from there."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ocidiff
from support import probes

OCIDIFF = [sys.executable, "-m", "ocidiff"]
EPOCH = "1700000000"
COUNT = 60


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a base, and lines for many uppers that each take a while."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCIDIFF_STORE", "store")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower/file").write_text("lower")
    numbers = random.Random(1)
    with (tmp_path / "lines").open("w") as lines:
        for number in range(COUNT):
            upper = tmp_path / "uppers" / str(number)
            upper.mkdir(parents=True)
            (upper / "file").write_bytes(numbers.randbytes(400_000).hex().encode())
            lines.write(json.dumps({"upper": str(upper), "name": f"app:{number}"}) + "\n")
    with ocidiff.Store.open("store") as store:
        store.commit("./lower", "base:1")
    # Older than the coarsest clock can tell.
    time.sleep(2.1)
    return tmp_path


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*OCIDIFF, *words], capture_output=True, text=True, check=False)


def results(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def check_whole(told: list[dict[str, object]]) -> dict[str, str]:
    """Every image that was told is there, and all images are whole; returns what has a name."""
    verified = run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    with ocidiff.Store.open("store") as store:
        named = {str(image.name): str(image.digest) for image in store.images()}
    for result in told:
        if result["status"] in {"made", "present"}:
            assert named[str(result["name"])] == result["digest"]
    return named


def finish(before: dict[str, str]) -> dict[str, str]:
    """Run it again: lines whose image has a name are skipped."""
    done = run("batch", "lines", "--base", "base:1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("ocidiff: batch: ")
    statuses = {str(result["name"]): result["status"] for result in results(done.stdout)}
    assert statuses == {f"app:{n}": "present" if f"app:{n}" in before else "made" for n in range(COUNT)}
    named = check_whole(results(done.stdout))
    assert before.items() <= named.items()
    assert os.listdir("store/ingest") == os.listdir("store/leases") == []
    return named


@pytest.mark.parametrize("lines_before", [1, 7, 25])
def test_a_killed_batch_goes_on(lines_before: int, place: Path) -> None:
    with subprocess.Popen([*OCIDIFF, "batch", "lines", "--base", "base:1"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(lines_before)]
        process.kill()
        told += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    named = check_whole(results("".join(line for line in told if line.endswith("\n"))))
    assert lines_before + 1 <= len(named) <= COUNT
    after = finish(named)
    with ocidiff.Store.open(place / "other") as other, ocidiff.Store.open("store") as store:
        store.copy("base:1", "oci:copied:base")
        other.copy("oci:copied:base", "base:1")
        other.batch("lines", lambda _: None, base="base:1")
        assert {str(image.name): str(image.digest) for image in other.images()} == after


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_batch_ends_cleanly_and_tells_what_is_done(number: signal.Signals, status: int, place: Path) -> None:
    assert place
    words = ["env", f"--default-signal={number.name.removeprefix('SIG')}", *OCIDIFF, "batch", "lines", "--base", "base:1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = [process.stdout.readline() for _ in range(5)]
        process.send_signal(number)
        told += process.stdout.readlines()
        err = process.stderr.read()
    assert process.returncode == status, err
    found = results("".join(told))
    made = [result for result in found if result["status"] == "made"]
    assert f"{len(made)} made" in err
    assert "run it again to go on" in err
    assert err.count("Traceback") == 0
    assert {str(result["error"]) for result in found if result["status"] != "made"} <= {"interrupted"}
    assert os.listdir("store/ingest") == os.listdir("store/leases") == []
    named = check_whole(found)
    # What was told, and nothing else.
    assert named.keys() - {"base:1"} == {result["name"] for result in made}
    finish(named)


def test_an_interrupt_is_heard_while_stdin_says_nothing(place: Path) -> None:
    assert place
    words = ["env", "--default-signal=INT", *OCIDIFF, "batch", "-", "--base", "base:1"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"upper": "uppers/1", "name": "app:1"}) + "\n")
        process.stdin.flush()
        # A line is done while the next one has not come.
        assert '"made"' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


def test_a_reader_that_leaves_ends_the_batch(place: Path) -> None:
    assert place
    with subprocess.Popen(
        [*OCIDIFF, "batch", "lines", "--base", "base:1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
    finish(check_whole([]))


@pytest.mark.root
def test_a_full_disk_stops_the_batch_and_room_lets_it_go_on(place: Path) -> None:
    disk = place / "store-disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(disk)], capture_output=True, check=False)
    if made.returncode != 0:
        probes.missing("needs to mount a tmpfs")
    try:
        (place / "store").rename(place / "old")
        (place / "store").symlink_to(disk)
        assert run("copy", f"oci:{place / 'old'}:base:1", "base:1").returncode == 0
        done = run("batch", "lines", "--base", "base:1")
        assert done.returncode == 1, done.stderr
        assert "make room, and run it again" in done.stderr
        assert "Traceback" not in done.stderr
        found = results(done.stdout)
        statuses = [result["status"] for result in found]
        assert 5 < statuses.count("made") < COUNT
        assert 0 < statuses.count("stopped") <= 3
        assert len(found) == statuses.count("made") + statuses.count("stopped")
        named = check_whole(found)
        # Ended before the disk was full.
        space = os.statvfs(disk)
        assert space.f_bavail > 0
        assert os.listdir("store/ingest") == os.listdir("store/leases") == []
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        finish(named)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_budget_is_never_passed(place: Path) -> None:
    assert place
    before = stored_bytes()
    done = run("batch", "lines", "--base", "base:1", "--disk", "3MB")
    assert done.returncode == 1
    assert "the disk budget of 3.0 MB is used up: give more to --disk, and run it again" in done.stderr
    found = results(done.stdout)
    made = [result for result in found if result["status"] == "made"]
    assert 5 <= len(made) < COUNT
    assert stored_bytes() - before <= 3_000_000
    finish(check_whole(found))


def stored_bytes() -> int:
    return sum(entry.stat().st_size for entry in Path("store/blobs/sha256").iterdir())
