"""Commits of one change as several layers: which are written, which are taken as they are, and what is refused."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocidiff.cli.main import main
from ocidiff.embedded.layout import Layout
from ocidiff.errors import Cancelled, DigestMismatchError, UsageError
from ocidiff.image.layers import LocalDiffer
from ocidiff.layer.layer import Layer
from ocidiff.layer.monitor import Cancellation
from ocidiff.layer.options import Compression, EngineName, LayerOptions
from ocidiff.layer.pure.partition import LARGE_BYTES, Partition
from ocidiff.oci.descriptor import Descriptor
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support import overlays, probes, trees

LAYERS = 4
DIRECTORIES = [f"usr/{name}/lib" for name in "abcdefghij"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with files in every layer of the change."""
    changed = tmp_path / "changed"
    for number, name in enumerate(DIRECTORIES):
        (changed / name).mkdir(parents=True)
        (changed / name / "file").write_bytes(os.urandom(5000 + number))
        (changed / name / "empty").touch()
        # A time that no change of this test gives it again.
        os.utime(changed / name, (1, 1))
    assert {part_of(f"{name}/file") for name in DIRECTORIES} == set(range(LAYERS - 1))
    return changed


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The layers that each call has written."""
    calls, split = list[list[int]](), LocalDiffer.split

    def watched(self: LocalDiffer, lower: Any, upper: Any, wanted: Sequence[bool], *arguments: Any) -> Any:
        calls.append([number for number, is_wanted in enumerate(wanted) if is_wanted])
        return split(self, lower, upper, wanted, *arguments)

    monkeypatch.setattr(LocalDiffer, "split", watched)
    return calls


def part_of(path: str) -> int:
    return Partition(LAYERS).of(os.fsencode(path), 0)


def blobs(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    return [(layer.diff_id, layer.descriptor.digest) for layer in layers]


@pytest.mark.parametrize("compression", Compression)
def test_a_later_commit_writes_the_layers_that_it_touches(
    store: Store, tree: Path, written: list[list[int]], engine_name: EngineName, compression: Compression
) -> None:
    if engine_name == "pure" and compression is Compression.ZSTD and not probes.has_zstd_module():
        pytest.skip("no module for zstd")
    options: dict[str, Any] = {"layers": LAYERS, "compression": compression, "engine": engine_name}
    first = store.commit(tree, "app:v1", **options)
    with (tree / DIRECTORIES[0] / "file").open("ab") as file:
        file.write(b"more")
    second = store.commit(tree, "app:v2", **options)
    touched = part_of(f"{DIRECTORIES[0]}/file")
    assert written == [list(range(LAYERS)), [touched]]
    before, after = blobs(first.layers), blobs(second.layers)
    assert len(before) == LAYERS
    assert {number for number in range(LAYERS) if before[number] != after[number]} == {touched}
    assert [layer.reused_bytes == layer.uncompressed_size for layer in second.layers] == [
        number != touched for number in range(LAYERS)
    ]
    (tree / DIRECTORIES[1] / "new").write_text("new")
    third = store.commit(tree, "app:v3", **options)
    assert written[-1] == sorted({part_of(f"{DIRECTORIES[1]}/new"), LAYERS - 1})
    assert sum(layer.added for layer in third.layers) == sum(len(files) for _, files in contents(tree))
    store.unpack("app:v3", f"{tree}.out")
    trees.assert_same_tree(f"{tree}.out", tree, directory_times=True)


def contents(tree: Path) -> list[tuple[str, list[str]]]:
    return [(top, [*directories, *files]) for top, directories, files in os.walk(tree)]


def test_each_layer_tells_what_it_copied(store: Store, tree: Path, written: list[list[int]]) -> None:
    if not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    changed = {part_of(f"{name}/file"): tree / name for name in DIRECTORIES}
    for directory in changed.values():
        (directory / "large").write_bytes(os.urandom(300_000))
    store.commit(tree, "app:v1", layers=LAYERS)
    for directory in changed.values():
        (directory / "file").write_text("changed")
    layers = store.commit(tree, "app:v2", layers=LAYERS).layers
    assert written[-1] == sorted(changed)
    assert all(300_000 <= layers[number].reused_bytes < layers[number].uncompressed_size for number in changed)


def test_a_commit_of_the_same_tree_writes_nothing(store: Store, tree: Path, written: list[list[int]]) -> None:
    first = store.commit(tree, "app:v1", layers=LAYERS, source_date_epoch=1)
    assert store.commit(tree, "app:v2", layers=LAYERS, source_date_epoch=1).digest == first.digest
    assert written == [list(range(LAYERS))]


@pytest.mark.parametrize("options", [{"level": 1}, {"compression": "zstd"}, {"engine": "pure"}, {"layers": LAYERS + 1}])
def test_a_layer_that_is_compressed_in_another_way_is_not_taken(
    store: Store, tree: Path, written: list[list[int]], options: dict[str, Any]
) -> None:
    store.commit(tree, "app:v1", layers=LAYERS)
    changed = store.commit(tree, "app:v2", **{"layers": LAYERS, **options})
    assert written[-1] == list(range(len(changed.layers)))
    with Store.open(tree.parent / "other") as other:
        cold = other.commit(tree, "app:v2", **{"layers": LAYERS, **options})
    assert blobs(changed.layers) == blobs(cold.layers)


def test_a_layer_that_is_cut_off_is_not_taken(store: Store, tree: Path, tmp_path: Path, written: list[list[int]]) -> None:
    image = store.commit(tree, "app:v1", layers=LAYERS)
    blob = tmp_path / "store/blobs/sha256" / image.layers[0].descriptor.digest.hex
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1])
    again = store.commit(tree, "app:v2", layers=LAYERS)
    assert written[-1] == [0]
    assert blobs(again.layers) == blobs(image.layers)
    assert blob.read_bytes() == data


def test_verify_fails_at_a_damaged_layer_that_the_store_does_not_read(
    store: Store, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = store.commit(tree, "app:v1", layers=LAYERS)
    blob = tmp_path / "store/blobs/sha256" / image.layers[0].descriptor.digest.hex
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with monkeypatch.context() as patch:
        # As in containerd, which answers for the bytes of a blob.
        patch.setattr(Layout, "reads_blobs", False)
        patch.setattr(Layout, "is_intact", lambda *_: True)
        with pytest.raises(DigestMismatchError, match="is damaged in the store"):
            store.commit(tree, "app:v2", layers=LAYERS, verify=True)
    assert [record.name for record in store.images()] == ["app:v1"]
    store.commit(tree, "app:v2", layers=LAYERS, verify=True)
    assert blob.read_bytes() == data


def test_verify_reads_each_known_layer_once(
    store: Store, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = store.commit(tree, "app:v1", layers=LAYERS)
    read = Counter[str]()

    def counted(name: str) -> None:
        call = getattr(Layout, name)

        def count(self: Layout, descriptor: Descriptor, *arguments: Any) -> Any:
            read[descriptor.digest] += 1
            return call(self, descriptor, *arguments)

        monkeypatch.setattr(Layout, name, count)

    for name in ("is_intact", "open_blob"):
        counted(name)
    again = store.commit(tree, "app:v2", layers=LAYERS, verify=True)
    assert blobs(again.layers) == blobs(image.layers)
    assert {read[layer.descriptor.digest] for layer in again.layers} == {1}


def test_an_interrupt_reaches_the_reading_of_a_layer_that_the_store_does_not_read(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(tree, "app:v1", layers=LAYERS)
    cancel = Cancellation()
    monkeypatch.setattr(Layout, "reads_blobs", False)

    def is_intact(*_: object) -> bool:
        cancel.cancel()
        return True

    monkeypatch.setattr(Layout, "is_intact", is_intact)
    # Whatever reads the blobs must ask by itself, before the layers that are left are written.
    monkeypatch.setattr(LocalDiffer, "split", lambda *_: pytest.fail("not asked"))
    with pytest.raises(Cancelled):
        store.commit(tree, "app:v2", layers=LAYERS, verify=True, cancel=cancel)


@pytest.mark.parametrize("keeps", [True, False])
def test_layers_of_a_deleted_image_are_taken_until_they_are_collected(
    store: EmbeddedStore, tree: Path, written: list[list[int]], *, keeps: bool
) -> None:
    """A collection removes what no image has; what one has is known still."""
    first = store.commit(tree, "app:v1", layers=LAYERS)
    (tree / DIRECTORIES[0] / "file").write_text("changed")
    store.commit(tree, "app:v2", layers=LAYERS)
    store.untag("app:v1")
    if not keeps:
        store.untag("app:v2")
    store.collect()
    third = store.commit(tree, "app:v3", layers=LAYERS)
    assert len(written) == (2 if keeps else 3)
    assert len(set(blobs(third.layers)) & set(blobs(first.layers))) == LAYERS - 1
    store.unpack("app:v3", f"{tree}.out")
    trees.assert_same_tree(f"{tree}.out", tree, directory_times=True)
    assert not store.verify().faults


def test_without_reuse_every_layer_is_written(store: Store, tree: Path, written: list[list[int]]) -> None:
    first = store.commit(tree, "app:v1", layers=LAYERS)
    again = store.commit(tree, "app:v2", layers=LAYERS, reuse="never")
    assert written == [list(range(LAYERS))] * 2
    assert blobs(again.layers) == blobs(first.layers)
    assert not any(layer.reused_bytes for layer in again.layers)


def test_a_hard_link_between_the_two_readings_loses_no_file(
    store: Store, tree: Path, written: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of a file are in the layer of the first one, so that another first name moves them."""
    first, later = (
        DIRECTORIES[0],
        next(name for name in DIRECTORIES if part_of(f"{name}/x") != part_of(f"{DIRECTORIES[0]}/x")),
    )
    os.link(tree / later / "file", tree / later / "link")
    store.commit(tree, "app:v1", layers=LAYERS)
    (tree / later / "empty").write_text("changed")
    measure = LocalDiffer.measure

    def disturbed(self: LocalDiffer, *arguments: Any) -> Any:
        found = measure(self, *arguments)
        os.link(tree / later / "file", tree / first / "a first name")
        return found

    monkeypatch.setattr(LocalDiffer, "measure", disturbed)
    store.commit(tree, "app:v2", layers=LAYERS)
    assert written[-1] == list(range(LAYERS))
    store.unpack("app:v2", f"{tree}.out")
    trees.assert_same_tree(f"{tree}.out", tree, directory_times=True)


