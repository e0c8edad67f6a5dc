"""An image on a base in Docker's format is wholly in OCI's, so that umoci and skopeo read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.tools import Tool
from ocidiff.oci import media_type
from ocidiff.store import Store
from support import trees
from support.layouts import Handmade

pytestmark = [pytest.mark.interop, pytest.mark.root]

_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@pytest.fixture
def on_docker(tmp_path: Path, sample: Path) -> Path:
    """A layout with the image `app:v1` on a base of two layers in Docker's format, as crane and regctl leave one."""
    handmade = Handmade(tmp_path / "handmade")
    made = [handmade.layer({"first": "1"}, _LAYER), handmade.layer({"second": "2"}, _LAYER)]
    config = handmade.config([diff_id for _, diff_id in made], kind=media_type.DOCKER_CONFIG)
    layers = [layer for layer, _ in made]
    handmade.name("base", handmade.manifest(config, layers, kind=media_type.DOCKER_MANIFEST))
    with Store.open(handmade.path) as store:
        built = store.commit(sample / "lower", "app:v1", base="base")
    manifest = json.loads((handmade.path / "blobs" / "sha256" / built.descriptor.digest.hex).read_bytes())
    kinds = [manifest["mediaType"], manifest["config"]["mediaType"], *(layer["mediaType"] for layer in manifest["layers"])]
    assert kinds == [media_type.MANIFEST, media_type.CONFIG, *[media_type.LAYER_GZIP] * 3]
    assert [layer["digest"] for layer in manifest["layers"][:2]] == [layer["digest"] for layer in layers]
    return handmade.path


def test_umoci_unpacks_an_image_on_a_docker_base(
    on_docker: Path, sample: Path, tool: Callable[[str], Tool], tmp_path: Path
) -> None:
    tool("umoci").run("unpack", "--image", f"{on_docker}:app:v1", tmp_path / "bundle")
    trees.assert_same_tree(tmp_path / "bundle" / "rootfs", sample / "lower")


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_skopeo_copies_an_image_on_a_docker_base(
    on_docker: Path, tool: Callable[[str], Tool], tmp_path: Path, form: str
) -> None:
    place = f"dir:{tmp_path}/directory"
    tool("skopeo").run("copy", "--insecure-policy", "--format", form, f"oci:{on_docker}:app:v1", place)
    shown = json.loads(tool("skopeo").run("inspect", "--raw", place))
    assert len(shown["layers"]) == 3
