"""What a commit changes of a configuration, beside the instructions of Docker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ocidiff.errors import NotFoundError, UnrepresentableError, UsageError
from ocidiff.image.changes import ConfigChanges, apply_changes
from ocidiff.image.instructions import apply, parse
from ocidiff.layer.arguments import CompressionName
from ocidiff.oci import media_type
from ocidiff.oci.config import ExecConfig, ImageConfig
from ocidiff.oci.platform import Platform
from ocidiff.store.embedded import EmbeddedStore

BASE = ExecConfig(
    env=("PATH=/bin", "A=1", "A=2"),
    entrypoint=("/entry",),
    cmd=("serve",),
    working_dir="/srv",
    exposed_ports={"80": {}, "53/udp": {}},
    volumes={"/data": {}, "/cache": {}},
    labels={"k": "v"},
    user="u",
)


def changed(base: ExecConfig = BASE, os: str = "linux", **changes: Any) -> ExecConfig:
    asked = ConfigChanges(**changes)
    asked.check()
    return apply_changes(ImageConfig(Platform("amd64", os), config=base), asked).config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cmd": '["a", "b"]'}, {"entrypoint": ("/entry",), "cmd": ("a", "b")}),
        ({"cmd": ["a", "b c"]}, {"cmd": ("a", "b c")}),
        ({"cmd": "a $A"}, {"cmd": ("/bin/sh", "-c", "a $A")}),
        ({"cmd": ""}, {"entrypoint": ("/entry",), "cmd": ()}),
        ({"cmd": "[]"}, {"cmd": ()}),
        ({"entrypoint": '["x"]'}, {"entrypoint": ("x",), "cmd": ()}),
        ({"entrypoint": ""}, {"entrypoint": (), "cmd": ()}),
        ({"entrypoint": ["x"], "cmd": ["y"]}, {"entrypoint": ("x",), "cmd": ("y",)}),
        ({"entrypoint": ["x"], "instructions": ["CMD y"]}, {"entrypoint": ("x",), "cmd": ("/bin/sh", "-c", "y")}),
        ({"entrypoint": ["x"], "instructions": ["CMD []"]}, {"cmd": ()}),
        ({"workdir": "sub"}, {"working_dir": "/srv/sub"}),
        ({"workdir": "$A"}, {"working_dir": "/srv/$A"}),
        ({"workdir": "/x/../y"}, {"working_dir": "/y"}),
        ({"workdir": ""}, {"working_dir": ""}),
        ({"user": "$A:b"}, {"user": "$A:b"}),
        ({"user": ""}, {"user": ""}),
        ({"env": {"A": "3"}}, {"env": ("PATH=/bin", "A=3")}),
        ({"env": {"B": ""}}, {"env": ("PATH=/bin", "A=1", "A=2", "B=")}),
        ({"unset_env": ["A"], "instructions": ["ENV B=$A"]}, {"env": ("PATH=/bin", "B=2")}),
        ({"unset_env": ["none"]}, {"env": BASE.env}),
        ({"unset_ports": ["80"]}, {"exposed_ports": {"53/udp": {}}}),
        ({"unset_ports": ["50-60/udp", "80/udp"]}, {"exposed_ports": {"80": {}}}),
        ({"unset_volumes": ["/data"]}, {"volumes": {"/cache": {}}}),
        ({"unset_labels": ["k"], "labels": {"k": "w"}}, {"labels": {"k": "w"}}),
    ],
)
def test_settings_come_last_and_are_literal(changes: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    made = changed(**changes)
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unset_env": ["A=1"]}, "variable 'A=1': must be a name"),
        ({"unset_env": [""]}, "variable '': must be a name"),
        ({"env": {"": "x"}}, "variable '': must be a name"),
        ({"unset_labels": [""]}, "label or volume: the name is empty"),
        ({"unset_ports": ["x"]}, "port 'x': must be a number up to 65535, or a range"),
        ({"cmd": "[1]"}, "cmd: a JSON array may hold strings only"),
        ({"env": {"A": "\udcff"}}, r"variable '\udcff': not valid UTF-8"),
        ({"cmd": ["\ud800"]}, r"cmd '\ud800': not valid UTF-8"),
        ({"instructions": ["USER a", "EXPOSE x"]}, "change 2: EXPOSE: port 'x': must be a number up to 65535, or a range"),
        ({"instructions": ["USER a", "RUN x"]}, "change 2: RUN: not a change; must be one of CMD, ENTRYPOINT, ENV, "),
        ({"instructions": ["USER a\nUSER"]}, "change 2: USER: takes an argument"),
        ({"instructions": ["ENV X=${A?no}"]}, "change 1: ENV: A: no"),
        ({"instructions": ["ENV X='a"]}, 'change 1: ENV: missing "\'"'),
        ({"instructions": ["# x"]}, "change: no instruction"),
        ({"instructions": ["ENV X=\udcff"]}, "change: not valid UTF-8"),
        ({"instructions": ["USER " + "x" * 65531]}, "change: line 1: longer than 65535 bytes"),
        ({"instructions": ["HEALTHCHECK --retry=1 CMD x"]}, "change 1: HEALTHCHECK: unknown option '--retry'"),
    ],
)
def test_a_refusal_names_the_instruction_its_number_and_why(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        changed(ExecConfig(), **changes)


def test_a_variable_cannot_grow_without_end() -> None:
    doubled = ["ENV A=" + "x" * 1024, *["ENV A=$A$A"] * 40]
    with pytest.raises(UsageError, match=r"change 12: ENV: expands to more than 1048576 characters"):
        apply(ExecConfig(), parse(doubled))
    with pytest.raises(UsageError, match=r"expands to more than 1048576 characters"):
        apply(ExecConfig(), parse(["ENV A=" + "x" * 2000, "ENV B=${A//x/" + "y" * 2000 + "}"]))
    with pytest.raises(UsageError, match=r"variables nest more than 50 deep"):
        apply(ExecConfig(), parse("ENV A=" + "${B:-" * 10_000))


def test_patterns_cost_no_more_than_the_text_is_long() -> None:
    # With backtracking, each star more would take a thousand times as long.
    made = apply(ExecConfig(), parse(["ENV A=" + "a" * 2000, "ENV B=${A#" + "*a" * 30 + "b}"]))
    assert made.env[1] == "B=" + "a" * 2000


def test_shell_and_triggers_of_the_base_stay_and_are_not_seen() -> None:
    base = ExecConfig(shell=("/bin/bash", "-c"), on_build=("RUN a",), args_escaped=True)
    made = changed(base, instructions=["CMD x", "ONBUILD RUN b"])
    assert (made.cmd, made.shell, made.on_build) == (("/bin/sh", "-c", "x"), ("/bin/bash", "-c"), ("RUN a", "RUN b"))


@pytest.mark.parametrize(
    ("os", "instructions", "kept"), [("linux", [], False), ("windows", [], True), ("windows", ["CMD x"], False)]
)
def test_an_escaped_command_is_one_on_windows_alone(os: str, instructions: list[str], *, kept: bool) -> None:
    assert changed(ExecConfig(cmd=("a",), args_escaped=True), os, instructions=instructions).args_escaped is kept


def test_a_commit_takes_changes_whole_or_as_texts(store: EmbeddedStore, rootfs: Path) -> None:
    first = store.commit(rootfs, "app:v1", changes=['CMD ["app"]', "ENV A=1"], annotations={"a": "1", "b": "2"})
    assert (first.config.config.cmd, first.config.config.env) == (("app",), ("A=1",))
    second = store.commit(
        rootfs, "app:v2", base="app:v1", changes=ConfigChanges(unset_env=("A",)), annotations={"b": "3"}, omit_history=True
    )
    assert (second.config.config.cmd, second.config.config.env, second.config.history) == (("app",), (), ())
    assert dict(second.manifest.annotations) == {"a": "1", "b": "3"}
    assert store.commit(rootfs, "app:v3", base="app:v1", changes="USER a\nUSER b").config.config.user == "b"


def test_the_history_tells_what_a_container_of_the_base_runs(store: EmbeddedStore, rootfs: Path) -> None:
    store.commit(rootfs, "app:v1", changes=['ENTRYPOINT ["/e", "x"]', 'CMD ["a b"]'])
    image = store.commit(rootfs, "app:v2", base="app:v1", changes=["CMD new"])
    assert [step.created_by for step in image.config.history] == ["ocidiff commit", "/e x a b"]
    assert store.commit(rootfs, "app:v3", base="app:v2", created_by="make").config.history[-1].created_by == "make"


def test_a_working_container_takes_changes(store: EmbeddedStore, rootfs: Path) -> None:
    store.commit(rootfs, "app:v1", changes=['ENTRYPOINT ["/e"]', "ENV A=1"])
    store.create("app:v1", "work", driver="directory")
    image = store.commit(store.containers.get("work"), "app:v2", changes=["CMD run $A", "ENV B=$A"], format="docker")
    assert (image.config.config.cmd, image.config.config.env) == (("/bin/sh", "-c", "run $A"), ("A=1", "B=1"))
    assert image.manifest.media_type == media_type.DOCKER_MANIFEST


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_dockers_format_is_of_one_family(
    store: EmbeddedStore, rootfs: Path, tmp_path: Path, compression: CompressionName
) -> None:
    store.commit(rootfs, "app:v1", compression=compression)
    (rootfs / "new").touch()
    image = store.commit(rootfs, "app:v2", base="app:v1", format="docker", compression=compression)
    layer = media_type.counterpart(media_type.LAYER + ("+gzip" if compression == "gzip" else ""), media_type.Format.DOCKER)
    assert image.descriptor.media_type == image.manifest.media_type == media_type.DOCKER_MANIFEST
    assert image.manifest.config.media_type == media_type.DOCKER_CONFIG
    assert [one.media_type for one in image.manifest.layers] == [layer, layer]
    # Such an image is a base like any other.
    back = store.commit(rootfs, "app:v3", base="app:v2")
    assert (back.manifest.media_type, back.layer) == (media_type.MANIFEST, None)
    store.unpack("app:v2", tmp_path / "out")
    assert (tmp_path / "out" / "new").exists()


def test_dockers_format_has_neither_zstd_nor_annotations(store: EmbeddedStore, rootfs: Path) -> None:
    with pytest.raises(UsageError, match="format docker: does not support zstd layers"):
        store.commit(rootfs, "app", format="docker", compression="zstd")
    with pytest.raises(UsageError, match="format docker: does not support annotations"):
        store.commit(rootfs, "app", format="docker", annotations={"a": "b"})
    with pytest.raises(UsageError, match="format 'x': must be oci or docker"):
        store.commit(rootfs, "app", format="x")  # type: ignore[arg-type]
    store.commit(rootfs, "base", compression="zstd", annotations={"a": "b"})
    with pytest.raises(UnrepresentableError, match="docker format has none"):
        store.commit(rootfs, "app", base="base", format="docker")


def test_a_change_that_is_refused_leaves_nothing(store: EmbeddedStore, rootfs: Path, tmp_path: Path) -> None:
    for changes in (["FOO"], ["ENV X=${A?}"]):
        with pytest.raises(UsageError):
            store.commit(rootfs, "app", changes=changes)
    with pytest.raises(NotFoundError):
        store.resolve("app")
    assert not [path for path in (tmp_path / "store" / "blobs").rglob("*") if path.is_file()]
