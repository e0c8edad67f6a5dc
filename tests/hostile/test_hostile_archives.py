"""Archives that lie: about names, links, sizes, digests, documents. Each is refused in one line, and nothing is stored."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.errors import outcome_of
from ocidiff.transport.archive import members, read, several
from support import archives
from support.archives import Member

LAYER = archives.tar(archives.file(b"file", b"x"))
DIFF_ID = "sha256:" + hashlib.sha256(LAYER).hexdigest()
SECRET = b"outside"


def config(*diff_ids: str) -> bytes:
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}
    ).encode()


def docker(*others: Member, layers: list[str] | None = None, **changed: Any) -> list[Member]:
    """An archive with `manifest.json`, whose layers come from `others`."""
    layers = ["layer.tar"] if layers is None else layers
    image = {"Config": "config.json", "RepoTags": ["bad:1"], "Layers": layers, **changed}
    documents = [
        archives.file(b"config.json", config(*[DIFF_ID] * len(layers))),
        archives.file(b"manifest.json", json.dumps([image]).encode()),
    ]
    return [*documents, *others]


def oci(diff_ids: Sequence[str] = (DIFF_ID,), **changed: bytes | None) -> list[Member]:
    """An OCI archive; a blob is changed by its name, and left out by None."""
    blobs: dict[str, bytes] = {}

    def add(name: str, data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        stored = changed.get(name, data)
        if stored is not None:
            blobs[f"blobs/sha256/{digest}"] = stored
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layer = add("layer", LAYER, "layer.v1.tar")
    manifest = {
        "schemaVersion": 2,
        "config": add("config", config(*diff_ids), "config.v1+json"),
        "layers": [layer],
    }
    entry = add("manifest", json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "bad:1"}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    layout = b'{"imageLayoutVersion":"1.0.0"}'
    files = {"oci-layout": changed.get("layout", layout), "index.json": changed.get("index", index), **blobs}
    return [archives.file(name.encode(), data) for name, data in files.items() if data is not None]


def layer_file(name: bytes = b"layer.tar", data: bytes = LAYER) -> Member:
    return archives.file(name, data)


def one_of(kind: bytes, name: bytes, **fields: Any) -> Member:
    return archives.member(name, kind, **fields)


CASES: dict[str, tuple[Callable[[], list[Member]], type[Exception], str]] = {
    "a name with dots": (lambda: [*docker(layer_file()), archives.file(b"../x", b"")], ocidiff.DocumentError, "leads out"),
    "a name with dots inside": (
        lambda: [*docker(layer_file()), archives.file(b"a/../../x", b"")],
        ocidiff.DocumentError,
        "leads out",
    ),
    "an absolute name": (lambda: [*docker(layer_file()), archives.file(b"/x", b"")], ocidiff.DocumentError, "leads out"),
    "a layer of an absolute name": (lambda: docker(layers=["/etc/passwd"]), ocidiff.DocumentError, "leads out"),
    "a layer with dots": (lambda: docker(layers=["../../etc/passwd"]), ocidiff.DocumentError, "leads out"),
    "a link to outside": (
        lambda: docker(archives.symlink(b"layer.tar", b"../../etc/passwd")),
        ocidiff.DocumentError,
        "leads out",
    ),
    "an absolute link": (
        lambda: docker(archives.symlink(b"layer.tar", b"/etc/passwd")),
        ocidiff.DocumentError,
        "leads out",
    ),
    "a hard link to outside": (
        lambda: docker(archives.hard_link(b"layer.tar", b"../etc/passwd")),
        ocidiff.DocumentError,
        "leads out",
    ),
    "links in a circle": (
        lambda: docker(archives.symlink(b"layer.tar", b"b"), archives.symlink(b"b", b"layer.tar")),
        ocidiff.DocumentError,
        "more than 8 links",
    ),
    "a link to itself": (
        lambda: docker(archives.symlink(b"layer.tar", b"layer.tar")),
        ocidiff.DocumentError,
        "more than 8 links",
    ),
    "a link to nothing": (lambda: docker(archives.symlink(b"layer.tar", b"gone")), ocidiff.NotFoundError, "no 'gone'"),
    "a layer that is a directory": (
        lambda: docker(archives.directory(b"layer.tar")),
        ocidiff.DocumentError,
        "not a regular",
    ),
    "a layer that is a device": (
        lambda: docker(one_of(tarfile.CHRTYPE, b"layer.tar", devmajor=1, devminor=3)),
        ocidiff.DocumentError,
        "not a regular",
    ),
    "a layer that is a pipe": (
        lambda: docker(one_of(tarfile.FIFOTYPE, b"layer.tar")),
        ocidiff.DocumentError,
        "not a regular",
    ),
    "a layer that is missing": (docker, ocidiff.NotFoundError, "no 'layer.tar'"),
    "a layer with other bytes": (
        lambda: docker(layer_file(data=LAYER[:-1] + b"x")),
        ocidiff.DigestMismatchError,
        DIFF_ID,
    ),
    "one name twice": (lambda: docker(layer_file(), layer_file(data=b"other")), ocidiff.DocumentError, "occurs twice"),
    "one name twice by dots": (
        lambda: docker(layer_file(), layer_file(b"./a/../layer.tar", b"other")),
        ocidiff.DocumentError,
        "occurs twice",
    ),
    "a layer more than diff IDs": (
        lambda: [
            archives.file(b"config.json", config(DIFF_ID)),
            archives.file(
                b"manifest.json",
                json.dumps([{"Config": "config.json", "RepoTags": ["bad:1"], "Layers": ["layer.tar"] * 2}]).encode(),
            ),
            layer_file(),
        ],
        ocidiff.DocumentError,
        "2 layers, the configuration 1",
    ),
    "a configuration that is no JSON": (
        lambda: [archives.file(b"c", b"{"), archives.file(b"manifest.json", b'[{"Config":"c","RepoTags":["bad:1"]}]')],
        ocidiff.DocumentError,
        "not JSON",
    ),
    "a list that is an object": (lambda: [archives.file(b"manifest.json", b"{}")], ocidiff.DocumentError, "not a JSON list"),
    "a list that nests deeply": (
        lambda: [archives.file(b"manifest.json", b"[" * 100_000 + b"]" * 100_000)],
        ocidiff.DocumentError,
        "nested",
    ),
    "members twice": (
        lambda: (
            docker(layer_file())[1:]
            and [
                archives.file(b"config.json", config(DIFF_ID)),
                archives.file(b"manifest.json", b'[{"Config":"config.json","Config":"other","Layers":[]}]'),
            ]
        ),
        ocidiff.DocumentError,
        "occurs twice",
    ),
    "a name in upper case": (lambda: docker(layer_file(), RepoTags=["Bad:1"]), ocidiff.DocumentError, "upper case"),
    "no image": (lambda: [archives.file(b"README", b"hello")], ocidiff.DocumentError, "not an archive of images"),
    "a docker before 1.10": (lambda: [archives.file(b"repositories", b"{}")], ocidiff.UnsupportedError, "before 1.10"),
    "a layout of version 2": (
        lambda: oci(layout=b'{"imageLayoutVersion":"2.0.0"}'),
        ocidiff.UnsupportedError,
        "version '2.0.0'",
    ),
    "a layout without a version": (lambda: oci(layout=b"{}"), ocidiff.UnsupportedError, "version ''"),
    "a large oci-layout": (lambda: oci(layout=b" " * (1 << 17)), ocidiff.LimitExceededError, "limit 65536"),
    "a blob with other bytes": (lambda: oci(layer=LAYER[:-1] + b"x"), ocidiff.DigestMismatchError, DIFF_ID),
    "a shorter blob": (lambda: oci(layer=LAYER[:-1]), ocidiff.DigestMismatchError, "expected"),
    "a longer blob": (lambda: oci(layer=LAYER + b"x"), ocidiff.DigestMismatchError, "expected"),
    "another manifest": (lambda: oci(manifest=b"{}"), ocidiff.DigestMismatchError, "expected"),
    "no layer": (lambda: oci(layer=None), ocidiff.NotFoundError, "is missing"),
    "no configuration": (lambda: oci(config=None), ocidiff.NotFoundError, "is missing"),
    "no manifest": (lambda: oci(manifest=None), ocidiff.NotFoundError, "is missing"),
    "an OCI image with a layer too few": (
        lambda: oci(diff_ids=[DIFF_ID, DIFF_ID]),
        ocidiff.DocumentError,
        "1 layers, the configuration has 2 diff_ids",
    ),
    "an OCI image with another layer": (
        lambda: oci(diff_ids=["sha256:" + "0" * 64]),
        ocidiff.DigestMismatchError,
        "the configuration has diff ID sha256:0000",
    ),
    "a name that no image can have": (lambda: docker(layer_file(), RepoTags=["a b"]), ocidiff.DocumentError, "takes NAME"),
    "a name with a digest": (
        lambda: docker(layer_file(), RepoTags=[f"a@{DIFF_ID}"]),
        ocidiff.DocumentError,
        "a digest cannot be given",
    ),
    "a long name": (lambda: docker(layer_file(), RepoTags=["a" * 1_000_000]), ocidiff.DocumentError, "takes NAME"),
    "an index that is a manifest": (
        lambda: oci(index=b'{"schemaVersion":2,"manifests":[],"layers":[]}'),
        ocidiff.DocumentError,
        "another kind",
    ),
    "an index without images": (
        lambda: oci(index=b'{"schemaVersion":2,"manifests":[]}'),
        ocidiff.DocumentError,
        "there is nothing",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_archive_that_lies_is_refused(case: str, tmp_path: Path) -> None:
    made, error, words = CASES[case]
    archive = tmp_path / "bad.tar"
    archive.write_bytes(archives.tar(*made()))
    check_refused(archive, tmp_path, error, words)


def check_refused(archive: Path, tmp_path: Path, error: type[Exception], words: str) -> None:
    with ocidiff.Store.open(tmp_path / "store") as store:
        with pytest.raises(error) as caught:
            store.load(archive)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        # It is the input that is bad, not the way in which the command was called.
        assert outcome_of(caught.value).status == 1
        assert store.images() == []
        assert os.listdir(tmp_path / "store/ingest") == []
        assert store.verify().faults == ()
    assert sorted(os.listdir(tmp_path)) == [archive.name, "store"]


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", ocidiff.DocumentError, "empty file"),
        (b"no tar at all", ocidiff.MalformedLayerError, "header"),
        (os.urandom(4096), ocidiff.MalformedLayerError, "checksum"),
        (b"\xfd7zXZ\0" + bytes(1024), ocidiff.UnsupportedError, "xz"),
        (b"BZh9" + bytes(1024), ocidiff.UnsupportedError, "bzip2"),
        (gzip.compress(archives.tar(*oci()))[:-20], ocidiff.MalformedLayerError, "gzip"),
        (gzip.compress(gzip.compress(archives.tar(*oci()))), ocidiff.UnsupportedError, "gzip"),
        (archives.tar(*oci())[:1300], ocidiff.MalformedLayerError, "end"),
    ],
    ids=["empty", "text", "noise", "xz", "bzip2", "cut gzip", "twice gzip", "cut"],
)
def test_what_is_no_archive_is_refused(data: bytes, error: type[Exception], words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(data)
    check_refused(tmp_path / "bad.tar", tmp_path, error, words)


def test_an_archive_that_is_cut_anywhere_gives_no_image(tmp_path: Path) -> None:
    whole = archives.tar(*oci())
    end = len(whole.rstrip(b"\0"))
    with ocidiff.Store.open(tmp_path / "store") as store:
        for size in range(1, end, 199):
            (tmp_path / "bad.tar").write_bytes(whole[:size])
            with pytest.raises(ocidiff.OcidiffError):
                store.load(tmp_path / "bad.tar")
        (tmp_path / "bad.tar").write_bytes(whole)
        assert len(store.load(tmp_path / "bad.tar")) == 1


def test_a_size_past_the_end_reads_nothing(tmp_path: Path) -> None:
    info, _ = archives.file(b"layer.tar", b"")
    info.size = 1 << 60
    header = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "bad.tar").write_bytes(archives.tar(*docker())[:-10240] + header + bytes(512))
    check_refused(tmp_path / "bad.tar", tmp_path, ocidiff.MalformedLayerError, "end")


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_LIMITS", replace(members._LIMITS, max_entries=100))
    block = archives.tar(archives.file(b"", b""))[:512]
    (tmp_path / "bad.tar").write_bytes(101 * block)
    check_refused(tmp_path / "bad.tar", tmp_path, ocidiff.LimitExceededError, "max_entries")


@pytest.mark.parametrize(
    "limits", [ocidiff.Limits(max_bytes=1 << 20), ocidiff.Limits(max_ratio=500)], ids=["bytes", "ratio"]
)
def test_a_bomb_is_refused_before_it_fills_the_disk(limits: ocidiff.Limits, tmp_path: Path) -> None:
    # From 64 MiB on the ratio counts.
    (tmp_path / "bad.tar.gz").write_bytes(gzip.compress(bytes(1 << 20), 9) * 70)
    with ocidiff.Store.open(tmp_path / "store") as store, pytest.raises(ocidiff.LimitExceededError, match=r"bad\.tar\.gz: "):
        store.load(tmp_path / "bad.tar.gz", limits=limits)


def test_too_many_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several, "_MOST_NAMES", 2)
    (tmp_path / "bad.tar").write_bytes(archives.tar(*docker(layer_file(), RepoTags=["a:1", "a:2", "a:3"])))
    check_refused(tmp_path / "bad.tar", tmp_path, ocidiff.LimitExceededError, "3 names of images, limit 2")


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_documents_that_are_named_again_and_again_are_not_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(read, "_MAX_READ_BYTES", 100)
    made = docker(layer_file()) if form == "docker" else oci()
    (tmp_path / "bad.tar").write_bytes(archives.tar(*made))
    check_refused(tmp_path / "bad.tar", tmp_path, ocidiff.LimitExceededError, "MiB together")


def test_what_is_outside_is_never_read(tmp_path: Path) -> None:
    """A layer whose diff ID is that of a file of the host, which a link points to."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    digest = "sha256:" + hashlib.sha256(SECRET).hexdigest()
    for target in (str(secret), "../secret", "x/../../secret"):
        made = [
            archives.file(b"config.json", config(digest)),
            archives.file(b"manifest.json", b'[{"Config":"config.json","RepoTags":["bad:1"],"Layers":["layer.tar"]}]'),
            archives.symlink(b"layer.tar", target.encode()),
        ]
        (tmp_path / "bad.tar").write_bytes(archives.tar(*made))
        with ocidiff.Store.open(tmp_path / "store") as store, pytest.raises(ocidiff.DocumentError, match="leads out"):
            store.load(tmp_path / "bad.tar")
