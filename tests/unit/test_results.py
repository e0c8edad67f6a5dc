"""What calls return: values that can be pickled, copied, hashed, shown in a line, and turned into what `--json` prints."""

from __future__ import annotations

import copy
import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import ocidiff
from ocidiff.cli.main import main
from ocidiff.frozen import FrozenMapping
from ocidiff.layer.options import EngineName

Output = pytest.CaptureFixture[str]


@pytest.fixture
def results(tmp_path: Path, engine_name: EngineName) -> dict[str, object]:
    """One value of each kind that calls return."""
    lower, upper, target = tmp_path / "lower", tmp_path / "upper", tmp_path / "target"
    for directory in (lower, upper, target):
        directory.mkdir()
    (upper / "file").write_text("x")
    layer = ocidiff.diff(lower, upper, tmp_path / "layer.tar.gz", engine=engine_name)
    applied = ocidiff.apply(tmp_path / "layer.tar.gz", target, engine=engine_name)
    index = ocidiff.index(upper, tmp_path / "index", engine=engine_name)
    with ocidiff.Store.open(tmp_path / "store") as store:
        image = store.commit(upper, "app:v1", engine=engine_name)
        return {
            "layer": layer,
            "change": next(iter(ocidiff.changes(lower, upper, engine=engine_name))),
            "applied": applied,
            "index": index,
            "image": image,
            "read image": store.unpack("app:v1", tmp_path / "out"),
            "record": store.images()[0],
            "descriptor": store.resolve("app:v1"),
            "step": store.history("app:v1")[0][0],
            "container": store.create("app:v1", "work", driver="directory"),
            "collected": store.collect(),
            "verified": store.verify(),
            "options": ocidiff.DiffOptions(exclude=["*.pyc"]),
        }


def _digest_of(image: ocidiff.Image) -> str:
    return image.digest


def test_results_are_pickled_copied_and_hashed(results: dict[str, object]) -> None:
    for name, value in results.items():
        assert pickle.loads(pickle.dumps(value)) == value, name
        assert copy.deepcopy(value) == value, name
        assert hash(copy.copy(value)) == hash(value), name


def test_results_go_to_another_process_and_come_back(results: dict[str, object]) -> None:
    image = results["image"]
    assert isinstance(image, ocidiff.Image)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_digest_of, image).result() == image.descriptor.digest


def test_results_are_turned_into_json(results: dict[str, object]) -> None:
    for name, value in results.items():
        if name not in {"descriptor", "step", "options"}:
            document = value.to_dict()  # type: ignore[attr-defined]
            assert json.loads(json.dumps(document)) == document, name


def test_a_result_is_shown_in_a_line(results: dict[str, object]) -> None:
    for name in ("image", "read image", "container", "descriptor"):
        assert len(repr(results[name])) < 250, name
    image = results["image"]
    assert isinstance(image, ocidiff.Image)
    assert repr(image).startswith(f"<Image app:v1 {image.digest} linux/")
    container = results["container"]
    assert isinstance(container, ocidiff.Container)
    assert repr(container) == f"<Container work of app:v1, directory, {container.mount_point}>"


def test_the_command_prints_what_the_call_returns(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    tree, store = tmp_path / "tree", tmp_path / "store"
    tree.mkdir()
    (tree / "file").write_text("x")

    def without_time(document: dict[str, object]) -> dict[str, object]:
        return {name: timeless(value) for name, value in document.items() if name != "seconds"}

    def timeless(value: object) -> object:
        if isinstance(value, list):
            return [timeless(one) for one in value]
        return without_time(value) if isinstance(value, dict) else value

    assert main(["commit", str(tree), "app:v1", "--store", str(store), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    with ocidiff.Store.open(store) as opened:
        assert without_time(opened.commit(tree, "app:v1").to_dict()) == without_time(printed)
        main(["images", "--store", str(store), "--json"])
        assert [record.to_dict() for record in opened.images()] == [json.loads(capsys.readouterr().out)]
        main(["gc", "--dry-run", "--store", str(store), "--json"])
        assert {"dryRun": True, **opened.collect(dry_run=True).to_dict()} == json.loads(capsys.readouterr().out)
        main(["verify", "--store", str(store), "--json"])
        assert opened.verify().to_dict() == json.loads(capsys.readouterr().out)


def test_a_frozen_mapping_is_a_mapping_that_nobody_changes() -> None:
    source = {"a": [1]}
    frozen = FrozenMapping(source)
    source["b"] = []
    assert frozen == {"a": [1]}
    assert dict(frozen) == {"a": [1]}
    assert "a" in frozen
    assert "b" not in frozen
    assert repr(frozen) == "{'a': [1]}"
    assert hash(frozen) == hash(FrozenMapping({"a": [1]}))
    with pytest.raises(TypeError):
        frozen["c"] = []  # type: ignore[index]
