"""`ocidiff changes` of a container and of images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ocidiff
from ocidiff.cli.main import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a store with two images and a changed container `work`, and the directory `later`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCIDIFF_STORE", str(tmp_path / "store"))
    for name, text in (("early", "one"), ("later", "two")):
        Path(name, "etc").mkdir(parents=True)
        Path(name, "etc/hosts").write_text(text)
        Path(name, "etc/same").write_text("same")
        os.utime(f"{name}/etc/same", (1, 1))
    Path("early/old").touch()
    with ocidiff.Store.open("store") as store:
        store.commit("early", "app:v1")
        store.commit("later", "app:v2", base="app:v1")
        store.create("app:v1", "work", driver="directory")
        place = Path(store.containers.mount("work"))
    (place / "etc/new").touch()
    (place / "old").unlink()


@pytest.mark.parametrize("driver", ["directory", "overlay"])
def test_changes_of_a_container_are_what_a_commit_would_store(capsys: Output, driver: str, engine_name: str) -> None:
    if driver == "overlay":
        with ocidiff.Store.open("store") as store:
            try:
                store.create("app:v1", "over", driver="overlay")
            except (OSError, ocidiff.OcidiffError):
                pytest.skip("no overlay mounts here")
            place = Path(store.containers.mount("over"))
        (place / "etc/new").touch()
        (place / "old").unlink()
    name = "work" if driver == "directory" else "over"
    assert main(["changes", name, "--engine", engine_name]) == 0
    assert capsys.readouterr().out == "A /etc/new\nD /old\n"
    if driver == "overlay":
        assert main(["rm", "-f", "over"]) == 0


def test_changes_of_two_images_and_of_an_image_and_a_directory(capsys: Output, engine_name: str) -> None:
    for sides in (["app:v1", "app:v2"], ["app:v1", "later"], ["early", "app:v2"], ["early", "later"]):
        assert main(["changes", *sides, "--engine", engine_name]) == 0
        assert capsys.readouterr().out == "C /etc/hosts\nD /old\n", sides


def test_exit_code_works_for_images_and_containers(capsys: Output) -> None:
    assert main(["changes", "--exit-code", "app:v1", "app:v1"]) == 0
    assert main(["changes", "--exit-code", "work"]) == 1
    assert main(["changes", "--exit-code", "nobody"]) == 2
    assert "no working container 'nobody'" in capsys.readouterr().err


def test_a_missing_image_is_named_with_those_that_exist(capsys: Output) -> None:
    assert main(["changes", "app:v1", "app:v9"]) == 1
    assert "no image 'app:v9'" in (err := capsys.readouterr().err)
    assert "app:v1, app:v2" in err


def test_one_directory_is_not_enough(capsys: Output) -> None:
    assert main(["changes", "./early"]) == 2
    assert "the name of a working container" in capsys.readouterr().err


def test_nothing_is_left_in_the_store() -> None:
    before = sorted(Path("store").rglob("*"))
    assert main(["changes", "app:v1", "app:v2"]) == 0
    assert sorted(Path("store").rglob("*")) == before
