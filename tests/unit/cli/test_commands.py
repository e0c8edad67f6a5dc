"""The commands, run in process on real trees: what goes to stdout, what to stderr, and the exit status."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.cli.main import main
from ocidiff.errors import OcidiffError, UsageError
from ocidiff.layer.options import ENGINES
from support import archives

Output = pytest.CaptureFixture[str]

COMMANDS = (
    *("diff", "changes", "apply", "index", "commit", "batch", "create", "mount", "umount", "ps", "rm"),
    *("save", "load", "unpack", "images", "inspect", "history", "tag", "rmi", "gc", "verify", "bench"),
)


@pytest.fixture(autouse=True)
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trees, `lower` and `upper`, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("OCIDIFF_ENGINE", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OCIDIFF_STORE", str(tmp_path / "store"))
    for tree in ("lower", "upper"):
        Path(tree, "etc").mkdir(parents=True)
        Path(tree, "etc/hosts").write_text(f"{tree}\n")
    Path("lower/etc/old").write_text("old\n")
    Path("upper/etc/new").write_text("new\n")
    os.utime("lower/etc/hosts", (1, 1))


def test_diff_prints_the_digest_of_the_file_it_wrote(capsys: Output) -> None:
    assert main(["diff", "lower", "upper", "-o", "layer"]) == 0
    out, err = capsys.readouterr()
    assert out == ocidiff.Digest.of(Path("layer").read_bytes()) + "\n"
    assert err == ""


def test_commit_tells_each_layer_that_it_wrote(capsys: Output) -> None:
    words = ["commit", "./lower", "app:1", "--add", "upper/etc/new:/opt/new"]
    assert main([*words, "--json", "-v"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    main(["inspect", "app:1"])
    manifest = json.loads(capsys.readouterr().out)["manifest"]
    assert [layer["digest"] for layer in told["layers"]] == [layer["digest"] for layer in manifest["layers"]]
    assert told["layer"] == told["layers"][0]
    assert [" added, " in line for line in err.splitlines() if line.startswith("ocidiff: app:1: ")] == [True, True]
    assert main(["commit", "./lower", "app:1", "--base", "app:1", "--lower", "lower", "--json", "-v"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["layer"], json.loads(out)["layers"]) == (None, [])
    assert "no change, no layer" in err


def test_the_tar_of_an_upper_directory_takes_the_place_of_the_tree(capsys: Output) -> None:
    Path("upper.tar").write_bytes(archives.tar(archives.directory(b"./"), archives.file(b"./new")))
    assert main(["diff", "lower", "--upper-tar", "upper.tar", "-o", "layer.tar"]) == 0
    assert main(["commit", "./lower", "base:1", "-q"]) == 0
    assert main(["commit", "--upper-tar", "upper.tar", "--base", "base:1", "app:1", "--compression", "none"]) == 0
    capsys.readouterr()
    assert main(["inspect", "app:1"]) == 0
    digests = [layer["digest"] for layer in json.loads(capsys.readouterr().out)["manifest"]["layers"]]
    assert digests[1:] == [ocidiff.Digest.of(Path("layer.tar").read_bytes())]


def test_a_commit_adds_files_of_the_host(capsys: Output) -> None:
    assert main(["commit", "./lower", "app:1", "--add", "upper/etc/new:/etc/", "-q"]) == 0
    assert main(["unpack", "app:1", "got"]) == 0
    assert Path("got/etc/new").read_text() == "new\n"
    capsys.readouterr()
    assert main(["commit", "./lower", "app:1", "--add", "upper/etc/new"]) == 2
    assert capsys.readouterr().err == "ocidiff: commit: add 'upper/etc/new': must be SRC:DEST\n"


@pytest.mark.parametrize(
    "words",
    [
        ["diff", "--upper-tar", "upper.tar", "-o", "layer"],
        ["diff", "lower", "upper", "--upper-tar", "upper.tar", "-o", "layer"],
        ["diff", "lower", "--upperdir", "upper", "--lowerdir", "lower", "--upper-tar", "upper.tar", "-o", "layer"],
        ["commit", "--upper-tar", "upper.tar"],
        ["commit", "./upper", "app:1", "--upper-tar", "upper.tar"],
        ["commit", "./upper"],
        ["commit"],
    ],
    ids=" ".join,
)
def test_one_changed_tree_is_named(capsys: Output, words: list[str]) -> None:
    assert main(words) == 2
    assert ": give " in capsys.readouterr().err


def test_diff_json_is_one_object_with_the_names_of_the_contract(capsys: Output) -> None:
    assert main(["diff", "lower", "upper", "-o", "layer", "--json", "--compression", "none"]) == 0
    document = json.loads(capsys.readouterr().out)
    blob = Path("layer").read_bytes()
    assert document.pop("seconds") > 0
    assert document == {
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": ocidiff.Digest.of(blob),
        "size": len(blob),
        "diffID": ocidiff.Digest.of(blob),
        "uncompressedSize": len(blob),
        "empty": False,
        "changes": {"added": 1, "modified": 1, "deleted": 1},
        "skipped": {},
        "retried": 0,
        "vanished": 0,
        "reusedSize": 0,
    }


def test_a_tree_that_changed_meanwhile_is_told(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def diff(*arguments: Any, **options: Any) -> ocidiff.Layer:
        assert options["on_change"] == "fail"
        return replace(layer, retried=2, vanished=1)

    layer = ocidiff.diff("lower", "upper", "layer")
    monkeypatch.setattr(ocidiff, "diff", diff)
    assert main(["diff", "lower", "upper", "-o", "layer", "--json", "--on-change", "fail"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["retried"], json.loads(out)["vanished"]) == (2, 1)
    assert err == "ocidiff: warning: diff: the tree changed: 2 names read again, 1 gone\n"
    assert main(["-q", "diff", "lower", "upper", "-o", "layer", "--on-change", "fail"]) == 0
    assert capsys.readouterr().err == ""


def test_changes_prints_a_letter_and_a_path_in_layer_order(capsys: Output) -> None:
    assert main(["changes", "lower", "upper"]) == 0
    assert capsys.readouterr().out == "C /etc/hosts\nA /etc/new\nD /etc/old\n"


def test_changes_json_is_a_line_each(capsys: Output) -> None:
    assert main(["changes", "lower", "upper", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"kind": "modify", "path": "/etc/hosts"},
        {"kind": "add", "path": "/etc/new"},
        {"kind": "delete", "path": "/etc/old"},
    ]


def test_changes_explained_say_why_and_how_much_and_where(capsys: Output) -> None:
    Path("upper/opt/app").mkdir(parents=True)
    Path("upper/opt/app/data").write_bytes(bytes(3_000))
    os.link("upper/opt/app/data", "upper/opt/app/same")
    Path("upper/etc/hosts").chmod(0o600)
    assert main(["changes", "lower", "upper", "--explain"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "C /etc/hosts\tmode,mtime,content\t6 B, was 6 B",
        "A /etc/new\tnew\t4 B",
        "D /etc/old\tdeleted\twas 4 B",
        "A /opt\tnew\t0 B",
        "A /opt/app\tnew\t0 B",
        "A /opt/app/data\tnew\t3.0 kB",
        "A /opt/app/same\tnew\t3.0 kB",
        "",
        "5 added, 1 modified, 1 deleted; 3.0 kB of files",
        "",
        "SIZE    CHANGES  DIRECTORY",
        "3.0 kB  2        /opt/app",
        "10 B    3        /etc",
    ]


def test_changes_explained_in_json_end_with_a_summary(capsys: Output) -> None:
    assert main(["changes", "lower", "upper", "--explain", "--json"]) == 0
    first, *_, gone, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    sizes = {"upperSize": 6, "lowerSize": 6, "layerSize": 6}
    assert first == {"kind": "modify", "path": "/etc/hosts", "reason": ["mtime", "content"], **sizes}
    gone_sizes = {"upperSize": None, "lowerSize": 4, "layerSize": 0}
    assert gone == {"kind": "delete", "path": "/etc/old", "reason": ["deleted"], **gone_sizes}
    assert last == {
        "summary": {
            "added": 1,
            "modified": 1,
            "deleted": 1,
            "layerSize": 10,
            "largestDirectories": [{"path": "/etc", "layerSize": 10, "changes": 3}],
        }
    }


@pytest.mark.parametrize(("limit", "status"), [("9", 3), ("10", 0), ("1kB", 0)])
def test_changes_fail_above_a_size_and_list_all_the_same(limit: str, status: int, capsys: Output) -> None:
    assert main(["changes", "lower", "upper", "--fail-above", limit]) == status
    out, err = capsys.readouterr()
    assert out.count("\n") == 3
    assert err == ("ocidiff: changes: the files in the change take 10 B, more than 9 B\n" if status else "")


@pytest.mark.parametrize("engine", ["rust", "pure"])
@pytest.mark.parametrize(
    "words", [["diff", "lower", "upper", "-o", "layer"], ["commit", "./upper", "app", "--base", "base"]]
)
def test_a_layer_above_its_size_is_refused_and_leaves_nothing(words: list[str], engine: str, capsys: Output) -> None:
    assert main(["commit", "./lower", "base"]) == 0
    capsys.readouterr()
    limit = ["--engine", engine, "--fail-above", "4095"]  # with its headers it takes 4096
    before = sorted(os.listdir())
    assert main([*words, *limit]) == 3
    assert capsys.readouterr() == ("", f"ocidiff: {words[0]}: the change takes more than 4.1 kB, uncompressed\n")
    assert sorted(os.listdir()) == before
    assert main(["inspect", "app"]) == 1
    assert main([*words, "--fail-above", "4096"]) == 0


def test_what_is_excluded_is_counted_and_no_reason_for_a_warning(capsys: Output) -> None:
    words = ["diff", "lower", "upper", "-o", "layer", "--exclude", "/etc/*", "--exclude", "!/etc/new", "-v"]
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["changes"] == {"added": 1, "modified": 0, "deleted": 0}
    assert document["skipped"] == {"excluded": 2}
    assert err.startswith("ocidiff: diff: 1 added, 0 modified, 0 deleted, 2 excluded; ")
    Path("upper/.ocidiffignore").write_text("/etc/*\n")
    assert main(["changes", "lower", "upper", "--exclude", "!/etc/old"]) == 0
    assert capsys.readouterr().out == "D /etc/old\n"
    assert main(["commit", "./upper", "app", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layer"]["skipped"] == {"excluded": 3}


@pytest.mark.parametrize("engine", ["rust", "pure"])
def test_a_layer_far_above_its_size_is_refused_before_it_is_written(capsys: Output, engine: str) -> None:
    with open("upper/sparse", "wb") as file:
        file.truncate(1 << 40)
    assert main(["diff", "lower", "upper", "-o", "layer", "--fail-above", "1MiB", "--engine", engine]) == 3
    assert capsys.readouterr().err == "ocidiff: diff: the change takes more than 1.0 MB, uncompressed\n"
    assert not Path("layer").exists()


@pytest.mark.parametrize(("upper", "status"), [("upper", 1), ("lower", 0), ("missing", 2)])
def test_changes_exit_code_is_that_of_diff(upper: str, status: int) -> None:
    assert main(["changes", "lower", upper, "--exit-code"]) == status


@pytest.mark.parametrize(
    ("name", "magic"), [("l.tar", b"etc/"), ("l.tar.gz", b"\x1f\x8b"), ("l.tar.zst", b"\x28\xb5"), ("l", b"\x1f\x8b")]
)
def test_the_name_of_the_output_decides_the_compression(name: str, magic: bytes) -> None:
    assert main(["diff", "lower", "upper", "-o", name]) == 0
    assert Path(name).read_bytes().startswith(magic)
    assert main(["diff", "lower", "upper", "-o", name, "--compression", "gzip"]) == 0
    assert Path(name).read_bytes().startswith(b"\x1f\x8b")


def test_names_that_would_steer_a_terminal_are_escaped_for_people_and_kept_in_json(capsys: Output) -> None:
    names = [b"\x1b[2J", b"a\nA forged", b"\xff", "Grüße".encode(), "\u202egpj".encode()]
    for name in names:
        with open(b"upper/etc/" + name, "w"):
            pass
    assert main(["changes", "lower", "upper"]) == 0
    shown = {line[7:] for line in capsys.readouterr().out.splitlines()}
    assert shown >= {"\\x1b[2J", "a\\nA forged", "\\xff", "Grüße", "\\u202egpj"}
    assert main(["changes", "lower", "upper", "--json"]) == 0
    paths = {os.fsencode(json.loads(line)["path"]) for line in capsys.readouterr().out.splitlines()}
    assert paths >= {b"/etc/" + name for name in names}


def test_apply_prints_the_diff_id_and_gives_the_upper_tree(capsys: Output) -> None:
    assert main(["diff", "scratch", "upper", "-o", "layer", "--json"]) == 0
    diff_id = json.loads(capsys.readouterr().out)["diffID"]
    Path("target").mkdir()
    assert main(["apply", "layer", "target", "--diff-id", diff_id, "-v"]) == 0
    out, err = capsys.readouterr()
    assert out == diff_id + "\n"
    assert err.startswith("ocidiff: apply: 3 entries, 0 whiteouts, ")
    assert Path("target/etc/hosts").read_text() == "upper\n"


def test_apply_refuses_a_layer_of_another_diff_id(capsys: Output) -> None:
    assert main(["diff", "scratch", "upper", "-o", "layer"]) == 0
    Path("target").mkdir()
    capsys.readouterr()
    assert main(["apply", "layer", "target", "--diff-id", "sha256:" + "0" * 64]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ocidiff: apply: layer sha256:")
    assert err.count("\n") == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("blob", [b"", gzip.compress(b"", mtime=0)], ids=["plain", "gzip"])
def test_apply_refuses_an_empty_file(capsys: Output, engine: str, blob: bytes) -> None:
    Path("empty").write_bytes(blob)
    Path("target").mkdir()
    assert main(["apply", "empty", "target", "--engine", engine]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "ocidiff: apply: empty: empty file: a layer without changes is a tar of 1024 zero bytes\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_apply_names_a_compression_that_it_does_not_read(capsys: Output, engine: str) -> None:
    Path("layer").write_bytes(lzma.compress(bytes(1024)))
    Path("target").mkdir()
    assert main(["apply", "layer", "target", "--engine", engine]) == 1
    assert capsys.readouterr().err.startswith("ocidiff: apply: layer: xz data in place of a tar: ")


def test_an_image_is_committed_listed_inspected_and_unpacked(capsys: Output) -> None:
    assert main(["commit", "./lower", "app:v1", "--iidfile", "id"]) == 0
    first = capsys.readouterr().out.strip()
    assert Path("id").read_text() == first
    assert main(["commit", "./upper", "app:v2", "--base", "app:v1", "-a", "me", "-m", "more", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["name"] == "app:v2"
    assert second["layer"]["changes"] == {"added": 1, "modified": 1, "deleted": 1}

    assert main(["images", "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(image["name"], image["digest"]) for image in listed] == [("app:v2", second["digest"]), ("app:v1", first)]
    assert main(["images"]) == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split() == ["NAME", "ID", "CREATED", "SIZE", "PLATFORM"]
    assert [row.split()[:2] for row in rows] == [["app:v2", second["digest"][7:19]], ["app:v1", first[7:19]]]

    assert main(["inspect", "app:v2"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert inspected["config"]["author"] == "me"
    assert inspected["config"]["history"][-1]["comment"] == "more"
    assert inspected["manifest"]["layers"][-1]["digest"] == second["layer"]["digest"]

    assert main(["unpack", "app:v2", "unpacked"]) == 0
    assert capsys.readouterr().out.strip() == second["digest"]
    assert sorted(os.listdir("unpacked/etc")) == ["hosts", "new"]


def test_a_commit_that_fails_writes_no_iidfile(capsys: Output) -> None:
    assert main(["commit", "./lower", "app", "--base", "none", "--iidfile", "id"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path("id").exists()


def test_a_source_without_a_slash_is_no_path(capsys: Output) -> None:
    assert main(["commit", "lower", "app"]) == 1
    expected = "ocidiff: commit: no working container 'lower'; for the directory of that name write ./lower\n"
    assert capsys.readouterr().err == expected
    assert main(["commit", "nothing", "app"]) == 1
    assert capsys.readouterr().err == "ocidiff: commit: no working container 'nothing'\n"


def test_sockets_are_told_of_on_stderr_unless_quiet(capsys: Output) -> None:
    os.mknod("upper/socket", 0o140600)
    assert main(["diff", "lower", "upper", "-o", "layer"]) == 0
    assert capsys.readouterr().err == "ocidiff: warning: diff: 1 socket left out\n"
    assert main(["diff", "lower", "upper", "-o", "layer", "-q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("place", ["before", "after", "nowhere"])
def test_quiet_holds_for_what_the_threads_of_a_copy_log(place: str, capsys: Output) -> None:
    assert main(["commit", "./lower", "app"]) == 0
    assert main(["copy", "app", "oci:layout:app"]) == 0
    words = ["copy", "oci:layout:app", "app"]
    # Each run has its own say, whatever the runs before it in this process were told.
    for _ in range(2):
        blobs = sorted(Path("store/blobs/sha256").iterdir())
        for blob in blobs:
            blob.chmod(0o644)
            blob.write_bytes(bytes(blob.stat().st_size))
        capsys.readouterr()
        assert main({"before": ["-q", *words], "after": [*words, "-q"], "nowhere": words}[place]) == 0
        told = [f"ocidiff: warning: blob sha256:{blob.name}: was damaged in the store, and is replaced" for blob in blobs]
        assert sorted(capsys.readouterr().err.splitlines()) == (told if place == "nowhere" else [])


@pytest.mark.parametrize("place", ["before", "after"])
def test_common_options_hold_before_and_after_the_command(place: str, capsys: Output) -> None:
    options = ["--store", "elsewhere", "--json"]
    words = [*options, "commit", "./lower", "app"] if place == "before" else ["commit", "./lower", "app", *options]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "app:latest"
    assert Path("elsewhere/index.json").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_common_options_and_has_an_example(command: str, capsys: Output) -> None:
    words = ["--store", "s", "--json", "-q", "--progress", "none", "-v"]
    assert main([command, *words, "--help"]) == 0
    assert f"Example: ocidiff {command}" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--store", "--progress"])
def test_options_that_mean_nothing_to_a_command_are_not_in_its_help(option: str, capsys: Output) -> None:
    assert main(["diff" if option == "--store" else "changes", "--help"]) == 0
    assert option not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["diff", "nowhere", "upper", "-o", "layer"], "diff: nowhere: No such file or directory"),
        (["diff", "lower/etc/old", "upper", "-o", "layer"], "diff: lower/etc/old: Not a directory"),
        (["diff", "lower", "upper", "-o", "/nowhere/layer"], "diff: /nowhere: No such file or directory"),
        (["diff", "lower", "upper", "-o", "/dev/full"], "diff: /dev/full: No space left on device"),
        (["diff", "lower", "upper", "-o", "upper"], "diff: upper: Is a directory"),
        (["changes", "a\nb", "upper"], "changes: a\\nb: No such file or directory"),
        (["apply", "nowhere", "upper"], "apply: nowhere: No such file or directory"),
        (
            ["unpack", "app:v1", "lower"],
            "unpack: {store}: No such file or directory; there is no store; commit, pull or load makes one",
        ),
        (
            ["inspect", "app:v1"],
            "inspect: {store}: No such file or directory; there is no store; commit, pull or load makes one",
        ),
        (["images"], "images: {store}: No such file or directory; there is no store; commit, pull or load makes one"),
    ],
)
def test_a_failure_is_one_line_and_status_1(words: list[str], line: str, tmp_path: Path, capsys: Output) -> None:
    before = sorted(os.listdir())
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"ocidiff: {line.format(store=tmp_path / 'store')}\n"
    assert sorted(os.listdir()) == before


def test_before_the_first_commit_the_default_store_is_empty_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.delenv("OCIDIFF_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert main(["images", "--json"]) == 0
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["diff", "lower", "upper"],
        ["diff", "lower", "upper", "-o", "layer", "--compression", "lzma"],
        ["diff", "lower", "upper", "-o", "layer", "--level", "77"],
        ["diff", "lower", "upper", "-o", "layer", "--source-date-epoch", "-1"],
        ["diff", "lower", "upper", "-o", "layer", "--threads", "-1"],
        ["diff", "lower", "upper", "-o", "-", "--json"],
        ["diff", "lower", "upper", "-o", "layer", "--fail-above", "1.MB"],
        ["changes", "lower", "upper", "--fail-above", "1 parsec"],
        ["changes", "lower", "upper", "--fail-above", "-1"],
        ["changes", "lower", "upper", "--exclude", "[a"],
        ["apply", "layer", "upper", "--diff-id", "sha256:1"],
        ["commit", "./lower", "app", "--platform", "vax"],
    ],
)
def test_wrong_usage_is_status_2_and_does_nothing(words: list[str], capsys: Output) -> None:
    before = sorted(os.listdir())
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err
    assert sorted(set(os.listdir()) - {"store"}) == before


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (OcidiffError("tree: odd"), 1, "tree: odd"),
        (UsageError("level: high"), 2, "level: high"),
        (PermissionError(13, "Permission denied", "/a\x1b"), 1, "/a\\x1b: Permission denied"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), 1, "a to b: Invalid cross-device link"),
        (MemoryError(), 1, "out of memory"),
        (ZeroDivisionError("division\nby zero"), 1, "internal error: ZeroDivisionError: division\\nby zero"),
    ],
)
def test_every_exception_is_one_line(
    error: Exception, status: int, line: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ocidiff, "changes", changes)
    assert main(["changes", "lower", "upper"]) == status
    assert capsys.readouterr().err == f"ocidiff: changes: {line}\n"


def test_index_prints_the_digest_of_the_file_it_wrote(capsys: Output) -> None:
    assert main(["index", "lower", "-o", "lower.idx"]) == 0
    assert capsys.readouterr().out == ocidiff.Digest.of(Path("lower.idx").read_bytes()) + "\n"
    assert main(["changes", "index:lower.idx", "upper"]) == 0
    assert capsys.readouterr().out == "C /etc/hosts\nA /etc/new\nD /etc/old\n"
    assert main(["index", "lower", "-o", "lower.idx", "--json", "--sha256"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("seconds") >= 0
    data = Path("lower.idx").read_bytes()
    assert document == {"digest": ocidiff.Digest.of(data), "size": len(data), "entries": 3, "fileBytes": 10}


def test_index_takes_an_image_where_there_is_no_directory(capsys: Output) -> None:
    assert main(["commit", "./lower", "app:v1"]) == 0
    assert main(["index", "app:v1", "-o", "app.idx"]) == 0
    assert main(["commit", "./upper", "app:v2", "--base", "app:v1", "--lower", "index:app.idx"]) == 0
    assert main(["index", "app:v3", "-o", "other.idx"]) == 1
    assert "no image 'app:v3'" in capsys.readouterr().err
    assert not Path("other.idx").exists()


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["index", "./missing", "-o", "x"], 1, "./missing: No such file or directory"),
        (["index", "lower", "-o", "x", "--platform", "linux/arm64"], 2, "--platform: cannot be used with a directory"),
        (
            ["index", "app", "-o", "x", "--uid-map", "0:1:1"],
            2,
            "--uid-map, --gid-map and --userns: cannot be used with an image",
        ),
        (["index", "app", "-o", "x", "--stamps"], 2, "--cross-mounts and --stamps: cannot be used with an image"),
        (["index", "lower", "-o", "-", "--json"], 2, "--json: cannot be used with -o -, since both write to stdout"),
        (["changes", "index:", "upper"], 2, "index: takes the path of an index after it"),
        (["diff", "index:missing", "upper", "-o", "x"], 1, "missing: No such file or directory"),
        (["diff", "index:lower/etc/hosts", "upper", "-o", "x"], 1, "index lower/etc/hosts: it is no index"),
        (["changes", "index:lower/etc/hosts", "upper"], 1, "index lower/etc/hosts: it is no index"),
        (["diff", "index:x", "upper", "--overlay", "require", "-o", "y"], 1, "x: No such file or directory"),
    ],
)
def test_wrong_uses_of_an_index_are_told(capsys: Output, words: list[str], status: int, told: str) -> None:
    assert main(words) == status
    out, err = capsys.readouterr()
    assert told in err
    assert out == ""
    assert not Path("x").exists()


@pytest.mark.parametrize("name", ["run", "prune", "ls", "version", "help"])
def test_a_command_of_other_tools_is_answered_with_the_one_to_use(name: str, capsys: Output) -> None:
    assert main([name]) == 2
    err = capsys.readouterr().err
    assert "use `ocidiff " in err or "use `skopeo " in err


def test_names_of_the_local_store_and_of_containerd_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCIDIFF_STORE", str(tmp_path / "store"))
    (tmp_path / "tree").mkdir()
    assert main(["commit", f"{tmp_path}/tree", "x:1"]) == 0
    for words in (
        ["rmi", "x:1", "containerd:y:1"],
        ["tag", "x:1", "containerd:y:1"],
        ["commit", f"{tmp_path}/tree", "containerd:y:1"],
        ["changes", "x:1", "containerd:y:1"],
    ):
        capsys.readouterr()
        assert main(words) == 2, words
        assert "containerd" in capsys.readouterr().err
    assert main(["images", "--json"]) == 0
    assert "y" not in capsys.readouterr().out.partition("x:1")[0]


def test_save_writes_to_stdout_and_load_reads_from_stdin(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["commit", "./lower", "app:1", "-q"]) == 0
    assert main(["save", "app:1", "-o", "app.tar", "--json"]) == 0
    saved = json.loads(capfdbinary.readouterr().out.splitlines()[-1])
    assert (saved["source"], saved["copied"]["blobs"]) == ("app:1", 2)
    assert main(["save", "app:1"]) == 0
    archive = capfdbinary.readouterr().out
    assert archive == Path("app.tar").read_bytes()
    line = [sys.executable, "-m", "ocidiff", "--store", "other", "load"]
    assert subprocess.run(line, input=archive, capture_output=True, check=True).stdout == b"app:1\n"


def test_save_and_load_refuse_what_they_cannot_do(capsys: Output) -> None:
    assert main(["commit", "./lower", "app:1", "-q"]) == 0
    assert main(["save", "app:1", "--json"]) == 2
    assert main(["save", "no:1", "-o", "app.tar"]) == 1
    assert main(["load", "-i", "app.tar"]) == 1
    assert main(["load", "-i", "."]) == 1
    err = capsys.readouterr().err
    assert "both write to stdout" in err
    assert "no image 'no:1'" in err
    assert "app.tar: No such file or directory" in err
    assert ".: Is a directory" in err
    assert not Path("app.tar").exists()
