"""A batch of split changes makes the images of single commits, stores equal layers once, and goes on as any other batch."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.embedded import batch
from ocidiff.image import stamp
from ocidiff.image.layers import LocalDiffer
from ocidiff.layer.pure.partition import Partition
from ocidiff.store.embedded import EmbeddedStore

EPOCH = 1_700_000_000
LAYERS = 4
NAMES = "abcdefghij"


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # What has just been written counts as settled.
    monkeypatch.setattr(stamp, "_TICK_NS", 0)
    Path("lower/etc").mkdir(parents=True)
    Path("lower/etc/hosts").write_text("lower")


@pytest.fixture
def store() -> Iterator[EmbeddedStore]:
    with ocidiff.Store.open("store") as opened:
        opened.commit("./lower", "base:1", source_date_epoch=EPOCH)
        yield opened


def some(count: int, size: int = 3000) -> list[dict[str, Any]]:
    """Lines whose trees have one file of their own, and the same files in all layers."""
    given = []
    common = {name: os.urandom(size) for name in NAMES}
    for number in range(count):
        tree = Path("trees", str(number))
        for name, data in common.items():
            (tree / "usr" / name).mkdir(parents=True)
            (tree / "usr" / name / "file").write_bytes(data)
        (tree / "usr/a/own").write_text(str(number))
        for path in sorted(tree.rglob("*"), reverse=True):
            os.utime(path, (EPOCH, EPOCH))
        given.append({"source": f"./{tree}", "name": f"app:{number}"})
    return given


def run(store: EmbeddedStore, given: list[dict[str, Any]], **options: Any) -> tuple[dict[str, ocidiff.BatchResult], str]:
    Path("lines").write_text("".join(json.dumps(line) + "\n" for line in given))
    found: dict[str, ocidiff.BatchResult] = {}
    told: dict[str, Any] = {"base": "base:1", "source_date_epoch": EPOCH, "layers": LAYERS} | options
    summary = store.batch("lines", lambda result: found.update({result.name: result}), **told)
    assert os.listdir("store/ingest") == os.listdir("store/leases") == []
    return found, str(summary)


def layers_of(result: ocidiff.BatchResult) -> list[str]:
    assert result.image is not None
    return [layer.descriptor.digest for layer in result.image.layers]


@pytest.mark.parametrize("slots", [1, 4])
def test_images_are_those_of_single_commits(store: EmbeddedStore, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "slots_of", lambda *_: (slots, None))
    given = some(6)
    found, _ = run(store, given)
    with ocidiff.Store.open("single") as single:
        single.commit("./lower", "base:1", source_date_epoch=EPOCH)
        for line in given:
            how: dict[str, Any] = {"base": "base:1", "source_date_epoch": EPOCH, "layers": LAYERS}
            made = single.commit(line["source"], line["name"], **how)
            assert (found[line["name"]].digest, len(made.layers)) == (made.digest, LAYERS)
            assert layers_of(found[line["name"]]) == [layer.descriptor.digest for layer in made.layers]
    assert not store.verify().faults


def test_uppers_and_containers_are_split_too(store: EmbeddedStore) -> None:
    (line,) = some(1)
    line["upper"] = line.pop("source")
    store.create("base:1", "work", driver="directory")
    for name in NAMES:
        Path(store.containers.mount("work"), name).mkdir()
        Path(store.containers.mount("work"), name, "file").touch()
    found, _ = run(store, [line, {"source": "work", "name": "work:1"}])
    assert {len(layers_of(result)) for result in found.values()} == {LAYERS}
    again = store.commit(store.container("work"), "again", source_date_epoch=EPOCH, layers=LAYERS)
    assert found["work:1"].digest == again.digest


def test_equal_layers_are_stored_once(store: EmbeddedStore) -> None:
    before = len(os.listdir("store/blobs/sha256"))
    found, _ = run(store, some(6))
    layers = [layers_of(result) for result in found.values()]
    different = set().union(*layers)
    # The layer of what each has for itself, and the others.
    assert len(different) == 6 + LAYERS - 1
    # Each image has a configuration and a manifest.
    assert len(os.listdir("store/blobs/sha256")) == before + len(different) + 2 * 6


def test_layers_of_earlier_runs_are_not_written_again(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    given = some(4)
    first, _ = run(store, given)
    assert run(store, given)[1] == "4 present"
    written = list[int]()
    split = LocalDiffer.split

    def watched(self: LocalDiffer, lower: Any, upper: Any, wanted: list[bool], *rest: Any) -> Any:
        written.append(sum(wanted))
        return split(self, lower, upper, wanted, *rest)

    monkeypatch.setattr(LocalDiffer, "split", watched)
    for number in range(4):
        Path("trees", str(number), "usr/a/own").write_text(f"again {number}")
        given[number]["name"] = f"later:{number}"
    later, summary = run(store, given)
    assert (summary, written) == ("4 made", [1] * 4)
    for number in range(4):
        assert len(set(layers_of(first[f"app:{number}"])) & set(layers_of(later[f"later:{number}"]))) == LAYERS - 1


def test_another_number_of_layers_is_another_input(store: EmbeddedStore) -> None:
    given = some(2)
    assert [run(store, given, layers=layers)[1] for layers in (1, 1, 4, 4, 5)] == [
        "2 made",
        "2 present",
        "2 made",
        "2 present",
        "2 made",
    ]


def test_shards_give_the_digests_of_one_run(store: EmbeddedStore) -> None:
    given = some(5)
    whole = {name: result.digest for name, result in run(store, given)[0].items()}
    with ocidiff.Store.open("other") as other:
        other.commit("./lower", "base:1", source_date_epoch=EPOCH)
        parts: dict[str, object] = {}
        for index in range(2):
            how: dict[str, Any] = {"base": "base:1", "source_date_epoch": EPOCH, "layers": LAYERS}
            other.batch("lines", lambda one: parts.update({one.name: one.digest}), shard=f"{index}/2", **how)
    assert parts == whole


def test_a_change_that_is_measured_takes_nothing_of_the_disk_budget(store: EmbeddedStore) -> None:
    given = some(3, size=100_000)
    partition = Partition(LAYERS)
    together = [name for name in NAMES if partition.of(f"usr/{name}/file".encode(), 0) == partition.of(b"usr/a/own", 0)]
    for number in range(3):
        for name in together:
            Path("trees", str(number), "usr", name, "file").write_text("small")
    run(store, given)
    for number in range(3):
        Path("trees", str(number), "usr/a/own").write_text(f"again {number}")
    # The change has 500 kB or more, and the layer that is new is small.
    assert len(NAMES) - len(together) >= 5
    assert run(store, given, disk_bytes=300_000)[1] == "3 made"


def test_the_disk_budget_stops_a_run_and_the_next_one_goes_on(store: EmbeddedStore) -> None:
    given = some(4)
    for number in range(4):
        Path("trees", str(number), "usr/a/large").write_bytes(os.urandom(300_000))
    _, summary = run(store, given, disk_bytes=700_000)
    assert "stopped" in summary
    assert not store.verify().faults
    assert "failed" not in run(store, given)[1]
    assert run(store, given)[1] == "4 present"


def test_descriptors_are_bounded_for_many_layers(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    given = some(100, size=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    publish = batch.BatchThreads._publish_group

    def slow(self: Any, group: Any) -> None:
        assert sum(len(done.pending.blobs.found) for done in group) <= batch._GROUP_FILES
        publish(self, group)

    monkeypatch.setattr(batch.BatchThreads, "_publish_group", slow)
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, hard))
    try:
        assert run(store, given, layers=16)[1] == "100 made"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
