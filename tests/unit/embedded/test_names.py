"""A name is given only while the lease is alive and every blob is there, whatever happens between the steps."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocidiff.embedded import names
from ocidiff.embedded.gc import collect
from ocidiff.embedded.leases import Leases
from ocidiff.embedded.names import Names
from ocidiff.errors import NotFoundError
from ocidiff.oci import media_type
from ocidiff.oci.digest import Digest
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support.layouts import Handmade


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("1")
    return tmp_path / "tree"


@pytest.fixture
def store(tmp_path: Path, tree: Path) -> Iterator[EmbeddedStore]:
    with Store.open(tmp_path / "store") as opened:
        opened.commit(tree, "base:1")
        yield opened


def _blobs(store: EmbeddedStore) -> set[Digest]:
    return set(store._layout.walk())


def _delete(kind: str) -> Callable[[EmbeddedStore, set[Digest]], None]:
    def delete(store: EmbeddedStore, new: set[Digest]) -> None:
        documents = {digest: (store._layout.document(digest) or b"") for digest in new}
        kinds = {
            "layer": [digest for digest, data in documents.items() if not data],
            "config": [digest for digest, data in documents.items() if b'"rootfs"' in data],
            "manifest": [digest for digest, data in documents.items() if b'"layers": [' in data],
        }
        (digest,) = kinds[kind]
        Path(store._layout.path, "blobs", "sha256", digest.hex).unlink()

    return delete


def _collect_without_leases(store: EmbeddedStore, _: set[Digest]) -> None:
    for lease in Leases(store._layout.database).leases():
        os.unlink(lease.path)
    assert collect(store._layout).blobs > 0


def _end_the_lease_only(store: EmbeddedStore, _: set[Digest]) -> None:
    with store._layout.database().transaction() as connection:
        connection.execute("DELETE FROM lease")


_FAULTS = {
    "layer": _delete("layer"),
    "config": _delete("config"),
    "manifest": _delete("manifest"),
    "collected": _collect_without_leases,
    "ended": _end_the_lease_only,
}


@pytest.mark.parametrize("fault", _FAULTS)
@pytest.mark.parametrize("when", ["before the check", "before the index is replaced"])
def test_a_commit_that_lost_something_before_the_name_fails(
    store: EmbeddedStore, tree: Path, fault: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "file").write_text("2")
    index = Path(store._layout.path, "index.json")
    before, blobs = index.read_bytes(), _blobs(store)
    database = store._layout.database()
    real_transaction, real_step = database.transaction, Names.parts if when == "before the check" else names._mirror

    def lose() -> None:
        monkeypatch.undo()
        with Store.open(store._layout.path) as other:
            _FAULTS[fault](other, _blobs(other) - blobs)

    def lose_first(**options: bool) -> object:
        lose()
        return real_transaction(**options)

    def step(*arguments: object) -> object:
        done = real_step(*arguments)  # type: ignore[arg-type]
        # The next transaction of this call.
        monkeypatch.setattr(database, "transaction", lose_first)
        return done

    if when == "before the check":
        monkeypatch.setattr(Names, "parts", step)
    else:
        monkeypatch.setattr(names, "_mirror", step)
    problem = "has ended" if fault in {"collected", "ended"} else r"is missing in /.*; no name was given"
    with pytest.raises(NotFoundError, match=problem):
        store.commit(tree, "new:1", base="base:1")
    assert index.read_bytes() == before
    assert store.verify().faults == ()
    assert [record.name for record in store.images()] == ["base:1"]


@pytest.mark.parametrize("kind", ["config", "layer"])
def test_a_tag_of_an_image_that_is_not_whole_fails(store: EmbeddedStore, kind: str) -> None:
    _delete(kind)(store, _blobs(store))
    with pytest.raises(NotFoundError, match=r"image 'other:1': blob sha256:.* is missing"):
        store.tag("base:1", "other:1")
    assert [record.name for record in store.images()] == ["base:1"]


def test_an_image_for_several_platforms_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "store")
    here, gone = handmade.image({"f": "1"}), handmade.image({"f": "2"}, architecture="arm64")
    (tmp_path / "store" / "blobs" / "sha256" / gone["digest"][7:]).unlink()
    handmade.name("multi", handmade.index([here, gone]))
    with Store.open(tmp_path / "store") as store:
        store.tag("multi", "other:1")
        manifest = json.loads((tmp_path / "store" / "blobs" / "sha256" / here["digest"][7:]).read_bytes())
        (tmp_path / "store" / "blobs" / "sha256" / manifest["layers"][0]["digest"][7:]).unlink()
        with pytest.raises(NotFoundError, match="is missing"):
            store.tag("multi", "third:1")


def test_a_layer_that_is_fetched_from_elsewhere_may_be_missing(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "store")
    layer, diff_id = handmade.layer({"f": "1"}, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    handmade.name("app", handmade.manifest(handmade.config([diff_id]), [{**layer, "urls": ["https://example.org/f"]}]))
    (tmp_path / "store" / "blobs" / "sha256" / layer["digest"][7:]).unlink()
    with Store.open(tmp_path / "store") as store:
        assert store.tag("app", "other:1").media_type == media_type.MANIFEST


@pytest.mark.parametrize("stopped", [True, False])
def test_a_commit_that_waits_for_its_name_keeps_its_blobs(store: EmbeddedStore, tree: Path, stopped: bool) -> None:
    (tree / "file").write_text("2")
    before = _blobs(store)
    lock = os.open(Path(store._layout.path, "index.lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    words = ["--store", store._layout.path, "commit", f"{tree}/", "new:1"]
    program = "import sys; from ocidiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while len(_blobs(store) - before) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if stopped:
            process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        assert collect(store._layout).blobs == 0
        os.close(lock)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0
    assert store.verify().faults == ()
    assert store.collect().blobs == 0
    store.unpack("new:1", tree.parent / "out")
    assert (tree.parent / "out" / "file").read_text() == "2"
