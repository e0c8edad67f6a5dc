"""Commits give the images that `docker commit` and `nerdctl commit` give, but for the rules that are named here."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ocidiff.errors import UsageError
from ocidiff.image.image import Image
from ocidiff.image.instructions import apply, parse
from ocidiff.image.mutate import merge_exec
from ocidiff.oci import media_type
from ocidiff.oci.config import ExecConfig
from ocidiff.oci.media_type import Format
from ocidiff.oci.platform import Platform
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support.layouts import Handmade

VECTORS = Path(__file__).parents[2] / "vectors" / "commit"
PEERS = {peer: json.loads((VECTORS / f"{peer}.json").read_text()) for peer in ("docker", "nerdctl")}
CASES = {f"{peer}-{case['name']}": (peer, case) for peer, golden in PEERS.items() for case in golden["cases"]}
DOCKERS = {case["name"]: case for case in PEERS["docker"]["cases"]}
# What commits know of a configuration and Docker passes on; a container has no more of its image than this.
PASSED_ON = {
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "Healthcheck"),
    *("OnBuild", "Shell", "ArgsEscaped"),
}
KNOWN = {"created", "author", "architecture", "os", "rootfs", "history", "config"}

Case = dict[str, Any]


def _changes(case: Case) -> list[str]:
    def text(change: str | dict[str, list[Any]]) -> str:
        if isinstance(change, str):
            return change
        start, unit, count = change["repeat"]
        return str(start + unit * count)

    return [text(change) for change in case["changes"]]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tree of every base, and the same with the file that some cases add."""
    golden = PEERS["docker"]
    places = []
    for name in ("same", "changed"):
        place = tmp_path_factory.mktemp(name) / "tree"
        with tarfile.open(fileobj=BytesIO(base64.b64decode(golden["layer"]))) as tar:
            tar.extractall(place, filter="fully_trusted")
        places.append(place)
    (places[1] / golden["added"]["path"]).write_text(golden["added"]["content"])
    return places[0], places[1]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """A store with the bases of both peers, each under its name; `scratch` has no layer."""
    handmade = Handmade(tmp_path_factory.mktemp("bases"))
    for peer, golden in PEERS.items():
        blob = base64.b64decode(golden["layer"])
        diff_id = "sha256:" + hashlib.sha256(gzip.decompress(blob)).hexdigest()
        for name, config in golden["bases"].items():
            of_docker = name == "docker"
            layer = handmade.blob(
                blob, "application/vnd.docker.image.rootfs.diff.tar.gzip" if of_docker else media_type.LAYER_GZIP
            )
            rootfs = {"type": "layers", "diff_ids": [] if name == "scratch" else [diff_id]}
            kinds = (
                (media_type.DOCKER_CONFIG, media_type.DOCKER_MANIFEST)
                if of_docker
                else (media_type.CONFIG, media_type.MANIFEST)
            )
            document = handmade.document({**config, "rootfs": rootfs}, kinds[0])
            image = handmade.manifest(document, [] if name == "scratch" else [layer], kind=kinds[1])
            if "variant" in config:
                platform = {key: config[key] for key in ("architecture", "os", "variant")}
                image = handmade.index([{**image, "platform": platform}])
            handmade.name(f"{peer}-{name}", image)
    with Store.open(handmade.path) as store:
        yield store


def _commit(store: EmbeddedStore, trees: tuple[Path, Path], peer: str, case: Case, created: str | None = None) -> Image:
    base = PEERS[peer]["bases"][case["base"]]
    variant = base.get("variant")
    return store.commit(
        trees[1] if case.get("files") else trees[0],
        "made",
        base=f"{peer}-{case['base']}",
        lower=trees[0],
        platform=f"{base['os']}/{base['architecture']}/{variant}" if variant else None,
        changes=_changes(case),
        author=case.get("author"),
        message=case.get("message"),
        created=created,
        format=Format.DOCKER if peer == "nerdctl" else Format.OCI,
    )


def _has_own_configuration(name: str) -> bool:
    # nerdctl looks at the configuration of the image alone.
    return CASES[name][0] == "docker" and "container" in CASES[name][1]


@pytest.mark.parametrize("name", [name for name in CASES if not _has_own_configuration(name)])
def test_a_commit_gives_the_image_of_the_peer(name: str, bases: EmbeddedStore, trees: tuple[Path, Path]) -> None:
    peer, case = CASES[name]
    base, result = PEERS[peer]["bases"][case["base"]], case["result"]
    if _changes(case):
        # Our rule: changes mean what they mean to Docker. nerdctl knows two of them, in one form.
        result = DOCKERS.get(case["name"], case)["result"]
    if "error" in result:
        with pytest.raises(UsageError, match=r"^change( [0-9]+)?: "):
            _commit(bases, trees, peer, case)
        return
    image = _commit(bases, trees, peer, case)
    made, expected = image.config.document(), result["image"]

    assert made["config"] == {**expected["config"], **_kept_of(base, expected)}
    assert made.get("author") == expected.get("author")
    # Our rule 11.3: variant, version and features of the platform are kept, and members that we do not know.
    assert {key: made[key] for key in made if key not in KNOWN} == {key: base[key] for key in base if key not in KNOWN}
    machine = Platform.of_machine()
    if "architecture" in base or (machine.architecture, machine.os) == ("amd64", "linux"):
        assert (made["architecture"], made["os"]) == (expected["architecture"], expected["os"])
    _check_history(made, base, case["result"], peer)
    _check_types(image, result if peer == "docker" else case["result"])


