"""Manifest, index, configuration, descriptor: read strictly, written whole."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ocidiff.errors import DocumentError
from ocidiff.oci import media_type
from ocidiff.oci.config import ExecConfig, History, ImageConfig, RootFS
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import ChainID, DiffID, Digest, chain_id
from ocidiff.oci.manifest import Manifest
from ocidiff.oci.platform import Platform

A = DiffID("sha256:a81e5fffaf17e77de51ab06ef441de1a369819bc4bf199524be43b2b5797a7d8")
B = DiffID("sha256:c11abbbc3ae6b771e19c4ac114edc7f4c4bb71070729464e13386c8b2597af80")

# commit-semantics, section 12.
CONFIG = (
    r'{"created":"2023-11-14T22:15:00.000000001Z","author":"A \u003ca@b\u003e","architecture":"amd64","os":"linux",'
    r'"rootfs":{"type":"layers","diff_ids":["' + A + '","' + B + r'"]},'
    r'"history":[{"created":"2023-11-14T22:13:20Z","created_by":"base"},{"created":"2023-11-14T22:15:00.000000001Z",'
    r'"created_by":"sh -c sleep 1 \u0026\u0026 true","author":"A \u003ca@b\u003e","comment":"msg"}],'
    r'"config":{"Env":["PATH=/bin"],"Cmd":["sh"],"WorkingDir":"/w","Labels":{"k":"v"}}}'
).encode()
EXAMPLE = ImageConfig(
    platform=Platform("amd64", "linux"),
    rootfs=RootFS((A, B)),
    created="2023-11-14T22:15:00.000000001Z",
    author="A <a@b>",
    history=(
        History("2023-11-14T22:13:20Z", "base"),
        History("2023-11-14T22:15:00.000000001Z", "sh -c sleep 1 && true", "A <a@b>", "msg"),
    ),
    config=ExecConfig(env=("PATH=/bin",), cmd=("sh",), working_dir="/w", labels={"k": "v"}),
)


def _descriptor(digit: str, size: int, kind: str = media_type.LAYER_GZIP) -> dict[str, Any]:
    return {"mediaType": kind, "digest": "sha256:" + digit * 64, "size": size}


def _manifest(**changes: Any) -> bytes:
    document = {
        "mediaType": media_type.MANIFEST,
        "schemaVersion": 2,
        "config": _descriptor("0", 1, media_type.CONFIG),
        "layers": [_descriptor("1", 2)],
    }
    return json.dumps({**document, **changes}).encode()


def _config(**changes: Any) -> bytes:
    return json.dumps({**json.loads(CONFIG), **changes}).encode()


def test_the_configuration_of_the_worked_example_has_its_bytes() -> None:
    data = EXAMPLE.encode()
    assert data == CONFIG
    assert len(data) == 582
    assert Digest.of(data) == "sha256:7f968acbadc0f8f28b570c84ffe385e314878cadacc0e04fcc81f6117369b63d"


def test_the_manifest_of_the_worked_example_has_its_bytes() -> None:
    manifest = Manifest(
        config=Descriptor(media_type.CONFIG, Digest.of(CONFIG), len(CONFIG)),
        layers=(
            Descriptor(media_type.LAYER_GZIP, Digest("sha256:" + "1" * 64), 111),
            Descriptor(media_type.LAYER_GZIP, Digest("sha256:" + "2" * 64), 222),
        ),
    )
    data = manifest.encode()
    assert len(data) == 740
    assert Digest.of(data) == "sha256:84fc1564a4408a161609e73c73a1d8f0443b57d53dc440af8106f31136238953"


def test_the_chain_of_the_worked_example_has_its_name() -> None:
    assert chain_id([A, B]) == "sha256:90b45170e757614c18745f53c3980044ee1b779e62248164cbbddaf4b1a93035"
    assert str(chain_id([A])) == A
    assert type(chain_id([A])) is ChainID
    with pytest.raises(ValueError, match="at least one"):
        chain_id([])


def test_the_worked_example_is_read_back_as_the_same_values() -> None:
    assert ImageConfig.parse(CONFIG, "config") == EXAMPLE


def test_a_configuration_keeps_its_platform_whole_and_what_it_does_not_know() -> None:
    document = {
        "created": "2023-11-14T22:15:00+05:30",
        "architecture": "arm",
        "os": "linux",
        "os.version": "10.0",
        "os.features": ["f"],
        "variant": "v6",
        "rootfs": {"type": "layers", "diff_ids": [], "more": 1},
        "history": [{"created_by": "x", "empty_layer": True, "more": [None]}],
        "config": {
            "User": "u",
            "ExposedPorts": {"1/tcp": {}},
            "Entrypoint": ["e"],
            "Volumes": {"/v": {}},
            "StopSignal": "9",
            "ArgsEscaped": True,
            "Healthcheck": {"Test": ["NONE"], "Interval": 1},
            "OnBuild": ["RUN x"],
            "Shell": ["s"],
            "Hostname": "h",
        },
        "container_config": {"Hostname": "h"},
        "docker_version": "1",
    }
    data = json.dumps(document, separators=(",", ":")).encode()
    assert ImageConfig.parse(data, "config").encode() == data


def test_a_configuration_with_nulls_as_docker_writes_them_is_read() -> None:
    config = ImageConfig.parse(_config(history=None, config={"Env": None, "Cmd": None, "Volumes": None}), "config")
    assert (config.history, config.config) == ((), ExecConfig())


def test_a_manifest_keeps_what_it_does_not_know() -> None:
    layer = {**_descriptor("1", 2), "urls": ["u"], "annotations": {"b": "1", "a": "2"}, "data": "", "platform": {}, "z": 1.5}
    manifest = Manifest.parse(_manifest(layers=[layer], annotations={"k": "v"}, artifactType="t"), media_type.MANIFEST, "m")
    assert json.loads(manifest.encode()) == json.loads(_manifest(layers=[layer], annotations={"k": "v"}, artifactType="t"))
    assert list(manifest.layers[0].document()) == [
        "mediaType",
        "digest",
        "size",
        "urls",
        "annotations",
        "data",
        "platform",
        "z",
    ]
    assert list(manifest.layers[0].document()["annotations"]) == ["a", "b"]  # type: ignore[call-overload]


def test_a_configuration_without_platform_is_read_and_completed() -> None:
    config = ImageConfig.parse(_config(os=None, architecture=""), "config")
    assert config.platform == Platform("", "")
    assert config.platform.completed(Platform("arm", "linux", "v7")) == Platform("arm", "linux", "v7")
    assert Platform("", "windows").completed(Platform("arm", "linux", "v7")) == Platform("arm", "windows", "v7")
    assert Platform("s390x", "").completed(Platform("arm", "linux", "v7")) == Platform("s390x", "linux")
    assert "os" not in config.document()


def test_layers_that_are_null_are_no_layers_and_are_written_as_a_list() -> None:
    manifest = Manifest.parse(_manifest(layers=None), media_type.MANIFEST, "m")
    assert json.loads(manifest.encode())["layers"] == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (_manifest(manifests=[]), "another kind of document"),
        (_manifest(manifests=None), "another kind of document"),
        (_manifest(mediaType=media_type.INDEX), "mediaType is"),
        (_manifest(mediaType=7), "mediaType is not a string"),
        (_manifest(schemaVersion=1), "schemaVersion is not 2"),
        (_manifest(schemaVersion=2.0), "schemaVersion is not a size"),
        (_manifest(config=None), "config is missing"),
        (_manifest(layers={}), "layers is not a list"),
        (_manifest(layers=[[]]), r"layers\[0\]: not a JSON object"),
        (_manifest(layers=[_descriptor("1", -1)]), r"layers\[0\]: size is not a size"),
        (_manifest(layers=[_descriptor("g", 1)]), r"layers\[0\]: digest: not a sha256 digest"),
        (_manifest(layers=[{**_descriptor("1", 1), "mediaType": ""}]), r"layers\[0\]: mediaType is missing"),
        (_manifest(layers=[{**_descriptor("1", 1), "annotations": {"a": 1}}]), "holds what is not a string"),
    ],
)
def test_a_malformed_manifest_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem):
        Manifest.parse(data, media_type.MANIFEST, "m")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (_config(rootfs={"type": "other", "diff_ids": []}), "rootfs: type is not 'layers'"),
        (_config(rootfs={"diff_ids": []}), "rootfs: type is not 'layers'"),
        (_config(rootfs=None), "rootfs is missing"),
        (_config(rootfs={"type": "layers", "diff_ids": ["sha256:../../x"]}), "not a sha256 digest"),
        (_config(created="yesterday"), "not an RFC 3339 time"),
        (_config(history=[{"created": "2023-13-01T00:00:00Z"}]), r"history\[0\]: created is"),
        (_config(config={"Cmd": "sh"}), "config: Cmd is not a list"),
        (_config(config={"cmd": ["sh"]}), "differs from a known member only by case"),
    ],
)
def test_a_malformed_configuration_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem):
        ImageConfig.parse(data, "config")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "md5:" + "a" * 32,
        "a" * 64,
        "sha256:../../../etc/passwd",
        "sha256:" + "a" * 64 + "\n",
        "sha256:sha256:" + "a" * 64,
        "x" * (1 << 20),
    ],
)
def test_what_is_no_digest_never_becomes_one(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        Digest(text)
    assert len(str(caught.value)) < 200


def test_values_cannot_be_changed() -> None:
    config = ImageConfig.parse(CONFIG, "config")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.author = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.config.labels["k"] = "w"  # type: ignore[index]
