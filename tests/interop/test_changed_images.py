"""skopeo, umoci and buildah understand the configuration of an image that was made of a directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interop.tools import Tool
from ocidiff.oci import media_type
from ocidiff.store import Store

pytestmark = [pytest.mark.interop, pytest.mark.root]

CHANGES = [
    'ENTRYPOINT ["/bin/app", "--x"]',
    'CMD ["serve", "all"]',
    'ENV PATH=/bin GREETING="hello world"',
    "EXPOSE 80 53/udp",
    "HEALTHCHECK --interval=5s CMD /bin/check",
    "LABEL org.example.a=b",
    # buildah heeds it, which changes nothing here.
    "ONBUILD USER 7:8",
    "STOPSIGNAL SIGINT",
    "USER 7:8",
    "VOLUME /data",
    "WORKDIR /etc",
]


def _known_to_oci(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("Healthcheck", "OnBuild")}


@pytest.fixture
def made(store: Store, sample: Path) -> dict[str, Any]:
    """The configuration of the image `app:v1`, which has all that can be changed."""
    image = store.commit(sample / "lower", "app:v1", changes=CHANGES)
    document: dict[str, Any] = image.config.document()
    assert len(document["config"]) == len(CHANGES)
    return document


def test_skopeo_shows_the_configuration(made: dict[str, Any], tool: Callable[[str], Tool], tmp_path: Path) -> None:
    shown = json.loads(tool("skopeo").run("inspect", "--config", f"oci:{tmp_path}/store:app:v1"))["config"]
    assert shown == _known_to_oci(made["config"])
    whole = json.loads(tool("skopeo").run("inspect", "--config", "--raw", f"oci:{tmp_path}/store:app:v1"))
    assert whole == made


def test_a_runtime_starts_what_the_image_says(made: dict[str, Any], tool: Callable[[str], Tool], tmp_path: Path) -> None:
    tool("umoci").run("unpack", "--image", f"{tmp_path}/store:app:v1", tmp_path / "bundle")
    process = json.loads((tmp_path / "bundle" / "config.json").read_text())["process"]
    config = made["config"]
    assert process["args"] == [*config["Entrypoint"], *config["Cmd"]]
    assert (process["cwd"], process["user"]["uid"], process["user"]["gid"]) == ("/etc", 7, 8)
    assert set(config["Env"]) <= set(process["env"])


def test_buildah_makes_a_container_of_it(made: dict[str, Any], tool: Callable[[str], Tool], tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    buildah, storage = (
        tool("buildah"),
        ("--root", tmp_path / "root", "--runroot", tmp_path / "run", "--storage-driver", "vfs"),
    )
    # It makes a name of the path, which takes no capital letters.
    name = buildah.run(*storage, "from", "--signature-policy", policy, "oci:store:app:v1", directory=tmp_path).strip()
    try:
        shown = json.loads(buildah.run(*storage, "inspect", name))
        assert shown["OCIv1"]["config"] == _known_to_oci(made["config"])
        docker = shown["Docker"]["config"]
        assert {key: docker[key] for key in made["config"] if key != "OnBuild"} == {
            key: value for key, value in made["config"].items() if key != "OnBuild"
        }
    finally:
        buildah.run(*storage, "rm", name)


def test_skopeo_takes_dockers_format(store: Store, sample: Path, tool: Callable[[str], Tool], tmp_path: Path) -> None:
    store.commit(sample / "lower", "app:v1")
    image = store.commit(sample / "upper", "app:v2", base="app:v1", changes=CHANGES, format="docker")
    # A layout for skopeo holds OCI alone, so the blobs go into its plain directory.
    place = tmp_path / "plain"
    place.mkdir()
    (place / "version").write_text("Directory Transport Version: 1.1\n")
    blobs = tmp_path / "store" / "blobs" / "sha256"
    shutil.copy(blobs / image.descriptor.digest.hex, place / "manifest.json")
    for part in (image.manifest.config, *image.manifest.layers):
        shutil.copy(blobs / part.digest.hex, place / part.digest.hex)
    skopeo = tool("skopeo")
    shown = json.loads(skopeo.run("inspect", "--config", "--raw", f"dir:{place}"))
    assert shown["config"] == image.config.document()["config"]
    skopeo.run("copy", "--insecure-policy", f"dir:{place}", f"docker-archive:{tmp_path}/archive.tar:app:v2")
    skopeo.run("copy", "--insecure-policy", "--format", "oci", f"dir:{place}", f"oci:{tmp_path}/back:app")
    with Store.open(tmp_path / "back", create=False) as back:
        config = back.resolve("app"), back.inspect("app")["config"]
    assert config[0].media_type == media_type.MANIFEST
    assert isinstance(config[1], dict)
    assert config[1]["config"] == _known_to_oci(image.config.document()["config"])
