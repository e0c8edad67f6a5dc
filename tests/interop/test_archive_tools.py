"""Archives of skopeo, buildah, umoci and Docker are read, and they read ours."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from interop.tools import Tool
from ocidiff.image.image import Image
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support import trees

pytestmark = [pytest.mark.interop, pytest.mark.root]

# Written by Docker 29 (moby 2.0.0-beta.24) with `docker save app:v1 app:v2`, with containerd's store and with its own.
OF_DOCKER = sorted((Path(__file__).parent / "archives").glob("docker-*.tar.gz"))


@pytest.fixture
def image(store: EmbeddedStore, sample: Path) -> Image:
    store.commit(sample / "lower", "app:v1")
    return store.commit(sample / "upper", "app:v2", base="app:v1", lower=sample / "lower")


@contextmanager
def other(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with Store.open(tmp_path / "other") as store:
        yield store


Make = Callable[[Callable[[str], Tool], Path, str], None]


def skopeo(*options: str, to: str) -> Make:
    """What skopeo writes of an image to an archive."""

    def make(tool: Callable[[str], Tool], archive: Path, source: str) -> None:
        tool("skopeo").run("copy", "--insecure-policy", *options, source, to.format(archive))

    return make


def buildah(*options: str, to: str) -> Make:
    """What buildah writes of an image that it has pulled."""

    def make(tool: Callable[[str], Tool], archive: Path, source: str) -> None:
        place = archive.parent / "buildah"
        line = ("--root", place / "root", "--runroot", place / "run", "--storage-driver", "vfs")
        # buildah takes no upper case in a path.
        source = source.replace(f"{archive.parent}/", "")
        pull = ("pull", "--quiet", "--policy", "always", source)
        digest = tool("buildah").run(*line, *pull, directory=archive.parent).strip()
        tool("buildah").run(*line, "push", "--quiet", *options, digest, to.format(archive))

    return make


def umoci(*names: str) -> Make:
    """The tar of a layout that umoci has made."""

    def make(tool: Callable[[str], Tool], archive: Path, source: str) -> None:
        layout = archive.parent / "layout"
        tool("skopeo").run("copy", "--insecure-policy", source, f"oci:{layout}:there")
        tool("umoci").run("tag", "--image", f"{layout}:there", "back")
        tool("umoci").run("rm", "--image", f"{layout}:there")
        subprocess.run(["tar", "-C", layout, "-cf", archive, *(names or sorted(os.listdir(layout)))], check=True)

    return make


def packed(make: Make) -> Make:
    def made(tool: Callable[[str], Tool], archive: Path, source: str) -> None:
        make(tool, archive, source)
        archive.write_bytes(gzip.compress(archive.read_bytes()))

    return made


MAKERS: dict[str, Make] = {
    "skopeo docker-archive": skopeo(to="docker-archive:{}:back:latest"),
    "skopeo docker-archive, two tags": skopeo("--additional-tag", "more:1", to="docker-archive:{}:back:latest"),
    "skopeo docker-archive, docker's types": skopeo("--format", "v2s2", to="docker-archive:{}:back:latest"),
    "skopeo docker-archive, compressed": packed(skopeo(to="docker-archive:{}:back:latest")),
    "skopeo oci-archive": skopeo(to="oci-archive:{}:back:latest"),
    "skopeo oci-archive, zstd": skopeo("--dest-compress-format", "zstd", to="oci-archive:{}:back:latest"),
    "skopeo oci-archive, plain": skopeo("--dest-decompress", to="oci-archive:{}:back:latest"),
    "skopeo oci-archive, compressed": packed(skopeo(to="oci-archive:{}:back:latest")),
    "buildah docker-archive": buildah(to="docker-archive:{}:back:latest"),
    "buildah oci-archive": buildah(to="oci-archive:{}:back:latest"),
    "buildah oci-archive, docker's types": buildah("--format", "docker", to="oci-archive:{}:back:latest"),
    "umoci and tar": umoci(),
    "umoci and tar of a dot": umoci("."),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_an_archive_of_another_tool_is_loaded(
    maker: str, image: Image, sample: Path, tool: Callable[[str], Tool], tmp_path: Path
) -> None:
    archive = tmp_path / "theirs.tar"
    MAKERS[maker](tool, archive, f"oci:{tmp_path}/store:app:v2")
    with other(tmp_path) as store:
        assert "back:latest" in {done.target for done in store.load(archive)}
        assert store.verify().faults == ()
        unpacked = store.unpack("back", tmp_path / "out")
    assert unpacked.config.rootfs.diff_ids == image.config.rootfs.diff_ids
    trees.assert_same_tree(tmp_path / "out", sample / "upper", directory_times=True)


def test_an_archive_without_a_name_gets_one_by_copy(image: Image, tool: Callable[[str], Tool], tmp_path: Path) -> None:
    skopeo(to="oci-archive:{}")(tool, tmp_path / "theirs.tar", f"oci:{tmp_path}/store:app:v2")
    with other(tmp_path) as store:
        done = store.copy(f"oci-archive:{tmp_path}/theirs.tar", "mine:1")
        assert (done.descriptor.digest, store.verify().faults) == (image.descriptor.digest, ())


@pytest.mark.parametrize("archive", OF_DOCKER, ids=lambda path: path.name.partition(".")[0])
def test_an_archive_of_docker_is_loaded(archive: Path, tmp_path: Path) -> None:
    with other(tmp_path) as store:
        assert [done.target for done in store.load(archive)] == ["app:v1", "app:v2"]
        assert store.verify().faults == ()
        store.unpack("app:v2", tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out/etc").iterdir()} == {"f": "hi\n", "g": "x\n"}


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_reads_ours_as_either_form(
    form: str, image: Image, store: EmbeddedStore, sample: Path, tool: Callable[[str], Tool], tmp_path: Path
) -> None:
    store.save(["app:v1", "app:v2"], tmp_path / "ours.tar")
    source = f"{form}:{tmp_path}/ours.tar:app:v2"
    tool("skopeo").run("copy", "--insecure-policy", source, f"oci:{tmp_path}/copy:app:v2")
    with Store.open(tmp_path / "copy", create=False) as copy:
        copied = copy.unpack("app:v2", tmp_path / "out")
    assert copied.config.rootfs == image.config.rootfs
    if form == "oci-archive":
        assert copied.descriptor.digest == image.descriptor.digest
    trees.assert_same_tree(tmp_path / "out", sample / "upper", directory_times=True)
    tags = json.loads(tool("skopeo").run("list-tags", f"docker-archive:{tmp_path}/ours.tar"))
    assert tags["Tags"] == ["app:v1", "app:v2"]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_buildah_reads_ours_as_either_form(
    form: str, image: Image, store: EmbeddedStore, tool: Callable[[str], Tool], tmp_path: Path
) -> None:
    store.save(["app:v2"], tmp_path / "ours.tar")
    line = ("--root", tmp_path / "root", "--runroot", tmp_path / "run", "--storage-driver", "vfs")
    pulled = tool("buildah").run(*line, "pull", "--quiet", f"{form}:{tmp_path}/ours.tar").strip()
    assert f"sha256:{pulled}" == image.config_digest
    shown: Any = json.loads(tool("buildah").run(*line, "inspect", "--type", "image", pulled))
    assert shown["OCIv1"]["rootfs"]["diff_ids"] == list(image.config.rootfs.diff_ids)


def test_umoci_reads_ours_unpacked_by_tar(
    image: Image, store: EmbeddedStore, sample: Path, tool: Callable[[str], Tool], tmp_path: Path
) -> None:
    store.save(["app:v2"], tmp_path / "ours.tar")
    (tmp_path / "layout").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "layout", "-xf", tmp_path / "ours.tar"], check=True)
    tool("umoci").run("unpack", "--image", f"{tmp_path}/layout:app:v2", tmp_path / "bundle")
    trees.assert_same_tree(tmp_path / "bundle/rootfs", sample / "upper", directory_times=True)
