"""Entries of a layout that are no images for us: listed as they are, kept, and in nobody's way."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocidiff.cli.main import main
from ocidiff.embedded.gc import collect
from ocidiff.embedded.layout import Layout
from ocidiff.oci import media_type
from ocidiff.store import Store
from support.layouts import Handmade

Document = dict[str, Any]
REF_NAME = "org.opencontainers.image.ref.name"


class Foreign(Handmade):
    """A layout that other tools write."""

    def other(self, data: bytes, algorithm: str = "sha512") -> Document:
        """The digest and size of a blob that is named by another algorithm."""
        encoded = hashlib.new(algorithm, data).hexdigest()
        place = self.path / "blobs" / algorithm
        place.mkdir(exist_ok=True)
        (place / encoded).write_bytes(data)
        return {"digest": f"{algorithm}:{encoded}", "size": len(data)}

    def named_by_sha512(self) -> Document:
        layer, diff_id = self.layer({"only": "by sha512"})
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type.MANIFEST,
            "config": self.config([diff_id]),
            "layers": [layer],
        }
        return {"mediaType": media_type.MANIFEST, **self.other(json.dumps(manifest).encode())}

    def parts_by_sha512(self) -> Document:
        layer = {"mediaType": media_type.LAYER, **self.other(b"a layer by sha512")}
        return self.manifest(self.config([]), [layer])

    def artifact(self) -> Document:
        empty = self.blob(b"{}", "application/vnd.oci.empty.v1+json")
        return self.manifest(empty, [self.blob(b"note", "text/plain")], artifactType="application/vnd.example.note")

    def empty_config(self) -> Document:
        return self.manifest(self.blob(b"{}", media_type.CONFIG), [])

    def unknown_manifest(self) -> Document:
        part = self.blob(b"a part of something unknown", "application/x")
        return self.document({"schemaVersion": 9, "parts": [{"inner": part}]}, "application/vnd.example.future+json")

    def first_schema(self) -> Document:
        layer = self.blob(b"a layer of the first schema", "application/x")
        document = {"schemaVersion": 1, "fsLayers": [{"blobSum": layer["digest"]}]}
        return self.document(document, "application/vnd.docker.distribution.manifest.v1+prettyjws")

    def attested(self) -> Document:
        attestation = self.blob(b'{"_type": "https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json")
        config = self.config([attestation["digest"]], architecture="unknown", os="unknown")
        members = [
            {**self.image({"f": "attested"}), "platform": {"architecture": "amd64", "os": "linux"}},
            {**self.manifest(config, [attestation]), "platform": {"architecture": "unknown", "os": "unknown"}},
            {**self.named_by_sha512(), "platform": {"architecture": "s390x", "os": "linux"}},
            {**self.artifact(), "platform": {}},
            {"mediaType": 7},
        ]
        return self.index(members)

    def annotated_badly(self) -> Document:
        return {**self.image({"f": "annotated"}), "annotations": {"k": 1}}

    def without_digest(self) -> Document:
        return {"mediaType": media_type.MANIFEST, "size": 3}


KINDS: dict[str, Callable[[Foreign], Document]] = {
    kind: getattr(Foreign, kind)
    for kind in (
        *("named_by_sha512", "parts_by_sha512", "artifact", "empty_config", "unknown_manifest", "first_schema"),
        *("attested", "annotated_badly", "without_digest"),
    )
}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command on the store; tells what it wrote to stdout, or to stderr if it fails as it should."""

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        actual = main([*words, "--store", str(tmp_path / "store")])
        out, err = capsys.readouterr()
        assert actual == status, (words, out, err)
        return err if status else out

    return run


def _files(store: Path) -> set[str]:
    return {os.path.join(place, name) for place, _, names in os.walk(store / "blobs") for name in names}


@pytest.mark.parametrize("kind", KINDS)
def test_no_command_minds_what_is_no_image(kind: str, tmp_path: Path, run: Callable[..., str]) -> None:
    handmade = Foreign(tmp_path / "store")
    good = handmade.image({"f": "good"})
    foreign = KINDS[kind](handmade)
    annotations = foreign.get("annotations", {REF_NAME: "theirs"})
    text = json.dumps({**foreign, "annotations": annotations}, separators=(" , ", " : "))
    entries = [json.dumps({**good, "annotations": {REF_NAME: "good:1"}}), text]
    (tmp_path / "store" / "index.json").write_text(f'{{"schemaVersion":2,"manifests":[{",".join(entries)}]}}')
    tree = tmp_path / "tree"
    run("unpack", "good:1", str(tree))
    (tree / "new").write_text("2")
    before = _files(tmp_path / "store")

    run("commit", f"{tree}/", "next:1", "--base", "good:1")
    run("tag", "good:1", "again:1")
    run("create", "next:1", "work", "--driver", "directory")
    run("commit", "work", "last:1")
    run("rm", "work")
    run("rmi", "last:1")
    run("inspect", "next:1")
    run("history", "next:1")
    assert run("verify") == ""
    with Layout.open(tmp_path / "store", create=False) as layout:
        assert collect(layout, young_seconds=0).blobs > 0
    assert before <= _files(tmp_path / "store")
    assert run("verify") == ""
    assert text in (tmp_path / "store" / "index.json").read_text()
    listed = [json.loads(line) for line in run("images", "--json").splitlines()]
    name = None if kind == "annotated_badly" else "theirs"
    digests = {image["name"]: image["digest"] for image in listed}
    assert digests.keys() == {"good:1", name, "next:1", "again:1"}
    assert digests[name] == foreign.get("digest")
    assert (foreign.get("digest") or "-") in run("images", "--no-trunc")
    assert len(run("images").splitlines()) == 5

    if kind != "annotated_badly":
        run("rmi", "theirs")
        assert text not in (tmp_path / "store" / "index.json").read_text()


