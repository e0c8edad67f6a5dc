"""A batch makes the images of single commits, and one bad line, a full budget or an earlier run touches no other line."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.embedded import batch
from ocidiff.embedded.batch_line import LineCommitter
from ocidiff.errors import NotFoundError, UsageError
from ocidiff.image import stamp
from ocidiff.image.batch_lines import Line
from ocidiff.layer.options import DiffOptions
from ocidiff.store.embedded import EmbeddedStore
from support.peaks import peak_growth

EPOCH = 1_700_000_000


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # What has just been written counts as settled.
    monkeypatch.setattr(stamp, "_TICK_NS", 0)
    Path("lower/etc").mkdir(parents=True)
    Path("lower/etc/hosts").write_text("lower")
    Path("lower/etc/old").write_text("old")


@pytest.fixture
def store() -> Iterator[EmbeddedStore]:
    with ocidiff.Store.open("store") as opened:
        opened.commit("./lower", "base:1", source_date_epoch=EPOCH)
        yield opened


def upper(number: int, content: str = "") -> str:
    place = Path("uppers", str(number), "etc")
    place.mkdir(parents=True)
    (place / "new").write_text(content or f"new {number}")
    return str(place.parent)


def lines(*given: object) -> str:
    path = Path("lines.jsonl")
    path.write_bytes(b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in given))
    return str(path)


def some(count: int) -> list[dict[str, Any]]:
    return [{"upper": upper(number), "name": f"app:{number}", "changes": [f"ENV N={number}"]} for number in range(count)]


Results = dict[int, ocidiff.BatchResult]


def run(store: EmbeddedStore, given: Iterable[object], **options: Any) -> tuple[Results, ocidiff.BatchSummary]:
    found: Results = {}

    def take(result: ocidiff.BatchResult) -> None:
        assert result.line not in found
        found[result.line] = result

    told: dict[str, Any] = {"base": "base:1", "source_date_epoch": EPOCH} | options
    summary = store.batch(lines(*given), take, **told)
    assert os.listdir("store/ingest") == os.listdir("store/leases") == []
    return found, summary


def digests(results: Results) -> dict[str, object]:
    return {result.name: result.digest for result in results.values()}


def test_images_are_those_of_single_commits(store: EmbeddedStore) -> None:
    results, summary = run(store, some(5))
    assert summary == ocidiff.BatchSummary(made=5)
    assert summary.is_done
    Path("tree").mkdir()
    with ocidiff.Store.open("single") as single:
        store.copy("base:1", "oci:copied:base")
        single.copy("oci:copied:base", "base:1")
        for number in range(5):
            tree = Path("tree", str(number))
            single.unpack("base:1", tree)
            (tree / "etc/new").write_text(f"new {number}")
            for name in ("etc/new", "etc", "."):
                os.utime(tree / name, ns=(0, Path("uppers", str(number), name).stat().st_mtime_ns))
            made = single.commit(tree, f"app:{number}", base="base:1", changes=[f"ENV N={number}"], source_date_epoch=EPOCH)
            assert made.digest == results[number + 1].digest
            assert store.resolve(f"app:{number}").digest == made.digest
    assert not store.verify().faults


def test_directories_and_containers_are_sources_too(store: EmbeddedStore) -> None:
    store.create("base:1", "work", driver="directory")
    Path(store.containers.mount("work"), "made").touch()
    Path("changed/etc").mkdir(parents=True)
    given = [{"source": "work", "name": "a"}, {"source": "./changed", "name": "b"}, {"source": "nobody", "name": "c"}]
    results, _ = run(store, given)
    assert [results[number].status for number in (1, 2, 3)] == ["made", "made", "failed"]
    assert "no working container 'nobody'" in results[3].error
    assert results[1].digest == store.commit(store.container("work"), "again", source_date_epoch=EPOCH).digest
    assert results[2].digest == store.commit("changed", "again", base="base:1", source_date_epoch=EPOCH).digest
    again, _ = run(store, given)
    assert [again[number].status for number in (1, 2, 3)] == ["present", "present", "failed"]
    Path(store.containers.mount("work"), "more").touch()
    again, _ = run(store, given)
    assert [again[number].status for number in (1, 2)] == ["made", "present"]


def test_a_bad_line_fails_alone(store: EmbeddedStore) -> None:
    good = some(3)
    given = [
        good[0],
        b"{\n",
        b"\xff\n",
        b"x" * (3 << 20) + b"\n",
        b"\n",
        good[1],
        {"upper": "nowhere", "name": "x"},
        {"upper": good[0]["upper"], "name": "NO NAME"},
        {"upper": good[0]["upper"], "name": "y", "changes": ["NONSENSE 1"]},
        {"upper": good[0]["upper"], "name": "z", "more": 1},
        good[2],
    ]
    results, summary = run(store, given)
    assert summary == ocidiff.BatchSummary(made=3, failed=7)
    assert not summary.is_done
    assert str(summary) == "3 made, 7 failed"
    assert {number for number, result in results.items() if result.status == "made"} == {1, 6, 11}
    assert all(result.error and "\n" not in result.error for result in results.values() if result.status == "failed")
    assert 5 not in results
    assert len(store.images()) == 4


def test_the_first_of_two_equal_names_gets_it_in_every_shard(store: EmbeddedStore) -> None:
    one, other = upper(1), upper(2)
    given = [
        {"upper": one, "name": "app:1"},
        {"upper": other, "name": "docker.io/library/app:1"},
        {"upper": other, "name": "app:2"},
    ]
    results, _ = run(store, given, shard="1/2")
    assert set(results) == {2}
    assert "an earlier line has it too" in results[2].error
    results, _ = run(store, given)
    assert [results[number].status for number in (1, 2, 3)] == ["made", "failed", "made"]


def test_a_line_is_skipped_until_its_input_changes(store: EmbeddedStore) -> None:
    given = some(4)
    first, _ = run(store, given)
    again, summary = run(store, given)
    assert summary == ocidiff.BatchSummary(present=4)
    assert digests(again) == digests(first)
    time.sleep(0.02)
    Path("uppers/0/etc/new").write_text("NEW 0")
    given[1]["changes"] = ["ENV N=other"]
    store.untag("app:2")
    store.tag("app:0", "app:3")
    third, summary = run(store, given)
    assert summary == ocidiff.BatchSummary(made=4)
    assert third[3].digest == first[3].digest
    assert third[4].digest == first[4].digest
    assert third[1].digest != first[1].digest
    fourth, summary = run(store, given, level=1)
    assert summary == ocidiff.BatchSummary(made=4)
    store.commit("./lower", "base:1", changes=["ENV BASE=2"])
    fifth, summary = run(store, given, level=1)
    assert summary == ocidiff.BatchSummary(made=4)
    assert set(digests(fourth).values()).isdisjoint(digests(fifth).values())


def test_an_image_that_lost_a_blob_is_made_again(store: EmbeddedStore) -> None:
    given = some(1)
    first, _ = run(store, given)
    image = first[1].image
    assert image is not None
    Path("store/blobs/sha256", image.layers[0].descriptor.digest.hex).unlink()
    again, summary = run(store, given)
    assert summary == ocidiff.BatchSummary(made=1)
    assert again[1].digest == first[1].digest
    assert not store.verify().faults


def test_a_tree_that_has_just_changed_is_not_taken_for_settled(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamp, "_TICK_NS", 3_600_000_000_000)
    given = some(1)
    run(store, given)
    _, summary = run(store, given)
    assert summary == ocidiff.BatchSummary(made=1)


def test_equal_uppers_share_one_layer(store: EmbeddedStore) -> None:
    given = []
    for number in range(6):
        path = upper(number, "the same")
        for place in (Path(path, "etc/new"), Path(path, "etc"), Path(path)):
            os.utime(place, (EPOCH, EPOCH))
        given.append({"upper": path, "name": f"app:{number}"})
    before = len(os.listdir("store/blobs/sha256"))
    results, _ = run(store, given)
    assert len(set(digests(results).values())) == 1
    # A layer, a configuration and a manifest.
    assert len(os.listdir("store/blobs/sha256")) == before + 3
    assert run(store, given)[1] == ocidiff.BatchSummary(present=6)


def test_two_shards_give_the_digests_of_one_run(store: EmbeddedStore) -> None:
    given = some(9)
    whole = digests(run(store, given)[0])
    with ocidiff.Store.open("other") as other:
        store.copy("base:1", "oci:copied:base")
        other.copy("oci:copied:base", "base:1")
        parts: list[Results] = [{}, {}]
        path = lines(*given)

        def shard(index: int) -> None:
            other.batch(
                path,
                lambda result: parts[index].update({result.line: result}),
                base="base:1",
                shard=f"{index}/2",
                source_date_epoch=EPOCH,
            )

        threads = [threading.Thread(target=shard, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert digests(parts[0]) | digests(parts[1]) == whole
        assert set(parts[0]) == {1, 3, 5, 7, 9}
        assert {image.name: image.digest for image in other.images() if image.name != "base:1"} == whole
        assert not other.verify().faults


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_the_digests_do_not_depend_on_how_many_run_at_once(
    slots: int, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = some(12)
    whole = digests(run(store, given)[0])
    for number in range(12):
        store.untag(f"app:{number}")
    monkeypatch.setattr(batch, "slots_of", lambda *_: (slots, None))
    assert digests(run(store, given)[0]) == whole


def test_the_disk_budget_stops_the_run_and_the_next_one_goes_on(store: EmbeddedStore) -> None:
    given = []
    for number in range(6):
        path = upper(number)
        Path(path, "large").write_bytes(os.urandom(300_000))
        given.append({"upper": path, "name": f"app:{number}"})
    results, summary = run(store, given, disk_bytes=1_000_000)
    assert summary.made == 3
    assert summary.stopped >= 1
    assert not summary.is_done
    stopped = [result for result in results.values() if result.status == "stopped"]
    assert all("the disk budget of 1.0 MB is used up" in result.error for result in stopped)
    assert len(store.images()) == 4
    assert not store.verify().faults
    results, summary = run(store, given)
    assert (summary.present, summary.made) == (3, 3)


@pytest.mark.parametrize("name", ["oci:out:{}", "app:{}"])
def test_what_the_store_has_does_not_count_against_the_disk_budget(name: str, store: EmbeddedStore) -> None:
    given: list[dict[str, Any]] = []
    for number in range(3):
        path = upper(number)
        Path(path, "large").write_bytes(os.urandom(300_000))
        given.append({"upper": path, "name": name.format(number)})
    assert run(store, given)[1].made == 3
    for number in range(3):
        given[number]["changes"] = ["ENV AGAIN=1"]
    # Two are written at once, each as long as its layer.
    assert run(store, given, disk_bytes=700_000)[1] == ocidiff.BatchSummary(made=3)


def test_blobs_of_containers_count_against_the_disk_budget(store: EmbeddedStore) -> None:
    given = []
    for number in range(5):
        store.create("base:1", f"work{number}", driver="directory")
        Path(store.containers.mount(f"work{number}"), "large").write_bytes(os.urandom(300_000))
        given.append({"source": f"work{number}", "name": f"app:{number}"})
    _, summary = run(store, given, disk_bytes=700_000)
    assert summary.made <= 3
    assert summary.stopped >= 1


def test_a_line_that_fails_spends_what_it_left(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotFoundError("refused")

    monkeypatch.setattr("ocidiff.store.publish.copy", refuse)
    given = []
    for number in range(5):
        path = upper(number)
        Path(path, "large").write_bytes(os.urandom(300_000))
        given.append({"upper": path, "name": f"oci:out:{number}"})
    _, summary = run(store, given, disk_bytes=700_000)
    assert summary.failed <= 3
    assert summary.stopped >= 1


@pytest.mark.parametrize("base", [None, "scratch"])
def test_lower_needs_a_base(base: str | None, store: EmbeddedStore) -> None:
    with pytest.raises(UsageError, match="lower 'lower': needs a base"):
        run(store, some(2), base=base, lower="lower")
    assert [image.name for image in store.images()] == ["base:1"]


def test_upper_needs_the_tree_of_a_base(store: EmbeddedStore) -> None:
    given = some(1)
    for base in (None, "scratch"):
        results, _ = run(store, given, base=base)
        assert results[1].error == "upper: needs a base; give --base"
    ocidiff.index("lower", "index")
    results, _ = run(store, given, lower="index:index")
    assert "not an index" in results[1].error
    results, _ = run(store, given, lower="lower")
    assert results[1].status == "made"


def test_a_missing_base_ends_the_run(store: EmbeddedStore) -> None:
    with pytest.raises(NotFoundError, match="nothing:1"):
        run(store, some(2), base="nothing:1")
    layer = store.inspect("base:1")["manifest"]
    assert isinstance(layer, dict)
    Path("store/blobs/sha256", layer["layers"][0]["digest"].partition(":")[2]).unlink()
    with pytest.raises(NotFoundError, match="run it again"):
        run(store, [{"upper": "uppers/0", "name": "x"}])


def test_a_failure_of_the_reader_ends_the_run(store: EmbeddedStore) -> None:
    def take(_: ocidiff.BatchResult) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        store.batch(lines(*some(9)), take, base="base:1")
    assert not store.verify().faults
    assert run(store, some_again(9))[1].is_done


def some_again(count: int) -> list[dict[str, Any]]:
    return [{"upper": f"uppers/{number}", "name": f"app:{number}"} for number in range(count)]


def test_a_cancelled_run_tells_what_is_left(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, begun, cancelled = ocidiff.Cancellation(), threading.Event(), threading.Event()
    commit = LineCommitter.commit

    def held(self: LineCommitter, line: Line, *rest: Any) -> Any:
        if line.number == 2:
            begun.set()
            assert cancelled.wait(60)
        return commit(self, line, *rest)

    def take(result: ocidiff.BatchResult) -> None:
        found[result.line] = result
        if result.line == 1:
            assert begun.wait(60)
            cancel.cancel()
            cancelled.set()

    found: Results = {}
    monkeypatch.setattr(LineCommitter, "commit", held)
    given = some(3)
    summary = store.batch(lines(*given), take, base="base:1", source_date_epoch=EPOCH, cancel=cancel)
    assert found[1].status == "made"
    assert (found[2].status, found[2].name, found[2].digest, found[2].error) == ("stopped", "app:1", None, "cancelled")
    # The third line may be made, or stopped, or not be begun.
    assert summary.made + summary.stopped == len(found)
    assert summary.stopped >= 1
    assert not summary.is_done
    assert run(store, given)[1] == ocidiff.BatchSummary(present=summary.made, made=3 - summary.made)


def test_options_out_of_range_are_refused_before_a_line_is_read(store: EmbeddedStore) -> None:
    for wrong in ({"shard": "9"}, {"level": 99}, {"platform": "x/y/z/w"}, {"layers": 0}, {"layers": 17}):
        with pytest.raises(UsageError):
            run(store, [], **wrong)


@pytest.mark.parametrize(
    ("options", "cores", "layers", "slots"),
    [
        (DiffOptions(), 1, 1, 1),
        (DiffOptions(), 2, 1, 2),
        (DiffOptions(), 64, 1, 2),
        (DiffOptions(memory_bytes=1 << 30), 64, 1, 4),
        (DiffOptions(memory_bytes=48 << 20), 64, 1, 1),
        (DiffOptions(compression="zstd"), 2, 1, 2),  # type: ignore[arg-type]  # words are taken too
        (DiffOptions(compression="zstd"), 64, 1, 3),  # type: ignore[arg-type]  # words are taken too
        (DiffOptions(compression="zstd"), 64, 16, 1),  # type: ignore[arg-type]  # words are taken too
        (DiffOptions(compression="zstd", level=19), 64, 1, 1),  # type: ignore[arg-type]  # words are taken too
        (DiffOptions(), 64, 2, 2),
        (DiffOptions(), 64, 16, 1),
        (DiffOptions(memory_bytes=1 << 30), 64, 16, 4),
        (DiffOptions(compression="zstd", memory_bytes=1 << 30), 64, 2, 4),  # type: ignore[arg-type]  # words are taken too
    ],
)
def test_slots_share_the_memory(options: DiffOptions, cores: int, layers: int, slots: int) -> None:
    count, memory = batch.slots_of(options, cores, layers)
    assert count == slots
    if count == 1:
        assert memory == options.memory_bytes
    else:
        assert memory is not None
        shared, default = 34 << 20, (192 if options.compression == "zstd" else 128) << 20
        # All of it, but for what the division leaves.
        assert 0 <= (options.memory_bytes or default) - (shared + count * (memory - shared)) < count


def test_memory_does_not_grow_with_the_lines(store: EmbeddedStore) -> None:
    assert store
    before = """