@pytest.mark.parametrize("name", ["everything", "env-18", "label-03", "health-merge-01", "entry-both-04", "kind-arm-change"])
def test_a_working_container_gives_the_configuration_that_its_tree_gives(
    name: str, bases: EmbeddedStore, trees: tuple[Path, Path]
) -> None:
    _, case = CASES[f"docker-{name}"]
    base = PEERS["docker"]["bases"][case["base"]]
    platform = f"{base['os']}/{base['architecture']}/{base['variant']}" if "variant" in base else None
    container = bases.create(f"docker-{case['base']}", driver="directory", platform=platform)
    given = {"author": case.get("author"), "message": case.get("message"), "created": "2023-11-14T22:13:20Z"}
    made = bases.commit(bases.containers.get(container.name), "made", changes=_changes(case), **given)
    of_tree = _commit(bases, trees, "docker", case, created=given["created"])
    assert made.config == of_tree.config
    assert made.descriptor.digest == of_tree.descriptor.digest


def _kept_of(base: Case, expected: Case) -> Case:
    """Our rules 11.3 and 11.19: what a container does not have of its image, the new image has all the same."""
    config = base.get("config", {})
    kept = {key: config[key] for key in config if key not in PASSED_ON or key == "Shell"}
    if "OnBuild" in config:
        kept["OnBuild"] = [*config["OnBuild"], *expected["config"].get("OnBuild", [])]
    return kept


def _check_history(made: Case, base: Case, result: Case, peer: str) -> None:
    config, recorded = base.get("config", {}), base.get("history") or []
    layers, steps = len(made["rootfs"]["diff_ids"]), made["history"]
    # Our rule 11.14: layers that the base says nothing of get a blank step each, so that all of them pair.
    assert sum(not step.get("empty_layer") for step in steps) == layers
    assert steps[: len(recorded)] == [{key: value for key, value in step.items() if value != ""} for step in recorded]
    if "error" in result:
        return
    last, diff_ids = dict(result["image"]["history"][-1]), result["image"]["rootfs"]["diff_ids"] or []
    # Our rule 11.14: the command is told with its entrypoint, as nerdctl does.
    last["created_by"] = " ".join([*config.get("Entrypoint", []), *config.get("Cmd", [])]) or "ocidiff commit"
    if peer == "nerdctl":
        # Our rule, and Docker's: a change that is none adds no layer.
        last["empty_layer"] = True
        diff_ids = diff_ids[:-1]
    assert layers == len(diff_ids)
    assert {**steps[-1], "created": ""} == last
    assert steps[-1]["created"] == made["created"]


def _check_types(image: Image, result: Case) -> None:
    if "types" not in result:
        return
    types = result["types"]
    assert (image.manifest.media_type, image.manifest.config.media_type) == (types["manifest"], types["config"])
    # Our rule: the layers are of the family of the manifest; the peers leave those of the base as they are.
    family = Format.OCI if types["manifest"] == media_type.MANIFEST else Format.DOCKER
    layers = [media_type.counterpart(layer, family) for layer in types["layers"]][: len(image.manifest.layers)]
    assert [layer.media_type for layer in image.manifest.layers] == layers


def _created(container: Case, base: Case) -> ExecConfig:
    """The configuration of a container, as Docker makes it of a request and an image."""
    image = ExecConfig.parse({key: value for key, value in base.items() if key not in ("Shell", "OnBuild")}, "image")
    if container.get("Entrypoint") == []:
        # An empty list is not an absent one here.
        image = replace(image, entrypoint=())
    made = merge_exec(ExecConfig.parse(container, "container"), image)
    return replace(made, working_dir=made.working_dir and posixpath.normpath(made.working_dir))


@pytest.mark.parametrize("name", [name for name in CASES if _has_own_configuration(name)])
def test_changes_of_a_container_with_a_configuration_of_its_own(name: str) -> None:
    peer, case = CASES[name]
    own = _created(case["container"], PEERS[peer]["bases"][case["base"]].get("config", {}))
    changes = _changes(case)
    config = merge_exec(apply(own, parse(changes)), own) if changes else own
    known = {key: value for key, value in config.document().items() if key in PASSED_ON}
    assert known == case["result"]["image"]["config"]


BUILDER = json.loads((VECTORS / "builder.json").read_text())


def test_every_vector_is_looked_at() -> None:
    assert [len(golden["cases"]) for golden in (*PEERS.values(), BUILDER)] == [202, 38, 995]


@pytest.mark.parametrize("config", range(len(BUILDER["configs"])))
def test_instructions_mean_what_they_mean_to_the_builder(config: int) -> None:
    start = ExecConfig.parse(BUILDER["configs"][config], "config")
    for case in BUILDER["cases"]:
        if case["config"] != config:
            continue
        changes = case["changes"]
        if "error" in case:
            with pytest.raises(UsageError, match=r"^change( [0-9]+)?: "):
                pytest.fail(f"{changes}: {apply(start, parse(changes))}")
        else:
            expected = {**start.document(), **case["result"]}
            made = apply(start, parse(changes)).document()
            assert made == {key: value for key, value in expected.items() if value is not None}, changes
