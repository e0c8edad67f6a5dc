"""Files of the host that a commit adds, in a layer of their own on top."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from ocidiff.errors import UnrepresentableError, UsageError
from ocidiff.image.image import Image
from ocidiff.layer.input import UpperTar
from ocidiff.layer.options import EngineName
from ocidiff.store.embedded import EmbeddedStore
from support import archives, probes


def members(store: Path, image: Image, number: int) -> list[tarfile.TarInfo]:
    with tarfile.open(store / "blobs/sha256" / image.manifest.layers[number].digest.hex) as layer:
        return layer.getmembers()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A file, and a directory with a link and a directory."""
    place = tmp_path / "host"
    (place / "conf/deep").mkdir(parents=True)
    (place / "conf/deep/a").write_text("a")
    (place / "conf/link").symlink_to("deep")
    (place / "tool").write_text("#!/bin/sh\n")
    (place / "tool").chmod(0o755)
    os.utime(place / "tool", (5, 5))
    return place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The tree that is committed, with a directory of a mode and time of its own."""
    place = tmp_path / "tree"
    (place / "opt").mkdir(parents=True)
    (place / "opt/tool").write_text("old")
    (place / "opt").chmod(0o1777)
    (place / "lib").symlink_to("opt")
    os.utime(place / "opt", (7, 7))
    return place


@pytest.mark.parametrize("source", ["directory", "container", "upper tar"])
def test_what_is_added_is_a_layer_over_the_changed_tree(
    store: EmbeddedStore, tree: Path, host: Path, tmp_path: Path, engine_name: EngineName, source: str
) -> None:
    before = store.commit(tree, "app:1", compression="none")
    changed: object = tree
    if source == "container":
        changed = store.create("app:1", "work")
    elif source == "upper tar":
        (tmp_path / "upper.tar").write_bytes(archives.tar(archives.directory(b"./")))
        changed = UpperTar(tmp_path / "upper.tar")
    image = store.commit(
        changed,  # type: ignore[arg-type]
        "app:2",
        base=None if source == "container" else "app:1",
        additions=[f"{host}/tool:/opt/", f"{host}/conf:etc/conf", f"{host}/tool:/usr/bin/x"],
        exclude=["tool"],
        compression="none",
        engine=engine_name,
    )
    assert [layer.descriptor for layer in image.layers] == [*image.manifest.layers[1:]]
    assert image.manifest.layers[:1] == before.manifest.layers
    found = {member.name: member for member in members(tmp_path / "store", image, 1)}
    assert list(found) == [
        *("etc", "etc/conf", "etc/conf/deep", "etc/conf/deep/a", "etc/conf/link"),
        *("opt", "opt/tool", "usr", "usr/bin", "usr/bin/x"),
    ]
    assert {(member.uid, member.gid) for name, member in found.items() if name != "opt"} == {(0, 0)}
    assert (found["opt"].mode, found["opt"].mtime) == (0o1777, 7)
    assert (found["opt/tool"].mode, found["opt/tool"].mtime, found["opt/tool"].size) == (0o755, 5, 10)
    assert (found["usr"].mode, found["usr"].mtime) == (0o755, 5)
    assert found["etc/conf/link"].linkname == "deep"
    assert len(image.config.rootfs.diff_ids) == 2
    steps = [(step.created_by, step.empty_layer) for step in image.config.history]
    assert steps[1:] == [("ocidiff commit", True), ("ocidiff commit --add /opt/tool /etc/conf /usr/bin/x", False)]
    assert os.listdir(tmp_path / "store/ingest") == []


def test_a_change_and_an_addition_are_two_layers(
    store: EmbeddedStore, tree: Path, host: Path, tmp_path: Path, engine_name: EngineName
) -> None:
    image = store.commit(tree, "app:1", additions=[f"{host}/tool:/opt/tool"], compression="none", engine=engine_name)
    assert [layer.descriptor for layer in image.layers] == [*image.manifest.layers]
    assert image.layer == image.layers[0]
    assert [layer.diff_id for layer in image.layers] == [*image.config.rootfs.diff_ids]
    assert [len(members(tmp_path / "store", image, number)) for number in (0, 1)] == [3, 2]
    store.unpack("app:1", tmp_path / "got")
    assert (tmp_path / "got/opt/tool").read_text() == "#!/bin/sh\n"
    # A file that is there already is no change.
    again = store.commit(tree, "app:2", additions=[f"{tree}/opt/tool:/opt/tool"], compression="none", engine=engine_name)
    assert len(again.manifest.layers) == 1 + (not probes.is_root())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tool", "must be SRC:DEST"),
        (":/x", "must be SRC:DEST"),
        ("tool:", "must be SRC:DEST"),
        ("tool:/..", "must not be the root"),
    ],
)
def test_what_says_no_addition_is_refused(store: EmbeddedStore, tree: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        store.commit(tree, "app:1", additions=[text])
    assert store.images() == []


def test_a_destination_behind_a_link_is_refused(store: EmbeddedStore, tree: Path, host: Path, tmp_path: Path) -> None:
    with pytest.raises(UnrepresentableError, match="add /lib/tool: /lib is not a directory in the tree"):
        store.commit(tree, "app:1", additions=[f"{host}/tool:/lib/"])
    os.mkfifo(host / "conf/fifo")
    with pytest.raises(UnrepresentableError, match="must be a file, a directory or a symbolic link"):
        store.commit(tree, "app:1", additions=[f"{host}/conf:/conf"])
    with pytest.raises(UnrepresentableError, match="must be a file, a directory or a symbolic link"):
        store.commit(tree, "app:1", additions=[f"{host}/conf/fifo:/x"])
    os.unlink(host / "conf/fifo")
    with pytest.raises(UsageError, match="add /x: another addition makes it a directory"):
        store.commit(tree, "app:1", additions=[f"{host}/conf:/x", f"{host}/tool:/x"])
    with pytest.raises(FileNotFoundError):
        store.commit(tree, "app:1", additions=[f"{host}/none:/conf"])
    assert store.images() == []
    assert os.listdir(tmp_path / "store/ingest") == []