import ocidiff

def run(count):
    with open("many.jsonl", "w") as file:
        file.writelines(f'{{"upper": "nowhere", "name": "app:{n}"}}\\n' for n in range(count))
    assert store.batch("many.jsonl", lambda _: None, base="base:1").failed == count

store = ocidiff.Store.open("store")
run(2_000)
"""
    # 30,000 lines more, at 32 bytes for each name.
    assert peak_growth(before, "run(32_000)") < 6 << 20


def test_another_platform_or_lower_tree_is_another_input(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("same")
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent/file").write_text("same")
    for path in ("source/file", "parent/file", "source", "parent"):
        os.utime(tmp_path / path, (5000, 5000))
    time.sleep(2.1)
    lines = tmp_path / "lines"
    lines.write_text(json.dumps({"source": str(tmp_path / "source"), "name": "a:1"}))
    with EmbeddedStore.open(tmp_path / "own") as store:
        store.commit(tmp_path / "parent", "base:1")

        def status(**options: Any) -> str:
            found: list[ocidiff.BatchResult] = []
            store.batch(lines, found.append, source_date_epoch=9, **options)
            return found[0].status

        assert [status(platform=name) for name in ("linux/amd64", "linux/amd64", "linux/arm64")] == [
            "made",
            "present",
            "made",
        ]
        lower = {"base": "base:1", "lower": tmp_path / "parent"}
        assert [status(**lower), status(**lower)] == ["made", "present"]
        (tmp_path / "parent/file").write_text("other")
        assert status(**lower) == "made"
