"""Who may not write to a store reads it as far as that goes, and is told what could not be read and why."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocidiff.store import Store
from support import probes

Run = Callable[..., "subprocess.CompletedProcess[str]"]
OTHER = 5555
READING = (
    ["images"],
    ["images", "--json"],
    ["inspect", "base:1"],
    ["history", "base:1"],
    ["ps"],
    ["ps", "--json"],
    ["gc", "--dry-run"],
)
WRITING = (
    ["gc"],
    ["tag", "base:1", "new"],
    ["rmi", "base:1"],
    ["rm", "work"],
    ["create", "base:1", "new"],
    ["commit", "./tree", "new"],
    ["verify", "--repair"],
)


@pytest.fixture
def place(tmp_path: Path, rootfs: Path) -> Path:
    """A store with an image, a container and a second layer, that nobody has open."""
    with Store.open(tmp_path / "store") as store:
        store.commit(rootfs, "base:1")
        store.create("base:1", "work", driver="directory")
        store.containers.umount("work")
    (tmp_path / "tree").mkdir()
    tmp_path.chmod(0o755)
    return tmp_path


def _run(place: Path, *before: str) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*before, sys.executable, "-m", "ocidiff", *words, "--store", str(place / "store")]
        return subprocess.run(command, cwd=place, env=environment, check=False, capture_output=True, text=True)

    return run


@pytest.fixture(params=["read-only", "another user's"])
def run(request: pytest.FixtureRequest, place: Path) -> Iterator[Run]:
    """Run the command where nothing may be written: on a read-only mount, or in the store of another user."""
    if not probes.is_root():
        probes.missing("needs root")
    if request.param == "read-only":
        store = str(place / "store")
        subprocess.run(["mount", "--bind", store, store], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
            yield _run(place)
        finally:
            subprocess.run(["umount", "-l", store], check=True)
        return
    if not probes.can_use_user_namespaces():
        probes.missing("needs user namespaces")
    subprocess.run(["chown", "-R", f"{OTHER}:{OTHER}", place / "store"], check=True)
    yield _run(place, "unshare", "--user", "--map-user=1000", "--map-group=1000")


@pytest.fixture
def refusal(run: Run, request: pytest.FixtureRequest) -> str:
    return "Read-only file system" if "read-only" in request.node.name else "Permission denied"


@pytest.fixture(params=["closed", "open", "died"])
def writer(request: pytest.FixtureRequest, place: Path) -> Iterator[str]:
    """What somebody who may write did last: nothing, works still, or died with changes in the log."""
    if request.param == "closed":
        yield "closed"
        return
    connection = sqlite3.connect(place / "store" / "ocidiff.db", isolation_level=None, check_same_thread=False)
    connection.execute("UPDATE container SET image = 'later'")
    if request.param == "open":
        yield "open"
        connection.close()
        return
    copies = {suffix: (place / "store" / f"ocidiff.db{suffix}").read_bytes() for suffix in ("", "-wal")}
    connection.close()
    for suffix, data in copies.items():
        (place / "store" / f"ocidiff.db{suffix}").write_bytes(data)
    yield "died"


def test_what_only_reads_works(writer: str, run: Run, place: Path, tmp_path: Path) -> None:
    for words in READING:
        done = run(*words)
        assert done.returncode == 0, (words, done.stderr)
    assert json.loads(run("ps", "--json").stdout)["image"] == ("base:1" if writer == "closed" else "later")
    assert run("images", "-q").stdout.strip()
    done = run("unpack", "base:1", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "etc" / "passwd").read_text() == "root"


def test_verify_reads_what_it_may(writer: str, run: Run, refusal: str) -> None:
    done = run("verify", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert found["blobs"]["count"] == 3
    assert found["images"] == 1
    assert found["snapshots"] == 2
    assert found["containers"] == 1
    if refusal == "Permission denied":
        assert any("/snapshots" in unread and "Permission denied" in unread for unread in found["unread"])
        assert "/snapshots" in done.stderr
    else:
        assert found["unread"] == []


def test_verify_tells_a_damaged_blob_and_one_that_it_may_not_read(place: Path, run: Run, refusal: str) -> None:
    blobs = place / "store" / "blobs" / "sha256"
    if refusal != "Permission denied":
        pytest.skip("the mount is read-only already")
    config, layer, *_ = sorted(blobs.iterdir(), key=lambda blob: blob.stat().st_size)
    layer.chmod(0o600)
    done = run("verify", "--json")
    found = json.loads(done.stdout)
    assert any(layer.name in unread for unread in found["unread"])
    config.chmod(0o644)
    config.write_bytes(b"{}")
    done = run("verify")
    assert done.returncode == 1
    assert config.name in done.stdout


@pytest.fixture
def rubbish(place: Path) -> str:
    """The digits of a blob that nothing needs."""
    digits = hashlib.sha256(b"rubbish").hexdigest()
    blob = place / "store" / "blobs" / "sha256" / digits
    blob.write_bytes(b"rubbish")
    os.utime(blob, (1, 1))
    return digits


def test_a_dry_run_of_gc_reads_what_it_may(rubbish: str, writer: str, place: Path, run: Run, refusal: str) -> None:
    blobs = place / "store" / "blobs" / "sha256"
    if refusal == "Permission denied":
        max(blobs.iterdir(), key=lambda blob: blob.stat().st_size).chmod(0o600)
    before = subprocess.run(["ls", "-lR", place / "store"], check=True, capture_output=True, text=True).stdout
    done = run("gc", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert before == subprocess.run(["ls", "-lR", place / "store"], check=True, capture_output=True, text=True).stdout
    assert (found["dryRun"], found["snapshots"]["count"], found["leftovers"]) == (True, 0, [])
    assert found["blobs"] == {"count": 1, "bytes": 7}, rubbish
    assert any("Permission denied" in unread for unread in found["unread"]) == (refusal == "Permission denied")
    assert ("may not be read" in done.stderr) == (refusal == "Permission denied")


@pytest.fixture
def bare(place: Path) -> Path:
    """The store as another tool would have made it: without a database."""
    shutil.rmtree(place / "store" / "snapshots", ignore_errors=True)
    for path in (place / "store").glob("ocidiff.db*"):
        path.unlink()
    return place / "store"


def test_a_store_of_another_tool_is_read_without_a_database(bare: Path, run: Run) -> None:
    for words in (["images"], ["ps"], ["verify"], ["gc", "--dry-run"]):
        done = run(*words)
        assert done.returncode == 0, (words, done.stderr)
    assert list(bare.glob("ocidiff.db*")) == []


def test_what_writes_says_why_it_may_not(run: Run, refusal: str, place: Path) -> None:
    before = subprocess.run(["ls", "-lR", place / "store"], check=True, capture_output=True, text=True).stdout
    for words in WRITING:
        done = run(*words)
        assert done.returncode == 1, (words, done.stdout)
        assert done.stderr.count("\n") == 1, (words, done.stderr)
        assert f"{place / 'store'}" in done.stderr, (words, done.stderr)
        whose = ": the store belongs to another user; use one of your own (--store), or only read this one"
        assert done.stderr.endswith(f": {refusal}{whose if refusal == 'Permission denied' else ''}\n"), (words, done.stderr)
    assert before == subprocess.run(["ls", "-lR", place / "store"], check=True, capture_output=True, text=True).stdout


def test_a_layout_of_another_tool_is_read_too(run: Run, place: Path) -> None:
    """Without a database there is nothing that says of snapshots or containers."""
    if os.statvfs(place / "store").f_flag & os.ST_RDONLY:
        pytest.skip("the mount is read-only already")
    (place / "store" / "ocidiff.db").unlink()
    shutil.rmtree(place / "store" / "snapshots")
    for words in (["images"], ["ps"], ["history", "base:1"], ["verify"]):
        done = run(*words)
        assert done.returncode == 0, (words, done.stderr)
