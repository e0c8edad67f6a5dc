"""Large files that may change are put aside beside the output: no small or missing temporary directory breaks a call."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import ocidiff
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import EngineName, LayerOptions
from ocidiff.store import Store
from support import probes

LARGE = 6 << 20


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """A tree with a file that changed lately, too large for memory."""
    tree = tmp_path / "upper"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(LARGE))
    return tree


@pytest.fixture
def missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files, which is not there."""
    # It needs one itself, and is remembered.
    probes.can_mount_overlay()
    place = tmp_path / "missing"
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.mark.usefixtures("missing")
def test_a_layer_is_written_without_a_temporary_directory(upper: Path, tmp_path: Path, engine_name: EngineName) -> None:
    out = tmp_path / "out"
    out.mkdir()
    layer = ocidiff.diff(None, upper, out / "layer.tar", engine=engine_name)
    assert layer.uncompressed_size > LARGE
    # A link leads to where the file is.
    (tmp_path / "link").symlink_to(out / "layer.tar")
    assert ocidiff.diff(None, upper, tmp_path / "link", engine=engine_name).diff_id == layer.diff_id
    assert os.listdir(out) == ["layer.tar"]


@pytest.mark.usefixtures("missing")
def test_an_image_is_committed_without_a_temporary_directory(upper: Path, tmp_path: Path, engine_name: EngineName) -> None:
    with Store.open(tmp_path / "store") as store:
        store.commit(upper, "base", engine=engine_name)
        (upper / "large").write_bytes(os.urandom(LARGE))
        layer = store.commit(upper, "next", base="base", engine=engine_name).layer
        assert layer is not None
        assert layer.modified == 1
        if probes.can_mount_overlay():
            store.create("base", "work", driver="overlay", engine=engine_name)
            Path(store.containers.mount("work"), "new").write_bytes(os.urandom(LARGE))
            layer = store.commit(store.containers.get("work"), "third", engine=engine_name).layer
            assert layer is not None
            assert layer.added == 1
            store.containers.umount("work")
        assert os.listdir(tmp_path / "store" / "ingest") == []


def test_a_missing_directory_is_told_by_its_name(engine: Engine, upper: Path, missing: Path, tmp_path: Path) -> None:
    with open("/dev/null", "wb") as sink:
        for spool, named in ((None, missing), (str(tmp_path / "gone"), tmp_path / "gone")):
            with pytest.raises(OSError, match="No such file") as caught:
                engine.write_layer(None, os.fsencode(upper), sink.fileno(), LayerOptions(spool=spool), Monitor())
            assert caught.value.filename == str(named)


@pytest.mark.root
def test_a_full_temporary_directory_breaks_no_command(upper: Path, tmp_path: Path, engine_name: EngineName) -> None:
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full], check=False, capture_output=True).returncode:
        probes.missing("needs tmpfs mounts")
    try:
        for words in (
            ["diff", "scratch", upper, "-o", tmp_path / "layer.tar.gz"],
            ["commit", f"{upper}", "app", "--store", "s"],
        ):
            command = [sys.executable, "-m", "ocidiff", *words, "--engine", engine_name]
            environment = {**os.environ, "TMPDIR": str(full), "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        # To a pipe nothing is beside the output.
        command = [sys.executable, "-m", "ocidiff", "diff", "scratch", upper, "-o", "-", "--engine", engine_name]
        piped = subprocess.run(command, env=environment, check=False, capture_output=True)
        assert piped.returncode == 1
        assert f"{full}: No space left on device" in piped.stderr.decode()
    finally:
        subprocess.run(["umount", full], check=True)
