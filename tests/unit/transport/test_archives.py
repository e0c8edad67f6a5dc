"""Archives: one tar for Docker and OCI tools, the same bytes each time, to and from files and pipes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.embedded.files import Files
from ocidiff.oci import media_type
from ocidiff.transport import layout as layouts
from ocidiff.transport.archive import read
from support import archives
from support.layouts import Handmade

Archive = Callable[..., Path]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ocidiff.EmbeddedStore]:
    with ocidiff.Store.open(tmp_path / "other") as store:
        yield store


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]


def docker_archive(place: Path, *, tags: list[str], layers: dict[str, bytes], links: dict[str, str], **changed: Any) -> Path:
    """An archive as `docker save` wrote it before version 25: a directory for each layer, and links between equal ones."""
    names = [*layers, *links]
    tars = {**layers, **{name: layers[links[name]] for name in links}}
    diff_ids = ["sha256:" + hashlib.sha256(tars[name]).hexdigest() for name in names]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    encoded = json.dumps({**config, "docker_version": "24.0.7"}).encode()
    named = hashlib.sha256(encoded).hexdigest() + ".json"
    manifest = [{"Config": named, "RepoTags": tags, "Layers": [f"{name}/layer.tar" for name in names], **changed}]
    members = [archives.file(named.encode(), encoded)]
    for name in names:
        members += [archives.directory(name.encode()), archives.file(f"{name}/VERSION".encode(), b"1.0")]
        members.append(archives.file(f"{name}/json".encode(), b"{}"))
        path = f"{name}/layer.tar".encode()
        if name in links:
            members.append(archives.symlink(path, f"../{links[name]}/layer.tar".encode()))
        else:
            members.append(archives.file(path, layers[name]))
    members.append(archives.file(b"manifest.json", json.dumps(manifest).encode()))
    members.append(archives.file(b"repositories", b"{}"))
    place.write_bytes(archives.tar(*members))
    return place


def layer(name: str, data: bytes) -> bytes:
    return archives.tar(archives.file(name.encode(), data))


def test_what_is_saved_comes_back_the_same(
    store: ocidiff.EmbeddedStore, other: ocidiff.EmbeddedStore, tmp_path: Path
) -> None:
    saved = store.save(["app:v1", "base:1"], tmp_path / "both.tar")
    # A blob that both have is there once.
    assert [(one.copied, one.skipped) for one in saved] == [(3, 0), (1, 1)]
    loaded = other.load(tmp_path / "both.tar")
    assert {one.target: one.descriptor.digest for one in loaded} == {
        name: store.resolve(name).digest for name in ("app:v1", "base:1")
    }
    assert other.verify().faults == ()


def test_the_same_images_give_the_same_bytes_to_a_file_and_a_pipe(store: ocidiff.EmbeddedStore, tmp_path: Path) -> None:
    store.save(["app:v1"], tmp_path / "one.tar")
    read_end, write_end = os.pipe()
    got = io.BytesIO()

    def drain() -> None:
        while data := os.read(read_end, 1 << 16):
            got.write(data)

    reader = threading.Thread(target=drain)
    reader.start()
    with open(write_end, "wb") as pipe:
        store.save(["app:v1"], pipe)
    reader.join()
    os.close(read_end)
    assert got.getvalue() == (tmp_path / "one.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        facts = {(one.uid, one.gid, one.uname, one.gname, one.mtime, one.mode, one.type) for one in tar}
    assert facts == {(0, 0, "", "", 0, 0o644, tarfile.REGTYPE)}


def test_an_archive_tells_docker_and_oci_tools_the_same(store: ocidiff.EmbeddedStore, tmp_path: Path) -> None:
    store.tag("app:v1", "example.org/team/app:2")
    store.save(["app:v1", "example.org/team/app:2"], tmp_path / "a.tar")
    files = contents(tmp_path / "a.tar")
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    entries = json.loads(files["index.json"])["manifests"]
    assert [entry["annotations"] for entry in entries] == [
        {
            "io.containerd.image.name": "docker.io/library/app:v1",
            "org.opencontainers.image.ref.name": "app:v1",
        },
        {
            "io.containerd.image.name": "example.org/team/app:2",
            "org.opencontainers.image.ref.name": "example.org/team/app:2",
        },
    ]
    (image,) = json.loads(files["manifest.json"])
    assert image["RepoTags"] == ["app:v1", "example.org/team/app:2"]
    manifest = json.loads(files["blobs/sha256/" + entries[0]["digest"].partition(":")[2]])
    assert image["Config"] == "blobs/sha256/" + manifest["config"]["digest"].partition(":")[2]
    assert image["Layers"] == ["blobs/sha256/" + one["digest"].partition(":")[2] for one in manifest["layers"]]
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert name == "blobs/sha256/" + hashlib.sha256(data).hexdigest()


def test_an_image_named_by_its_digest_has_no_name_in_the_archive(store: ocidiff.EmbeddedStore, tmp_path: Path) -> None:
    store.save([store.resolve("app:v1").digest], tmp_path / "a.tar")
    (entry,) = json.loads(contents(tmp_path / "a.tar")["index.json"])["manifests"]
    assert "annotations" not in entry
    with ocidiff.Store.open(tmp_path / "other") as other:
        with pytest.raises(ocidiff.DocumentError, match="has a name"):
            other.load(tmp_path / "a.tar")
        other.copy(f"oci-archive:{tmp_path}/a.tar", "given:1")
        assert other.resolve("given:1").digest == store.resolve("app:v1").digest


def test_copy_takes_the_image_that_is_named(
    store: ocidiff.EmbeddedStore, other: ocidiff.EmbeddedStore, tmp_path: Path
) -> None:
    store.save(["app:v1", "base:1"], tmp_path / "both.tar")
    with pytest.raises(ocidiff.UsageError, match="holds 2 images"):
        other.copy(f"docker-archive:{tmp_path}/both.tar", "x:1")
    for name in ("base:1", "docker.io/library/base:1", store.resolve("base:1").digest):
        done = other.copy(f"docker-archive:{tmp_path}/both.tar:{name}", "x:1")
        assert done.descriptor.digest == store.resolve("base:1").digest
    with pytest.raises(ocidiff.NotFoundError, match=r"there is app:v1, base:1"):
        other.copy(f"docker-archive:{tmp_path}/both.tar:no:1", "x:1")


def test_a_failure_leaves_what_was_there(store: ocidiff.EmbeddedStore, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"before")
    with pytest.raises(ocidiff.NotFoundError):
        store.save(["app:v1", "missing:1"], tmp_path / "a.tar")
    cancel = ocidiff.Cancellation()
    cancel.cancel()
    with pytest.raises(ocidiff.Cancelled):
        store.copy("app:v1", f"oci-archive:{tmp_path}/a.tar:x", cancel=cancel)
    assert (tmp_path / "a.tar").read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "store", "tree"]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_an_archive_comes_through_a_pipe_in_bounded_memory(
    store: ocidiff.EmbeddedStore, tmp_path: Path, *, packed: bool
) -> None:
    tree = tmp_path / "large"
    tree.mkdir()
    with open(tree / "file", "wb") as file:
        file.writelines(os.urandom(8 << 20) for _ in range(16))
    store.commit(tree, "large:1", compression="none")
    store.save(["large:1"], tmp_path / "a.tar")
    words = [sys.executable, "-c", _LOAD_AND_TELL_MEMORY, str(tmp_path / "other")]
    data = (tmp_path / "a.tar").read_bytes()
    done = subprocess.run(words, input=gzip.compress(data, 1) if packed else data, capture_output=True, check=True)
    digest, peak_kilobytes = done.stdout.split()
    assert digest.decode() == store.resolve("large:1").digest
    assert int(peak_kilobytes) < 100_000


_LOAD_AND_TELL_MEMORY = """
import sys, ocidiff
with ocidiff.Store.open(sys.argv[1]) as store:
    (one,) = store.load("-")
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(one.descriptor.digest, peak)
"""


def test_an_archive_of_an_old_docker_keeps_configuration_and_layers(other: ocidiff.EmbeddedStore, tmp_path: Path) -> None:
    layers = {"a" * 64: layer("etc/one", b"1"), "b" * 64: layer("etc/two", b"2")}
    path = docker_archive(
        tmp_path / "old.tar", tags=["app:v1", "docker.io/library/app:v2"], layers=layers, links={"c" * 64: "a" * 64}
    )
    loaded = other.load(path)
    assert [one.target for one in loaded] == ["app:v1", "app:v2"]
    image = other.inspect("app:v1")
    config: Any = image["config"]
    manifest: Any = image["manifest"]
    # Plain layers have their diff IDs for digests.
    assert [one["digest"] for one in manifest["layers"]] == config["rootfs"]["diff_ids"]
    assert manifest["config"]["digest"].partition(":")[2] + ".json" in contents(path)
    assert config["docker_version"] == "24.0.7"
    other.unpack("app:v1", tmp_path / "out")
    assert {name: (tmp_path / "out/etc" / name).read_text() for name in ("one", "two")} == {"one": "1", "two": "2"}
    assert other.verify().faults == ()


def test_compressed_layers_of_an_old_archive_are_known_by_their_own_digest(
    other: ocidiff.EmbeddedStore, tmp_path: Path
) -> None:
    plain = layer("file", b"x" * 1000)
    path = docker_archive(tmp_path / "old.tar", tags=["app:v1"], layers={"a": plain}, links={})
    files = contents(path)
    files["a/layer.tar"] = gzip.compress(plain, mtime=0)
    path.write_bytes(archives.tar(*(archives.file(name.encode(), data) for name, data in files.items())))
    other.load(path)
    manifest: Any = other.inspect("app:v1")["manifest"]
    assert manifest["layers"][0]["mediaType"].endswith("+gzip")
    assert other.verify().faults == ()


def test_names_are_taken_from_docker_where_the_index_has_none(other: ocidiff.EmbeddedStore, tmp_path: Path) -> None:
    layout = Handmade(tmp_path / "layout")
    layout.entries.append(layout.image({"file": "x"}))
    layout.finish()
    (entry,) = layout.entries
    manifest = json.loads((layout.path / "blobs/sha256" / entry["digest"].partition(":")[2]).read_bytes())
    config = "blobs/sha256/" + manifest["config"]["digest"].partition(":")[2]
    (layout.path / "manifest.json").write_text(json.dumps([{"Config": config, "RepoTags": ["named:1"], "Layers": []}]))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(layout.path, ".")
    assert [one.target for one in other.load(tmp_path / "a.tar")] == ["named:1"]


def test_an_index_of_several_platforms_is_saved_whole_or_for_one(other: ocidiff.EmbeddedStore, tmp_path: Path) -> None:
    layout = Handmade(tmp_path / "layout")
    members = []
    for architecture in ("amd64", "arm64"):
        platform = {"architecture": architecture, "os": "linux"}
        members.append({**layout.image({"arch": architecture}, architecture=architecture), "platform": platform})
    layout.name("multi:1", layout.index(members))
    with ocidiff.Store.open(layout.path, create=False) as store:
        store.save(["multi:1"], tmp_path / "one.tar", platform="linux/arm64")
        store.save(["multi:1"], tmp_path / "all.tar", everything=True)
        whole = store.resolve("multi:1").digest
    (one,) = other.load(tmp_path / "one.tar", platform="linux/arm64")
    assert one.descriptor.digest == members[1]["digest"]
    (one,) = other.load(tmp_path / "all.tar", everything=True)
    assert one.descriptor.digest == whole
    # Docker's list has the first one.
    (listed,) = json.loads(contents(tmp_path / "all.tar")["manifest.json"])
    assert json.loads(contents(tmp_path / "all.tar")[listed["Config"]])["architecture"] == "amd64"


def test_referrers_go_into_the_archive_and_come_back(other: ocidiff.EmbeddedStore, tmp_path: Path) -> None:
    layout = Handmade(tmp_path / "layout")
    image = layout.image({"file": "x"})
    layout.name("app:1", image)
    config = layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
    signature = layout.blob(b"signature", "application/x-signature")
    document = {"schemaVersion": 2, "mediaType": media_type.MANIFEST, "config": config, "layers": [signature]}
    layout.entries.append(layout.document({**document, "subject": image}, media_type.MANIFEST))
    layout.finish()
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.copy(f"oci:{layout.path}:app:1", "app:1", everything=True)
        store.save(["app:1"], tmp_path / "a.tar", everything=True)
    assert "blobs/sha256/" + signature["digest"].partition(":")[2] in contents(tmp_path / "a.tar")
    other.load(tmp_path / "a.tar", everything=True)
    other.save(["app:1"], tmp_path / "b.tar", everything=True)
    assert contents(tmp_path / "b.tar") == contents(tmp_path / "a.tar")


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, counts: Counter[object], at: int) -> None:
    """Count the calls of a function by one of its arguments."""
    really = getattr(owner, name)

    def count(*words: Any) -> Any:
        counts[str(words[at])] += 1
        return really(*words)

    monkeypatch.setattr(owner, name, count)


def test_many_names_and_equal_layers_cost_no_more_than_one(
    other: ocidiff.EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, written = Counter[object](), Counter[object]()
    counted(monkeypatch, read, "_packed", packed, 1)
    counted(monkeypatch, Files, "replace", written, 1)
    plain = layer("file", b"x")
    tags = [f"app:{number}" for number in range(50)]
    path = docker_archive(
        tmp_path / "many.tar", tags=tags, layers={"a": plain}, links={f"b{number}": "a" for number in range(20)}
    )
    loaded = other.load(path)
    assert [one.target for one in loaded] == tags
    assert [one.copied for one in loaded] == [2] + [0] * 49
    assert [one.skipped for one in loaded] == [0] + [2] * 49
    assert len({other.resolve(tag).digest for tag in tags}) == 1
    assert packed.total() == 1
    assert written["index.json"] == 1


def test_referrers_are_read_once(other: ocidiff.EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Handmade(tmp_path / "layout")
    images = [layout.image({"file": str(number)}) for number in range(4)]
    for number, image in enumerate(images):
        layout.name(f"app:{number}", image)
        config = layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
        document = {"schemaVersion": 2, "mediaType": media_type.MANIFEST, "config": config, "layers": [], "subject": image}
        layout.entries.append(layout.document({**document, "annotations": {"n": str(number)}}, media_type.MANIFEST))
    layout.finish()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(layout.path, ".")
    asked = Counter[object]()
    counted(monkeypatch, layouts, "_subject", asked, 1)
    other.load(tmp_path / "a.tar", everything=True)
    assert set(asked.values()) == {1}
    assert asked.total() == 4


@pytest.mark.parametrize("broken", ["missing", "cut"])
def test_a_failed_copy_leaves_no_empty_ingest(
    store: ocidiff.EmbeddedStore, other: ocidiff.EmbeddedStore, tmp_path: Path, broken: str
) -> None:
    manifest: Any = store.inspect("base:1")["manifest"]
    blob = tmp_path / "store/blobs/sha256" / manifest["layers"][0]["digest"].partition(":")[2]
    if broken == "missing":
        blob.unlink()
    else:
        os.truncate(blob, 10)
    with pytest.raises(ocidiff.OcidiffError):
        other.copy(f"oci:{tmp_path}/store:base:1", "base:1")
    assert all(data.stat().st_size for data in (tmp_path / "other/ingest").glob("*/data"))
    assert other.images() == []
