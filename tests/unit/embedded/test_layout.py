"""The layout: a content store, a locked index, and nothing left of the dead."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocidiff.embedded.layout import Layout
from ocidiff.errors import DocumentError, NotFoundError
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.index import REF_NAME
from ocidiff.services.content import ContentStore
from ocidiff.services.images import understood
from suites.content_store import DATA, DESCRIPTOR, KIND, BlobFilesSuite

_DOCUMENTS = (b'{"one": 1}', b'{"two": 2}')
MANIFEST, OTHER = (Descriptor(media_type.MANIFEST, Digest.of(data), len(data)) for data in _DOCUMENTS)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Layout]:
    with Layout.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def layout(empty: Layout) -> Layout:
    """A layout that has the two manifests, without names."""
    for data in _DOCUMENTS:
        empty.write(data, media_type.MANIFEST)
    return empty


class TestLayoutAsContentStore(BlobFilesSuite):
    @pytest.fixture
    def store(self, empty: Layout) -> ContentStore:
        return empty

    def blob_path(self, store: ContentStore, digest: Digest) -> Path:
        assert isinstance(store, Layout)
        return Path(store.path, "blobs", "sha256", digest.hex)

    def unfinished(self, store: ContentStore) -> list[str]:
        assert isinstance(store, Layout)
        return os.listdir(Path(store.path, "ingest"))


def _mode(*parts: str | Path) -> int:
    return stat.S_IMODE(Path(*parts).stat().st_mode)


def test_a_new_layout_is_what_the_specification_says(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        Layout.open(tmp_path / "a" / "store", create=True).close()
    finally:
        os.umask(umask)
    root = tmp_path / "a" / "store"
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((root / "index.json").read_text()) == {
        "schemaVersion": 2,
        "mediaType": media_type.INDEX,
        "manifests": [],
    }
    assert [_mode(root, name) for name in (".", "blobs", "blobs/sha256", "ingest")] == [0o755] * 4
    assert [_mode(root, name) for name in ("oci-layout", "index.json")] == [0o644] * 2
    assert os.listdir(root / "ingest") == []


def test_blobs_are_read_only(layout: Layout) -> None:
    layout.write(DATA, KIND)
    assert _mode(layout.path, "blobs", "sha256", DESCRIPTOR.digest.hex) == 0o444


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DocumentError, match="not an OCI image layout"):
        Layout.open(tmp_path, create=True)
    assert os.listdir(tmp_path) == ["file"]


def test_a_layout_whose_making_was_interrupted_is_completed(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "index.lock").touch()
    with Layout.open(tmp_path, create=True) as layout:
        assert layout.names.index().entries == ()


def test_a_missing_layout_is_made_only_on_demand(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Layout.open(tmp_path / "store", create=False)
    with pytest.raises(DocumentError, match="not an OCI image layout"):
        Layout.open(tmp_path, create=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("marker", "problem"),
    [('{"imageLayoutVersion":"2.0.0"}', "is '2.0.0'"), ("{}", "is ''"), ("[]", "not a JSON object"), ("", "not JSON")],
)
def test_another_version_of_layout_is_refused(layout: Layout, marker: str, problem: str) -> None:
    Path(layout.path, "oci-layout").write_text(marker)
    with pytest.raises(DocumentError, match=problem):
        Layout.open(layout.path, create=True)


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "ingest"])
def test_a_symlink_in_place_of_a_directory_is_refused(layout: Layout, name: str, tmp_path: Path) -> None:
    path = Path(layout.path, name)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=str(path)):
        layout.write(DATA, KIND)


def test_a_fifo_in_place_of_the_index_is_refused_at_once(layout: Layout) -> None:
    Path(layout.path, "index.json").unlink()
    os.mkfifo(Path(layout.path, "index.json"))
    with pytest.raises(OSError, match="not a regular file"):
        layout.names.index()


def test_a_name_leads_to_what_was_last_given_it(layout: Layout) -> None:
    with pytest.raises(NotFoundError, match="no image 'a:1'"):
        understood(layout.names.entry("a:1"))
    layout.names.put("a:1", MANIFEST)
    layout.names.put("b:1", MANIFEST)
    layout.names.put("a:1", OTHER)
    assert understood(layout.names.entry("a:1")).digest == OTHER.digest
    assert understood(layout.names.entry("b:1")).digest == MANIFEST.digest
    assert len(layout.names.index().manifests) == 2


def test_what_others_wrote_into_the_index_is_kept(layout: Layout) -> None:
    foreign = {
        "schemaVersion": 2,
        "manifests": [
            {"mediaType": "x/y", "digest": MANIFEST.digest, "size": 1, "annotations": {"k": "v"}, "new": [1]},
            {"mediaType": media_type.INDEX, "digest": OTHER.digest, "size": 2, "platform": {"os": "linux"}},
        ],
        "annotations": {"who": "other"},
        "more": {"deep": [None]},
    }
    path = Path(layout.path, "index.json")
    path.write_text(json.dumps(foreign))
    layout.names.put("a:1", MANIFEST)
    after = json.loads(path.read_text())
    assert after["manifests"][:2] == foreign["manifests"]
    assert after["annotations"] == foreign["annotations"]
    assert after["more"] == foreign["more"]


def test_a_name_of_several_images_is_an_error_until_it_is_given_again(layout: Layout) -> None:
    twice = [{**d.document(), "annotations": {REF_NAME: "a:1"}} for d in (MANIFEST, OTHER)]
    Path(layout.path, "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": twice}))
    with pytest.raises(DocumentError, match="2 images are named 'a:1'"):
        understood(layout.names.entry("a:1"))
    layout.names.put("a:1", OTHER)
    assert understood(layout.names.entry("a:1")).digest == OTHER.digest


def test_a_damaged_index_is_not_overwritten(layout: Layout) -> None:
    path = Path(layout.path, "index.json")
    path.write_text('{"schemaVersion":2,')
    with pytest.raises(DocumentError, match="not JSON"):
        layout.names.put("a:1", MANIFEST)
    assert path.read_text() == '{"schemaVersion":2,'


def _name_many(path: str, prefix: str) -> None:
    with Layout.open(path, create=True) as layout:
        layout.write(_DOCUMENTS[0], media_type.MANIFEST)
        for number in range(20):
            layout.names.put(f"{prefix}:{number}", MANIFEST)


def test_writers_in_several_processes_lose_no_name(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = str(tmp_path / "store")
    processes = [context.Process(target=_name_many, args=(path, f"p{number}")) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    with Layout.open(path, create=False) as layout:
        assert len(layout.names.index().manifests) == 80
    assert os.listdir(tmp_path / "store" / "ingest") == []


def test_writers_in_several_threads_lose_no_name(layout: Layout) -> None:
    def name_many(prefix: str) -> None:
        for number in range(20):
            layout.names.put(f"{prefix}:{number}", MANIFEST)

    threads = [threading.Thread(target=name_many, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(layout.names.index().manifests) == 80


_LEAVE_THINGS = """
import os, signal, sys
from ocidiff.embedded.layout import Layout
layout = Layout.open(sys.argv[1], create=True)
ingest = layout.ingest().__enter__()
ingest.write(b"half")
with layout.temporary_directory() as path:
    os.makedirs(path + "/a/b")
    os.chmod(path + "/a", 0)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_swept_and_what_a_live_one_uses_is_not(tmp_path: Path) -> None:
    path = tmp_path / "store"
    owner = subprocess.Popen(
        [sys.executable, "-c", _LEAVE_THINGS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        Layout.open(path, create=False).close()
        assert len(os.listdir(path / "ingest")) == 2
        owner.send_signal(signal.SIGKILL)
    assert len(os.listdir(path / "ingest")) == 2
    Layout.open(path, create=False).close()
    assert os.listdir(path / "ingest") == []


@pytest.mark.parametrize("step", ["fsync", "rename", "fchmod"])
def test_a_failing_system_leaves_the_store_as_it_was(layout: Layout, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.names.put("a:1", MANIFEST)
    before = Path(layout.path, "index.json").read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        layout.write(DATA, KIND)
    with pytest.raises(OSError, match="No space"):
        layout.names.put("a:1", OTHER)
    monkeypatch.undo()
    assert os.listdir(Path(layout.path, "ingest")) == []
    assert not layout.contains(DESCRIPTOR.digest)
    assert Path(layout.path, "index.json").read_bytes() == before


def test_bytes_are_on_disk_before_they_have_a_name(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.database()
    steps: list[str] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def recorded(*arguments: object, **named: object) -> object:
            steps.append(name)
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, recorded)

    record("fsync")
    record("rename")
    layout.write(DATA, KIND)
    layout.names.put("a:1", MANIFEST)
    assert steps == ["fsync", "rename", "fsync"] * 2


def test_a_read_only_layout_is_read(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.write(DATA, KIND)
    os.rmdir(Path(layout.path, "ingest"))
    Path(layout.path, "index.lock").unlink()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with Layout.open(layout.path, create=False) as again:
        assert again.read(DESCRIPTOR) == DATA
        assert again.names.index().entries == ()
