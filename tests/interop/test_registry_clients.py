"""crane, oras and podman: what one pushes the other reads. They are run where all peers are asked for: OCIDIFF_PEERS=all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ocidiff
from interop.tools import Tool

pytestmark = pytest.mark.interop


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for podman, which takes no long paths."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        yield Path(place)


def test_crane_and_we_read_each_other(images: ocidiff.Store, host: str, tool: Callable[[str], Tool], tmp_path: Path) -> None:
    crane, name = tool("crane"), f"{host}/crane/app:v2"
    done = images.copy("app:v2", f"docker://{name}")
    assert crane.run("digest", name).strip() == done.descriptor.digest
    crane.run("validate", "--remote", name)
    crane.run("pull", "--format", "oci", name, tmp_path / "layout")
    crane.run("push", tmp_path / "layout", f"{host}/crane/theirs:v2")
    with ocidiff.Store.open(tmp_path / "back") as back:
        assert back.copy(f"docker://{host}/crane/theirs:v2", "app:v2").descriptor.digest == done.descriptor.digest
        assert back.verify().faults == ()
    # An archive in the form of `docker save`.
    crane.run("pull", "--format", "tarball", name, tmp_path / "docker.tar")
    with ocidiff.Store.open(tmp_path / "docker") as back:
        (loaded,) = back.load(tmp_path / "docker.tar")
        assert loaded.copied == 3
        assert back.verify().faults == ()


def test_oras_and_we_read_each_other(images: ocidiff.Store, host: str, tool: Callable[[str], Tool], tmp_path: Path) -> None:
    oras, name = tool("oras"), f"{host}/oras/app:v2"
    done = images.copy("app:v2", f"docker://{name}")
    shown = json.loads(oras.run("manifest", "fetch", "--plain-http", "--descriptor", name))
    assert shown["digest"] == done.descriptor.digest
    oras.run("cp", "--from-plain-http", "--to-oci-layout", name, f"{tmp_path}/layout:v2")
    oras.run("cp", "--from-oci-layout", "--to-plain-http", f"{tmp_path}/layout:v2", f"{host}/oras/theirs:v2")
    with ocidiff.Store.open(tmp_path / "back") as back:
        assert back.copy(f"docker://{host}/oras/theirs:v2", "app:v2").descriptor.digest == done.descriptor.digest
        assert back.verify().faults == ()
    # An artifact, which is no image, goes from place to place as it is.
    (tmp_path / "note.txt").write_text("hello")
    oras.run("push", "--plain-http", f"{host}/oras/note:1", "note.txt:text/plain", directory=tmp_path)
    copied = images.copy(f"docker://{host}/oras/note:1", f"docker://{host}/oras/copied:1")
    assert oras.run("resolve", "--plain-http", f"{host}/oras/copied:1").strip() == copied.descriptor.digest


@pytest.mark.root
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_podman_and_we_read_each_other(
    images: ocidiff.Store, host: str, tool: Callable[[str], Tool], tmp_path: Path, short_path: Path, form: str
) -> None:
    line = ("--root", tmp_path / "podman", "--runroot", short_path, "--storage-driver", "vfs")
    podman, name = tool("podman"), f"{host}/podman/app:v2"
    done = images.copy("app:v2", f"docker://{name}")
    podman.run(*line, "pull", "--quiet", "--tls-verify=false", name)
    (shown,) = json.loads(podman.run(*line, "image", "inspect", name))
    assert shown["Digest"] == done.descriptor.digest
    podman.run(*line, "push", "--quiet", "--tls-verify=false", "--format", form, name, f"{host}/podman/theirs:v2")
    with ocidiff.Store.open(tmp_path / "back") as back:
        back.copy(f"docker://{host}/podman/theirs:v2", "app:v2")
        assert back.verify().faults == ()
        back.unpack("app:v2", tmp_path / "out")
    assert (tmp_path / "out/two").read_bytes() == (tmp_path / "tree/two").read_bytes()
    podman.run(*line, "rmi", "--all", "--force")
