"""The commands of the store and of working containers: what they print, and when they fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ocidiff.cli.main import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """A store with the image `app:v1`."""
    monkeypatch.chdir(tmp_path)
    for name in ("OCIDIFF_ENGINE", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OCIDIFF_STORE", str(tmp_path / "store"))
    Path("rootfs/etc").mkdir(parents=True)
    Path("rootfs/etc/hosts").write_text("hosts\n")
    assert main(["commit", "./rootfs", "app:v1", "-m", "first"]) == 0
    capsys.readouterr()


def _out(capsys: Output, *words: str, status: int = 0) -> str:
    assert main(list(words)) == status
    return capsys.readouterr().out


def test_a_container_from_its_making_to_its_end(capsys: Output) -> None:
    assert _out(capsys, "create", "app:v1", "work", "--driver", "directory") == "work\n"
    place = _out(capsys, "mount", "work").strip()
    Path(place, "etc", "new").write_text("n")
    digest = _out(capsys, "commit", "work", "app:v2", "-m", "second").strip()
    assert digest.startswith("sha256:")
    listed = json.loads(_out(capsys, "ps", "--json"))
    assert {name: listed[name] for name in ("name", "image", "driver", "mountPoint")} == {
        "name": "work",
        "image": "app:v1",
        "driver": "directory",
        "mountPoint": place,
    }
    assert _out(capsys, "ps").splitlines()[0].split() == ["NAME", "IMAGE", "CREATED", "DRIVER", "MOUNTED", "AT"]
    assert _out(capsys, "umount", "work") == "work\n"
    assert _out(capsys, "rm", "work") == "work\n"
    assert _out(capsys, "ps", "--json") == ""
    assert [json.loads(line)["comment"] for line in _out(capsys, "history", "app:v2", "--json").splitlines()] == [
        "second",
        "first",
    ]
    assert "ocidiff commit" in _out(capsys, "history", "app:v2")


def test_names_are_given_and_taken(capsys: Output) -> None:
    digest = _out(capsys, "tag", "app:v1", "other").strip()
    assert digest == json.loads(_out(capsys, "images", "--json").splitlines()[0])["digest"]
    assert main(["rmi", digest]) == 1
    assert "has 2 names; give one of them: app:v1, other:latest" in capsys.readouterr().err
    assert _out(capsys, "rmi", "app:v1", "other") == f"{digest}\n{digest}\n"
    assert _out(capsys, "images", "--json") == ""


def test_gc_prints_the_bytes_it_freed(capsys: Output) -> None:
    assert _out(capsys, "gc") == "0\n"
    main(["rmi", "app:v1"])
    capsys.readouterr()
    would = json.loads(_out(capsys, "gc", "--dry-run", "--json"))
    assert would["dryRun"]
    assert would["blobs"]["count"] == 3
    assert _out(capsys, "gc") == f"{would['freedBytes']}\n"
    assert os.listdir("store/blobs/sha256") == []


def test_verify_tells_faults_by_line_and_by_status(capsys: Output) -> None:
    assert main(["verify"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ocidiff: verify: 3 blobs (")
    assert err.endswith("1 image, 0 snapshots, 0 containers; 0 faults\n")
    blob = next(Path("store/blobs/sha256").iterdir())
    blob.chmod(0o644)
    blob.write_bytes(b"x")
    assert main(["verify", "-q"]) == 1
    out, err = capsys.readouterr()
    assert f"blob sha256:{blob.name}: holds sha256:" in out
    assert err == ""
    document = json.loads(_out(capsys, "verify", "--json", "--repair", status=1))
    assert {fault["kind"]: fault["repaired"] for fault in document["faults"]} == {"blob": True, "image": False}


@pytest.mark.parametrize("command", ["mount", "umount", "rm"])
def test_a_container_that_is_not_there_is_told(command: str, capsys: Output) -> None:
    assert main([command, "nothing"]) == 1
    assert f"ocidiff: {command}: no working container 'nothing' in /" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["create", "app:v1", "bad/name"],
        ["create", "app:v1", "--driver", "zfs"],
        ["create", "app:v1", "--lease", "5"],
        ["commit", "work", "app:v2", "--lease", "5"],
        ["create"],
        ["rm"],
        ["commit", "work", "app:v2", "--base", "app:v1"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str], capsys: Output) -> None:
    assert main(["create", "app:v1", "work", "--driver", "directory"]) == 0
    assert main(words) == 2
    assert capsys.readouterr().err


def test_nothing_is_listed_and_made_where_there_is_no_store(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OCIDIFF_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert _out(capsys, "ps").startswith("NAME")
    assert not (tmp_path / "data").exists()
