"""A wrong option of `serve` ends it before it serves: one line, the exit status, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

SERVE = [sys.executable, "-m", "ocidiff", "serve", "--socket"]


def refused(place: Path, words: Sequence[str], status: int) -> str:
    """Run `serve`; return the line that it ends with."""
    done = subprocess.run([*SERVE, place / "socket", *words], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert "serving" not in done.stderr
    assert not list(place.glob("socket*"))
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["full", "writable", "link", "file"])
def test_a_directory_that_cannot_be_the_cache_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "cache"
    if kind == "file":
        place.write_text("kept")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to("elsewhere")
    else:
        place.mkdir()
        place.chmod(0o777 if kind == "writable" else 0o755)
        if kind == "full":
            (place / "precious").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    line = refused(tmp_path, ["--cache", str(place)], 1)
    assert line.startswith(f"ocidiff: serve: {place}: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("where", ["9100", "host:", "host:70000", "host:-1", "host:²", "host:" + "9" * 5000])
def test_metrics_are_at_an_address_or_in_a_file(tmp_path: Path, where: str) -> None:
    assert "must be HOST:PORT or the path of a file" in refused(tmp_path, ["--metrics", where, "--reuse", "never"], 2)


def test_an_address_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refused(tmp_path, ["--metrics", where, "--reuse", "never"], 1).startswith(f"ocidiff: serve: {where}: ")


def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    where = str(tmp_path / "missing" / "file.prom")
    assert refused(tmp_path, ["--metrics", where, "--reuse", "never"], 1).startswith(f"ocidiff: serve: {where}: ")


def test_a_default_directory_of_no_use_is_told_and_done_without(tmp_path: Path) -> None:
    place = tmp_path / "cache"
    place.mkdir()
    (place / "precious").write_text("kept")
    environment = os.environ | {"OCIDIFF_CACHE_DIR": str(place)}
    with subprocess.Popen([*SERVE, tmp_path / "socket"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        until = time.monotonic() + 60
        while not (tmp_path / "socket").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        told = process.stderr.read()
    assert process.returncode == 0
    assert "layers are compressed as a whole" in told
    assert os.listdir(place) == ["precious"]
