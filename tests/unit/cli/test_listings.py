"""Listings: short ids and times, filters, templates, and names that are prefixes of digests."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ocidiff.cli.listing import ago, short_id
from ocidiff.cli.main import main
from ocidiff.oci.timestamp import time_ns_of

Output = pytest.CaptureFixture[str]

SECOND = 10**9


@pytest.fixture(autouse=True)
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> dict[str, str]:
    """A store with the images `app:v1`, `app:v2` and `other:latest`, by name with their digests."""
    monkeypatch.chdir(tmp_path)
    for name in ("OCIDIFF_ENGINE", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OCIDIFF_STORE", str(tmp_path / "store"))
    made = {}
    for number, name in enumerate(("app:v1", "app:v2", "other:latest")):
        Path("rootfs").mkdir(exist_ok=True)
        Path(f"rootfs/{number}").touch()
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(1000 + number))
        assert main(["commit", "./rootfs", name]) == 0
        made[name] = capsys.readouterr().out.strip()
    return made


def lines(capsys: Output, *words: str) -> list[str]:
    assert main(list(words)) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "just now"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (86_400, "24 hours ago"),
        (3 * 86_400, "3 days ago"),
        (21 * 86_400, "3 weeks ago"),
        (90 * 86_400, "3 months ago"),
        (800 * 86_400, "2 years ago"),
        (-5, "in the future"),
    ],
)
def test_times_are_told_from_now(seconds: float, text: str) -> None:
    assert ago(100 * SECOND, 100 * SECOND + round(seconds * SECOND)) == text


def test_an_unknown_time_is_a_dash() -> None:
    assert ago(None) == "-"


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:01Z", SECOND),
        ("1970-01-01T01:00:01.5+01:00", 1_500_000_000),
        ("1969-12-31T23:59:59.25Z", -750_000_000),
        ("2020-01-01T00:00:00.123456789Z", 1_577_836_800_123_456_789),
        ("2021-02-30T00:00:00Z", None),
        ("yesterday", None),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, time_ns: int | None) -> None:
    assert time_ns_of(text) == time_ns


def test_only_digests_are_shortened() -> None:
    assert short_id("sha256:" + "ab" * 32) == "abababababab"
    assert short_id("work") == "work"


def test_images_are_listed_newest_first(capsys: Output) -> None:
    assert [line.split()[0] for line in lines(capsys, "images")[1:]] == ["other:latest", "app:v2", "app:v1"]


def test_ids_are_short_unless_asked_for_whole(capsys: Output, digests: dict[str, str]) -> None:
    whole = [digests[name] for name in ("other:latest", "app:v2", "app:v1")]
    assert lines(capsys, "images", "-q") == [digest[7:19] for digest in whole]
    assert lines(capsys, "images", "-q", "--no-trunc") == whole
    assert lines(capsys, "images", "--no-trunc")[1].split()[1:3] == [whole[0], "1970-01-01T00:16:42Z"]


def test_a_name_narrows_the_list(capsys: Output) -> None:
    assert lines(capsys, "images", "app", "--format", "{{.Name}}") == ["app:v2", "app:v1"]
    assert lines(capsys, "images", "app:v1", "--format", "{{.Name}}") == ["app:v1"]
    assert lines(capsys, "images", "none", "-q") == []


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["reference=app*"], ["app:v2", "app:v1"]),
        (["before=other"], ["app:v2", "app:v1"]),
        (["since=app:v1", "before=other:latest"], ["app:v2"]),
        (["dangling=true"], []),
        (["dangling=false"], ["other:latest", "app:v2", "app:v1"]),
    ],
)
def test_filters_narrow_the_list(capsys: Output, filters: list[str], names: list[str]) -> None:
    words = [word for text in filters for word in ("--filter", text)]
    assert lines(capsys, "images", *words, "--format", "{{.Name}}") == names


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["images", "--filter", "nonsense=1"], "must be NAME=VALUE with one of reference, dangling, before, since"),
        (["images", "--filter", "dangling=maybe"], "must be true or false"),
        (["images", "--filter", "before=nothing"], "no such image"),
        (["images", "--format", "{{.Colour}}"], "no field 'Colour'; there are Name, ID, Created, Size, Platform"),
    ],
)
def test_a_wrong_filter_or_field_is_wrong_usage(capsys: Output, words: list[str], told: str) -> None:
    assert main(words) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_format_has_the_fields_of_the_columns(capsys: Output, digests: dict[str, str]) -> None:
    digits = digests["app:v1"][7:19]
    assert lines(capsys, "images", "app:v1", "--format", r"{{.Name}}\t{{ .ID }}") == [f"app:v1\t{digits}"]
    as_json = lines(capsys, "images", "app:v1", "--format", "json")
    assert as_json == lines(capsys, "images", "app:v1", "--json")
    assert json.loads(as_json[0])["digest"] == digests["app:v1"]


def test_containers_are_listed_and_filtered(capsys: Output) -> None:
    for image, name in (("app:v1", "one"), ("app:v2", "two")):
        lines(capsys, "create", image, name, "--driver", "directory")
    assert lines(capsys, "ps", "-q") == ["two", "one"]
    assert lines(capsys, "ps", "-a", "--filter", "ancestor=app:v1", "--format", "{{.Name}} {{.Driver}}") == ["one directory"]
    assert lines(capsys, "ps", "--filter", "name=t*", "-q") == ["two"]
    assert lines(capsys, "ps", "--filter", "mounted=false", "--filter", "driver=overlay", "-q") == []


def test_history_has_layers_as_ids_and_cuts_long_commands(capsys: Output) -> None:
    assert main(["commit", "./rootfs", "app:v3", "--base", "other"]) == 0
    capsys.readouterr()
    heads, *steps = lines(capsys, "history", "app:v3")
    assert heads.split() == ["CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert len(steps) == 2
    assert len(lines(capsys, "history", "app:v3", "-q")) == 1
    assert len(lines(capsys, "history", "app:v3", "--filter", "empty=true")) == 2


def test_the_beginning_of_a_digest_names_an_image(capsys: Output, digests: dict[str, str]) -> None:
    digest = digests["app:v2"]
    for text in (digest[7:19], digest[7:], f"sha256:{digest[7:15]}"):
        assert json.loads("".join(lines(capsys, "inspect", text)))["descriptor"]["digest"] == digest
    assert lines(capsys, "tag", digest[7:13], "again") == [digest]


def test_a_name_comes_before_a_digest_that_begins_so(capsys: Output, digests: dict[str, str]) -> None:
    name = digests["app:v2"][7:19]
    lines(capsys, "tag", "app:v1", name)
    assert json.loads("".join(lines(capsys, "inspect", name)))["descriptor"]["digest"] == digests["app:v1"]


def test_an_ambiguous_beginning_is_refused(capsys: Output) -> None:
    seen: dict[str, str] = {}
    for number in range(2000):
        Path("rootfs/0").write_text(str(number))
        assert main(["commit", "./rootfs", f"n:{number}", "--compression", "none"]) == 0
        digest = capsys.readouterr().out.strip()[7:]
        if digest[:4] in seen:
            assert main(["inspect", digest[:4]]) == 2
            assert f"{digest[:4]}: ambiguous: 2 digests begin with it; give more digits" in capsys.readouterr().err
            return
        seen[digest[:4]] = digest
    pytest.fail("no two digests of 2000 begin alike")


@pytest.mark.parametrize("form", ["{digits:.12}", "sha256:{digits:.20}", "sha256:{digits}", "x@sha256:{digits}"])
def test_a_digest_takes_no_name_of_several(capsys: Output, digests: dict[str, str], form: str) -> None:
    lines(capsys, "tag", "app:v1", "x:one")
    lines(capsys, "tag", "app:v1", "x:two")
    assert main(["rmi", form.format(digits=digests["app:v1"][7:])]) == 1
    assert "names; give one of them: " in capsys.readouterr().err
    assert lines(capsys, "rmi", "x:one", "x:two") == [digests["app:v1"]] * 2


def test_a_missing_tag_is_answered_with_those_that_there_are(capsys: Output) -> None:
    assert main(["inspect", "app"]) == 1
    error = capsys.readouterr().err
    assert "no image 'app:latest'" in error
    assert error.endswith("; there is app:v1, app:v2\n")


def test_several_names_are_all_tried(capsys: Output, digests: dict[str, str]) -> None:
    assert main(["rmi", "app:v1", "nothing", "app:v2"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [digests["app:v1"], digests["app:v2"]]
    assert err.count("\n") == 1
    lines(capsys, "create", "other", "one", "--driver", "directory")
    for command in ("umount", "rm"):
        assert main([command, "none", "one"]) == 1
        assert capsys.readouterr().out == "one\n"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("comit", "did you mean commit"),
        ("prune", "use `ocidiff gc`"),
        ("build", "commit a directory or a working container"),
        ("xyzzy", "no such command 'xyzzy'; `ocidiff --help` lists them"),
    ],
)
def test_an_unknown_command_is_answered_with_the_one_that_was_meant(capsys: Output, word: str, told: str) -> None:
    assert main([word]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["gc", "--foo"], "gc: no such option '--foo'; see `ocidiff gc --help`"),
        (["--foo"], "no such option '--foo'; see `ocidiff --help`"),
        (["commit", "./a", "b", "--anotation", "x=y"], "commit: no such option '--anotation': did you mean --annotation?"),
        (["commit", "./a", "b", "--colour", "x"], "commit: no such option '--colour'; see `ocidiff commit --help`"),
        (["rmi"], "rmi: missing argument 'IMAGE...'; see `ocidiff rmi --help`"),
        (["commit", "./a"], "commit: missing argument: give SOURCE and NAME[:TAG]; see `ocidiff commit --help`"),
        (["commit", "./a", "b", "--change"], "commit: option '--change' requires an argument; see `ocidiff commit --help`"),
        (["commit", "./a", "b", "--level", "x"], "commit: invalid value for '--level': 'x' is not a valid integer"),
        (["commit", "./a", "b", "--level", "99"], "commit: level 99: gzip takes 1 to 9"),
        (["commit", "./a", "Img:V1"], "commit: image 'Img:V1': no registry takes upper case in a name; write 'img:V1'"),
    ],
)
def test_wrong_usage_is_told_in_one_line_of_one_shape(words: list[str], line: str, capsys: Output) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", f"ocidiff: {line}\n")


def test_lines_fit_the_terminal_and_pipes_get_them_whole(capsys: Output) -> None:
    long = "registry.example/" + "long/" * 20 + "name:v1"
    lines(capsys, "tag", "app:v1", long)
    assert any(long in line for line in lines(capsys, "images"))
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "ocidiff", "images"]
    environment = {**os.environ, "COLUMNS": "80"}
    process = subprocess.Popen(command, stdout=inner, env=environment)
    os.close(inner)
    shown = b""
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:
        # The other side of a terminal is closed.
        pass
    assert process.wait() == 0
    os.close(terminal)
    assert max(map(len, shown.decode().splitlines())) <= 80
    assert "…" in shown.decode()