def test_what_is_not_understood_is_told_when_it_is_asked_for(tmp_path: Path, run: Callable[..., str]) -> None:
    handmade = Foreign(tmp_path / "store")
    handmade.name("theirs", handmade.named_by_sha512())
    handmade.name("note", handmade.artifact())
    for name, problem in (("theirs", "algorithm sha512 is not supported"), ("note", "is not an image configuration")):
        for words in (["unpack", name, str(tmp_path / "out")], ["inspect", name], ["create", name]):
            assert problem in run(*words, status=1)


@pytest.mark.parametrize("kind", ["named_by_sha512", "first_schema", "without_digest"])
def test_a_name_means_its_image_beside_what_is_none(kind: str, tmp_path: Path, run: Callable[..., str]) -> None:
    foreign = Foreign(tmp_path / "store")
    foreign.name("a:1", foreign.image({"f": "1"}))
    entry = KINDS[kind](foreign)
    foreign.name("a:1", {**entry, "annotations": {}})
    run("inspect", "a:1")
    run("tag", "a:1", "b:1")
    run("unpack", "a:1", str(tmp_path / "target"))
    run("rmi", "a:1")
    assert '"org.opencontainers.image.ref.name": "a:1"' in (tmp_path / "store" / "index.json").read_text()
    run("rmi", "a:1")
    assert '"a:1"' not in (tmp_path / "store" / "index.json").read_text()
    run("inspect", "b:1")


def test_a_damaged_index_is_made_again_with_what_is_not_understood(tmp_path: Path, run: Callable[..., str]) -> None:
    handmade = Foreign(tmp_path / "store")
    handmade.name("theirs", handmade.named_by_sha512())
    handmade.name("good:1", handmade.image({"f": "1"}))
    run("verify")
    before = json.loads((tmp_path / "store" / "index.json").read_text())["manifests"]
    (tmp_path / "store" / "index.json").write_text("{")
    run("verify", "--repair")
    assert json.loads((tmp_path / "store" / "index.json").read_text())["manifests"] == before


def test_an_image_for_a_platform_is_found_beside_what_is_not_understood(tmp_path: Path) -> None:
    handmade = Foreign(tmp_path / "store")
    untold = handmade.image({"f": "untold"}, architecture="riscv64")
    badly = {**handmade.image({"f": "badly"}, architecture="arm64"), "platform": {"architecture": 7}}
    outer = handmade.index([handmade.attested(), untold, badly])
    handmade.name("multi", outer)
    with Store.open(tmp_path / "store") as store:
        for platform in ("linux/amd64", "linux/riscv64", "linux/arm64"):
            config: Any = store.inspect("multi", platform=platform)["config"]
            assert config["architecture"] == platform[6:]


@pytest.mark.parametrize("platform", [None, "linux/arm64"])
def test_an_image_without_platform_is_a_base(tmp_path: Path, run: Callable[..., str], platform: str | None) -> None:
    handmade = Foreign(tmp_path / "store")
    # As ggcr's empty image.
    document = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": None}}
    handmade.name("empty:1", handmade.manifest(handmade.document(document, media_type.CONFIG), []))
    (tmp_path / "tree").mkdir()
    words = [] if platform is None else ["--platform", platform]
    run("commit", f"{tmp_path}/tree/", "app:1", "--base", "empty:1", *words)
    config = json.loads(run("inspect", "app:1"))["config"]
    assert config["os"] == "linux"
    assert config["architecture"] == ("arm64" if platform else {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine])
    run("create", "empty:1", "work", "--driver", "directory")
    run("unpack", "empty:1", str(tmp_path / "out"))
    assert run("verify") == ""
    listed = [json.loads(line) for line in run("images", "--json").splitlines()]
    assert {image["name"]: image["platform"] for image in listed}["empty:1"] is None