def test_a_file_that_becomes_large_between_the_two_readings_is_not_lost(
    store: Store, tree: Path, written: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file is in another layer than a small one of that path."""
    partition = Partition(LAYERS)
    growing = next(
        tree / name / "file"
        for name in DIRECTORIES
        if part_of(f"{name}/file") != partition.of(os.fsencode(f"{name}/file"), LARGE_BYTES)
    )
    os.truncate(growing, LARGE_BYTES - 1)
    store.commit(tree, "app:v1", layers=LAYERS)
    measure = LocalDiffer.measure

    def disturbed(self: LocalDiffer, *arguments: Any) -> Any:
        found = measure(self, *arguments)
        os.truncate(growing, LARGE_BYTES)
        return found

    monkeypatch.setattr(LocalDiffer, "measure", disturbed)
    (growing.parent / "empty").write_text("changed")
    store.commit(tree, "app:v2", layers=LAYERS)
    assert written[-1] == list(range(LAYERS))
    store.unpack("app:v2", f"{tree}.out")
    trees.assert_same_tree(f"{tree}.out", tree, directory_times=True)


def test_the_first_pass_is_timed_and_spools_in_the_store(
    store: Store, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(tree, "app:v1", layers=LAYERS)
    measure, spools = LocalDiffer.measure, list[str | None]()

    def slow(self: LocalDiffer, lower: Any, upper: Any, count: int, options: LayerOptions, *arguments: Any) -> Any:
        spools.append(options.spool)
        found = measure(self, lower, upper, count, options, *arguments)
        first, *others = found.layers
        assert first is not None
        return replace(found, layers=(replace(first, seconds=10_000), *others))

    monkeypatch.setattr(LocalDiffer, "measure", slow)
    for name in (None, *DIRECTORIES[:2]):
        if name is not None:
            (tree / name / "file").write_text("changed")
        first, *others = store.commit(tree, "app:v2", layers=LAYERS).layers
        assert 10_000 <= first.seconds < 20_000
        assert [layer.seconds for layer in others] == [0] * (LAYERS - 1)
    assert all(spool is not None and Path(spool).is_relative_to(tmp_path / "store") for spool in spools)
    assert len(spools) == 3


def test_one_layer_is_an_ordinary_commit(store: Store, tree: Path, engine_name: EngineName) -> None:
    options: dict[str, Any] = {"source_date_epoch": 1, "engine": engine_name}
    assert store.commit(tree, "app:v1", layers=1, **options).digest == store.commit(tree, "app:v2", **options).digest


def test_the_layers_grow_on_a_base(store: Store, tree: Path, tmp_path: Path, written: list[list[int]]) -> None:
    base = store.commit(tree, "base:v1")
    shutil.rmtree(tree / DIRECTORIES[3])
    (tree / DIRECTORIES[4] / "file").write_text("changed")
    (tree / DIRECTORIES[5] / "file").unlink()
    image = store.commit(tree, "app:v1", base="base:v1", layers=LAYERS, message="split")
    assert image.manifest.layers[0] == base.manifest.layers[0]
    assert [step.comment for step, layer in store.history("app:v1") if layer][1:] == ["split"] * len(image.layers)
    assert (sum(layer.deleted for layer in image.layers), sum(layer.modified for layer in image.layers)) == (2, 1)
    store.commit(tree, "app:v2", base="base:v1", layers=LAYERS)
    assert len(written) == 1
    store.unpack("app:v1", tmp_path / "out")
    trees.assert_same_tree(tmp_path / "out", tree, directory_times=True)


def test_without_a_change_there_is_no_layer(store: Store, tree: Path) -> None:
    store.commit(tree, "base:v1")
    image = store.commit(tree, "app:v1", base="base:v1", layers=LAYERS)
    assert (image.layers, image.layer, len(image.manifest.layers)) == ((), None, 1)


@pytest.mark.root
def test_a_container_is_committed_again(store: EmbeddedStore, tree: Path, tmp_path: Path, driver: Any) -> None:
    store.commit(tree, "base:v1")
    container = store.create("base:v1", "work", driver=driver)
    root = Path(store.containers.mount("work"))
    (root / DIRECTORIES[2] / "new").write_text("new")
    (root / DIRECTORIES[0] / "file").unlink()
    first = store.commit(container, "app:v1", layers=LAYERS)
    (root / DIRECTORIES[2] / "new").write_text("newer")
    second = store.commit(container, "app:v2", layers=LAYERS)
    same = set(blobs(first.layers)) & set(blobs(second.layers))
    assert len(same) == len(first.layers) - 1
    store.create("app:v2", "again", driver=driver)
    try:
        trees.assert_same_tree(store.containers.mount("again"), root, directory_times=True)
    finally:
        store.containers.umount("again")
        store.containers.umount("work")


@pytest.mark.root
def test_an_upper_directory_gives_the_layers_of_both_trees(store: Store, tree: Path, tmp_path: Path) -> None:
    if not overlays.can_mount():
        pytest.skip("cannot mount overlays")
    store.commit(tree, "base:v1")
    (tmp_path / "upper").mkdir()
    with overlays.mounted(tmp_path / "merged", [tree], tmp_path / "upper") as merged:
        (merged / DIRECTORIES[2] / "new").write_text("new")
        shutil.rmtree(merged / DIRECTORIES[0])
        found = [
            blobs(store.commit(merged, "app:v1", base="base:v1", lower=tree, layers=LAYERS, overlay=overlay).layers)
            for overlay in ("require", "never")
        ]
    assert found[0] == found[1]
    assert len(found[0]) > 1


@pytest.mark.parametrize("layers", [0, 17, -1, "2", True])
def test_a_number_of_layers_out_of_range_is_refused(store: Store, tree: Path, layers: Any) -> None:
    with pytest.raises(UsageError, match=r"^layers .*: must be 1 to 16$"):
        store.commit(tree, "app:v1", layers=layers)


@pytest.mark.parametrize("merge", [{"squash": True}, {"squash_last": 2}, {"max_layers": 3}])
def test_layers_are_not_split_and_merged(store: Store, tree: Path, merge: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^layers: cannot be combined with squash"):
        store.commit(tree, "app:v1", layers=2, **merge)
    store.commit(tree, "app:v1", layers=1, **merge)


def test_the_command_tells_each_layer(store: Store, tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["commit", str(tree), "app:v1", "--layers", str(LAYERS), "--store", str(tmp_path / "store"), "-v"]
    assert main(words) == 0
    assert capfd.readouterr().err.count("uncompressed; ") == LAYERS
    assert main(words) == 0
    assert capfd.readouterr().err.count("of it reused; ") == LAYERS
    assert main([*words, "--dry-run"]) == 0
    assert len(store.images()) == 1
    assert main([*words, "--layers", "17"]) == 2
