"""A tree that an unpacking has left half written is refused by whatever takes a tree: it would look like a whole one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ocidiff
from ocidiff.cli.main import main
from ocidiff.embedded.drivers.select import DriverName
from ocidiff.errors import UnrepresentableError
from ocidiff.layer.incomplete import INCOMPLETE
from support import probes

Output = pytest.CaptureFixture[str]
TAKE_A_TREE = (
    ["diff", "scratch", "TREE", "-o", "LAYER"],
    ["diff", "TREE", "WHOLE", "-o", "LAYER"],
    ["diff", "--upperdir", "TREE", "--lowerdir", "WHOLE", "-o", "LAYER"],
    ["diff", "--upperdir", "WHOLE", "--lowerdir", "TREE", "-o", "LAYER"],
    ["changes", "scratch", "TREE"],
    ["changes", "TREE", "WHOLE"],
    ["changes", "--exit-code", "TREE", "WHOLE"],
    ["index", "TREE", "-o", "LAYER"],
    ["apply", "OLD", "TREE"],
    ["commit", "TREE", "new:1"],
    ["commit", "WHOLE", "new:1", "--base", "base:1", "--lower", "TREE"],
)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A tree that is not whole, one that is, a layer, and an image in the store."""
    found = {name: tmp_path / name.lower() for name in ("TREE", "WHOLE", "OLD", "LAYER")}
    found["WHOLE"].mkdir()
    (found["WHOLE"] / "f").write_text("1")
    ocidiff.diff(None, found["WHOLE"], found["OLD"])
    monkeypatch.setenv("OCIDIFF_STORE", str(tmp_path / "store"))
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.commit(found["WHOLE"], "base:1")
    (found["TREE"] / INCOMPLETE / "half").mkdir(parents=True)
    return found


@pytest.mark.parametrize("words", TAKE_A_TREE, ids=" ".join)
def test_a_command_refuses_it_and_says_what_to_do(words: list[str], places: dict[str, Path], capsys: Output) -> None:
    assert main([str(places[word]) if word in places else word for word in words]) == (2 if "--exit-code" in words else 1)
    told = capsys.readouterr()
    assert f"{places['TREE']}: is not whole" in told.err
    assert told.err.endswith("run unpack again\n")
    assert told.err.count("\n") == 1
    assert not places["LAYER"].exists()
    assert os.listdir(places["TREE"]) == [INCOMPLETE]


def test_unpack_mends_it(places: dict[str, Path], tmp_path: Path) -> None:
    assert main(["unpack", "base:1", str(places["TREE"])]) == 0
    assert main(["diff", str(places["WHOLE"]), str(places["TREE"]), "-o", str(tmp_path / "layer")]) == 0


@pytest.mark.parametrize("driver", ["directory", "overlay"])
def test_a_container_that_has_the_mark_is_not_committed(driver: DriverName, places: dict[str, Path], tmp_path: Path) -> None:
    if driver == "overlay" and not probes.is_root():
        probes.missing("needs root")
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.create("base:1", "work", driver=driver)
        root = Path(store.containers.mount("work"))
        (root / INCOMPLETE).mkdir()
        with pytest.raises(UnrepresentableError, match="is not whole"):
            store.commit(store.containers.get("work"), "new:1")
        (root / INCOMPLETE).rmdir()
        store.commit(store.containers.get("work"), "new:1")
        store.containers.umount("work")
        store.containers.remove("work")


def test_a_mark_that_a_layer_of_an_overlay_deletes_is_none(places: dict[str, Path], tmp_path: Path) -> None:
    from ocidiff.layer.incomplete import refuse_incomplete

    if not probes.is_root():
        probes.missing("needs root")
    (tmp_path / "upper").mkdir()
    os.mknod(tmp_path / "upper" / INCOMPLETE, 0o020000)
    layers = [os.fsencode(tmp_path / "upper"), os.fsencode(places["TREE"])]
    refuse_incomplete(*layers)
    with pytest.raises(UnrepresentableError):
        refuse_incomplete(*reversed(layers))
