"""The options of `commit` that say how the image is run, and what its documents are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.cli.main import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree, and the image `base:1` of it, which has settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("OCIDIFF_ENGINE", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OCIDIFF_STORE", str(tmp_path / "store"))
    Path("tree").mkdir()
    with ocidiff.Store.open("store") as store:
        changes = ['ENTRYPOINT ["/e"]', 'CMD ["c"]', "ENV A=1 B=2", "LABEL l=m", "VOLUME /v", "EXPOSE 80 53/udp"]
        store.commit("tree", "base:1", changes=changes, author="base")


def commit(capsys: Output, *words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the configuration of an image over `base:1`, committed with these options."""
    assert main(["commit", "./tree", "new:1", "--base", "base:1", *words]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["inspect", "new:1"]) == 0
    shown = json.loads(capsys.readouterr().out)
    return shown["manifest"], shown["config"]


def test_changes_then_what_is_unset_then_settings(capsys: Output) -> None:
    _, config = commit(
        capsys,
        *("-c", "ENV C=$A D=1", "--change", "USER a", "--change", "WORKDIR /w"),
        *("--unset-env", "A", "--unset-label", "l", "--unset-volume", "/v", "--unset-port", "80"),
        *("--env", "B=$A", "--env", "E==", "--label", "x=", "--workdir", "sub", "--user", "b"),
        *("--entrypoint", '["/f"]', "--cmd", "run it"),
    )
    assert config["config"] == {
        "User": "b",
        "ExposedPorts": {"53/udp": {}},
        "Env": ["B=$A", "C=1", "D=1", "E=="],
        "Entrypoint": ["/f"],
        "Cmd": ["/bin/sh", "-c", "run it"],
        "WorkingDir": "/w/sub",
        "Labels": {"x": ""},
    }


def test_a_setting_that_is_empty_is_taken_away(capsys: Output) -> None:
    _, config = commit(capsys, "--entrypoint", "", "--user", "")
    assert not config["config"].keys() & {"Entrypoint", "Cmd", "User"}
    assert commit(capsys, "--cmd", "")[1]["config"]["Entrypoint"] == ["/e"]


def test_annotations_format_and_history(capsys: Output) -> None:
    manifest, config = commit(capsys, "--annotation", "a=b=c", "--annotation", "d=", "--omit-history")
    assert manifest["annotations"] == {"a": "b=c", "d": ""}
    assert "history" not in config
    manifest, config = commit(capsys, "--format", "docker")
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert len(config["history"]) == 2


def test_the_metadata_file_names_the_image(capsys: Output) -> None:
    assert main(["commit", "./tree", "new:1", "--metadata-file", "meta", "--iidfile", "id"]) == 0
    digest = capsys.readouterr().out.strip()
    with ocidiff.Store.open("store") as store:
        descriptor = store.resolve("new:1").document()
        config = store.inspect("new:1")["manifest"]
    assert isinstance(config, dict)
    descriptor.pop("annotations")
    assert json.loads(Path("meta").read_text()) == {
        "image.name": "new:1",
        "containerimage.digest": digest,
        "containerimage.config.digest": config["config"]["digest"],
        "containerimage.descriptor": descriptor,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", "USER a", "-c", "FOO x"], "change 2: FOO: not a change; must be one of CMD, ENTRYPOINT, "),
        (["-c", ""], "change: no instruction"),
        (["-c", "ENV X=${A:x}"], "change 1: ENV: modifier ':x': must be one of "),
        (["-c", os.fsdecode(b"USER \xff")], "change: not valid UTF-8"),
        (["--env", "A"], "'A': must be K=V"),
        (["--annotation", "=x"], "'=x': must be K=V"),
        (["--unset-env", "A=1"], "variable 'A=1': must be a name"),
        (["--unset-port", "http"], "port 'http': must be a number"),
        (["--cmd", "[1]"], "cmd: a JSON array may hold strings only"),
        (["--format", "docker", "--compression", "zstd"], "format docker: does not support zstd layers"),
        (["--format", "docker", "--annotation", "a=b"], "format docker: does not support annotations"),
        (["--cache", "cache"], "--cache and --cache-size are for images in containerd"),
        (["--cache-size", "0"], "--cache and --cache-size are for images in containerd"),
        (["-m", os.fsdecode(b"\xff")], r"author or message '\udcff': not valid UTF-8"),
    ],
)
def test_a_wrong_option_is_wrong_usage_and_makes_nothing(words: list[str], message: str, capsys: Output) -> None:
    before = sorted(Path("store/blobs").rglob("*"))
    options = ["--iidfile", "id", "--metadata-file", "meta"]
    assert main(["commit", "./tree", "new:1", "--base", "base:1", *options, *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert sorted(Path("store/blobs").rglob("*")) == before
    assert not Path("id").exists()
    assert not Path("meta").exists()


@pytest.mark.parametrize(("begun", "names"), [("E", ["ENTRYPOINT", "ENV", "EXPOSE"]), ("st", ["STOPSIGNAL"]), ("x", [])])
def test_the_shell_completes_the_name_of_an_instruction(begun: str, names: list[str]) -> None:
    words = f"ocidiff commit -c {begun}"
    environment = {**os.environ, "_OCIDIFF_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "3"}
    run = subprocess.run([sys.executable, "-m", "ocidiff"], env=environment, capture_output=True, text=True, check=True)
    assert [line.removeprefix("plain,") for line in run.stdout.split()] == names


def test_a_long_path_makes_no_other_line_of_a_dry_run_longer(capsys: Output) -> None:
    long = Path("tree", *["n" * 200] * 5)
    long.mkdir(parents=True)
    Path("tree/short").write_text("short")
    assert main(["commit", "./tree", "new:1", "--base", "base:1", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith("n" * 200) for line in lines)
    assert max(len(line) for line in lines if "nnn" not in line) < 40
