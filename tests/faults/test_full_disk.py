"""A first call on a nearly full disk may fail, and the same call works once there is room: nothing half made has a name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import probes
from support.layouts import Handmade

pytestmark = pytest.mark.root

_RUN = "import sys; from ocidiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
# From too little for a store to enough for an image.
_SIZES = (40, 64, 72, 88, 100, 110, 120, 130, 150, 180, 220)


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _RUN, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", ["new", "foreign"])
def test_a_first_call_on_a_full_disk_spoils_nothing(kind: str, tmp_path: Path) -> None:
    tree, place = tmp_path / "tree", tmp_path / "disk"
    tree.mkdir()
    place.mkdir()
    (tree / "file").write_text("1")
    statuses = set()
    for size in _SIZES:
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        made = subprocess.run(words, capture_output=True, check=False)
        if made.returncode != 0:
            probes.missing("needs to mount a tmpfs")
        try:
            store = place / "store"
            if kind == "foreign":
                try:
                    handmade = Handmade(store)
                    handmade.name("base", handmade.image({"f": "1"}))
                except OSError:
                    continue
            first = _run("commit", f"{tree}/", "app:1", "--store", str(store))
            statuses.add(first.returncode)
            assert "Traceback" not in first.stderr, first.stderr
            assert first.returncode == 0 or "No space left on device" in first.stderr, first.stderr
            subprocess.run(["mount", "-o", "remount,size=20m", place], check=True)
            again = _run("commit", f"{tree}/", "app:1", "--store", str(store))
            assert again.returncode == 0, (size, again.stderr)
            verified = _run("verify", "--store", str(store))
            assert verified.returncode == 0, (size, verified.stdout, verified.stderr)
            assert {name for name in os.listdir(store) if name.startswith("ocidiff.db")} == {"ocidiff.db"}
            assert os.listdir(store / "ingest") == os.listdir(store / "leases") == []
        finally:
            subprocess.run(["umount", "-l", place], check=True)
    # Both ends are reached.
    assert statuses == {0, 1}


@pytest.mark.parametrize("command", ["load", "changes"])
def test_a_full_directory_of_temporary_files_is_named(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, full, store = tmp_path / "tree", tmp_path / "full", str(tmp_path / "store")
    tree.mkdir()
    full.mkdir()
    (tree / "file").write_bytes(os.urandom(3 << 20))
    for number in range(5000 if command == "changes" else 0):
        (tree / ("n" * 200 + str(number))).touch()
    assert _run("commit", f"{tree}/", "app:1", "--store", store).returncode == 0
    assert _run("save", "app:1", "-o", str(tmp_path / "a.tar"), "--store", store).returncode == 0
    subprocess.run(["gzip", "-1", tmp_path / "a.tar"], check=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(full)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        probes.missing("needs to mount a tmpfs")
    monkeypatch.setenv("TMPDIR", str(full))
    words = {
        "load": ["load", "-i", str(tmp_path / "a.tar.gz")],
        "changes": ["changes", "app:1", f"{tree}/"],
    }[command]
    try:
        done = _run(*words, "--store", store)
    finally:
        subprocess.run(["umount", "-l", full], check=True)
    told = f"{full}: No space left on device; TMPDIR names another directory for temporary files\n"
    assert (done.returncode, done.stderr) == (1, f"ocidiff: {command}: {told}")
