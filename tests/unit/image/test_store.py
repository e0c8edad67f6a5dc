"""The store: names, listings, documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocidiff.cli.main import main
from ocidiff.errors import DocumentError, NotFoundError, UsageError
from ocidiff.image.changes import ConfigChanges
from ocidiff.oci import media_type
from ocidiff.oci.platform import Platform
from ocidiff.store import Store
from support.layouts import Handmade


def test_images_are_found_by_every_form_of_reference(handmade: Handmade) -> None:
    first, second = handmade.image({"f": "1"}), handmade.image({"f": "2"})
    handmade.name("app:latest", first)
    handmade.name("app:v2", second)
    with Store.open(handmade.path) as store:
        for text in ("app", "app:latest", f"app@{first['digest']}", f"app:latest@{first['digest']}", first["digest"]):
            assert store.resolve(text).digest == first["digest"]
        for text in ("app:v2", f"app@{second['digest']}", second["digest"]):
            assert store.resolve(text).digest == second["digest"]


@pytest.mark.parametrize("text", ["other", "app:v3", "app@sha256:" + "0" * 64, "sha256:" + "0" * 64])
def test_what_is_not_there_is_not_found(handmade: Handmade, text: str) -> None:
    handmade.name("app:latest", handmade.image({"f": "1"}))
    with Store.open(handmade.path) as store, pytest.raises(NotFoundError):
        store.resolve(text)


def test_other_spellings_of_a_name_find_an_image(handmade: Handmade) -> None:
    first, second = handmade.image({"f": "1"}), handmade.image({"f": "2"})
    handmade.name("docker.io/library/app:v1", first)
    handmade.name("team/app:v2", second)
    with Store.open(handmade.path) as store:
        for text in ("app:v1", "library/app:v1", "docker.io/app:v1", f"app@{first['digest']}"):
            assert store.resolve(text).digest == first["digest"]
        assert store.resolve("docker.io/team/app:v2").digest == second["digest"]
        with pytest.raises(NotFoundError, match=r"there is docker\.io/library/app:v1"):
            store.resolve("app:v3")
        store.untag("app:v1")
        assert [image.name for image in store.images()] == ["team/app:v2"]


def test_the_exact_name_is_taken_before_other_spellings(handmade: Handmade) -> None:
    short, long = handmade.image({"f": "1"}), handmade.image({"f": "2"})
    handmade.name("docker.io/library/app:v1", long)
    handmade.name("app:v1", short)
    with Store.open(handmade.path) as store:
        assert store.resolve("app:v1").digest == short["digest"]
        assert store.resolve("docker.io/library/app:v1").digest == long["digest"]
        with pytest.raises(DocumentError, match="2 images are named 'library/app:v1'"):
            store.resolve("library/app:v1")


def test_a_new_name_replaces_the_same_name_in_its_spelling(handmade: Handmade) -> None:
    first, second = handmade.image({"f": "1"}), handmade.image({"f": "2"})
    handmade.name("docker.io/library/app:v1", first)
    handmade.name("other:v1", second)
    with Store.open(handmade.path) as store:
        store.tag("other:v1", "app:v1")
        assert sorted(str(image.name) for image in store.images()) == ["docker.io/library/app:v1", "other:v1"]
        assert store.resolve("app:v1").digest == second["digest"]


def test_a_layout_of_bare_tags_stays_one(handmade: Handmade, tmp_path: Path) -> None:
    handmade.name("v9", handmade.image({"f": "1"}))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    with Store.open(handmade.path) as store:
        image = store.commit(tree, "v10", base="v9")
        assert image.name == "v10"
        store.tag("v10", "v11")
        assert [found.name for found in store.images()] == ["v9", "v10", "v11"]


def test_a_name_that_no_registry_takes_is_read_but_not_given(handmade: Handmade) -> None:
    image = handmade.image({"f": "1"})
    handmade.name("App:V1", image)
    with Store.open(handmade.path) as store:
        assert store.resolve("App:V1").digest == image["digest"]
        with pytest.raises(UsageError, match="write 'new:V1'"):
            store.tag("App:V1", "New:V1")
        store.tag("App:V1", "app:V1")
        store.untag("App:V1")
        assert [found.name for found in store.images()] == ["app:V1"]


def test_a_digest_under_another_name_is_not_found(handmade: Handmade) -> None:
    image = handmade.image({"f": "1"})
    handmade.name("app:v1", image)
    with Store.open(handmade.path) as store:
        for text in ("other", "app:v2"):
            with pytest.raises(NotFoundError, match="of digest"):
                store.resolve(f"{text}@{image['digest']}")


@pytest.mark.parametrize("name", ["v1", "plain", "Weird__name", "a b", "x/y"])
def test_names_of_other_tools_are_taken_as_they_are(handmade: Handmade, name: str) -> None:
    image = handmade.image({"f": "1"})
    handmade.name(name, image)
    with Store.open(handmade.path) as store:
        assert store.resolve(name).digest == image["digest"]
        assert store.images()[0].name == name


def test_our_own_name_goes_before_that_of_another_tool(handmade: Handmade) -> None:
    plain, tagged = handmade.image({"f": "1"}), handmade.image({"f": "2"})
    handmade.name("app", plain)
    handmade.name("app:latest", tagged)
    with Store.open(handmade.path) as store:
        assert store.resolve("app").digest == tagged["digest"]


def test_text_that_can_be_no_name_is_wrong_usage(store: Store) -> None:
    with pytest.raises(UsageError):
        store.resolve("../../etc")


def test_a_name_of_several_images_is_ambiguous(handmade: Handmade) -> None:
    for content in ("1", "2"):
        handmade.name("app:v1", handmade.image({"f": content}))
    with Store.open(handmade.path) as store, pytest.raises(DocumentError, match="2 images are named"):
        store.resolve("app:v1")


def test_an_image_that_lost_its_name_is_found_by_its_digest(store: Store, rootfs: Path) -> None:
    lost = store.commit(rootfs, "app", engine="pure")
    (rootfs / "new").touch()
    store.commit(rootfs, "app", engine="pure")
    assert store.resolve(lost.descriptor.digest) == lost.descriptor
    assert store.commit(rootfs, "app:v2", base=lost.descriptor.digest, engine="pure").layer is not None
    assert lost.layer is not None
    for digest in (lost.layer.descriptor.digest, lost.config_digest):
        with pytest.raises(NotFoundError, match="is not an image"):
            store.resolve(digest)


def test_a_listing_says_what_is_there(handmade: Handmade) -> None:
    handmade.name("app:v1", handmade.image({"f": "1"}, created="2020-01-01T00:00:00Z", variant="v1"))
    handmade.entries.append(handmade.image({"f": "2"}))
    handmade.name("broken", {**handmade.image({"f": "3"}), "digest": "sha256:" + "0" * 64})
    handmade.name("other", handmade.blob(b"text", "text/plain"))
    with Store.open(handmade.path) as store:
        named, unnamed, broken, other = store.images()
    assert (named.name, named.created, str(named.platform)) == ("app:v1", "2020-01-01T00:00:00Z", "linux/amd64/v1")
    assert named.size is not None
    assert named.size == sum(handmade.entries[0]["size"] for _ in "m") + sum(
        part["size"] for part in _parts(handmade, handmade.entries[0]["digest"])
    )
    assert (unnamed.name, unnamed.created) == (None, None)
    for record in (broken, other):
        assert (record.created, record.size, record.platform) == (None, None, None)


def _parts(handmade: Handmade, digest: str) -> list[dict[str, int]]:
    manifest = json.loads((handmade.path / "blobs" / "sha256" / digest[7:]).read_text())
    return [manifest["config"], *manifest["layers"]]


def test_an_inspection_shows_the_documents(handmade: Handmade) -> None:
    image = handmade.image({"f": "1"}, config={"Cmd": ["sh"]})
    handmade.name("app:v1", image)
    with Store.open(handmade.path) as store:
        document = store.inspect("app:v1")
    assert list(document) == ["name", "descriptor", "manifest", "config"]
    assert document["name"] == "app:v1"
    assert document["descriptor"] == image
    assert document["manifest"] == json.loads((handmade.path / "blobs" / "sha256" / image["digest"][7:]).read_text())
    assert json.loads(json.dumps(document)) == document


def test_an_index_in_an_index_leads_to_its_images(handmade: Handmade) -> None:
    image = handmade.image({"f": "1"}, architecture="s390x")
    inner = handmade.index([image])
    handmade.name(
        "app", handmade.index([{**handmade.image({"f": "2"}), "platform": {"os": "a", "architecture": "b"}}, inner])
    )
    with Store.open(handmade.path) as store:
        assert store.inspect("app", platform="linux/s390x")["descriptor"] == image


def test_indexes_that_nest_without_end_are_refused(handmade: Handmade) -> None:
    index = handmade.index([])
    for _ in range(10):
        index = handmade.index([index])
    handmade.name("app", index)
    with Store.open(handmade.path) as store, pytest.raises(DocumentError, match="nest more than 4 deep"):
        store.inspect("app")


def test_a_manifest_under_a_false_media_type_is_refused(handmade: Handmade) -> None:
    handmade.name("app", {**handmade.image({"f": "1"}), "mediaType": media_type.DOCKER_MANIFEST})
    with Store.open(handmade.path) as store, pytest.raises(DocumentError, match="mediaType is"):
        store.inspect("app")


def test_an_image_for_another_platform_than_asked_for_is_not_found(handmade: Handmade) -> None:
    handmade.name("app", handmade.image({"f": "1"}))
    with Store.open(handmade.path) as store:
        with pytest.raises(NotFoundError, match="is for linux/amd64, not for linux/arm64"):
            store.inspect("app", platform="linux/arm64")
        store.inspect("app", platform="linux/amd64")


def test_a_text_in_place_of_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with Store.open(tmp_path / "store") as store:
        with pytest.raises(UsageError, match=r"additions 'a:/b': must be a list: \['a:/b'\]"):
            store.commit(tmp_path / "tree", "app", additions="a:/b")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"unset_env 'PATH': must be a list"):
            store.commit(tmp_path / "tree", "app", changes=ConfigChanges(unset_env="PATH"))
        assert store.commit(tmp_path / "tree", "app", changes='CMD ["x"]').config.config.cmd == ("x",)
        with pytest.raises(UsageError, match="format 'ocii': must be oci or docker"):
            store.commit(tmp_path / "tree", "app", format="ocii")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="driver 'overly': must be overlay or directory"):
            store.create("app", driver="overly")  # type: ignore[arg-type]


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    containers = store.containers
    (tmp_path / "tree").mkdir()
    store.commit(tmp_path / "tree", "app")
    assert repr(store) == f"<EmbeddedStore {tmp_path / 'store'}>"
    store.close()
    store.close()
    for call in (
        store.images,
        containers.list,
        lambda: list(containers),
        lambda: store.commit(tmp_path / "tree", "app"),
        lambda: store.unpack("app", tmp_path / "out"),
        lambda: store.create("app"),
        store.collect,
        store.verify,
    ):
        with pytest.raises(UsageError, match=r"store .*: is closed"):
            call()


def test_containers_are_iterated(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "tree", "app")
        for name in ("one", "two"):
            store.create("app", name, driver="directory")
        assert [container.name for container in store.containers] == ["one", "two"]
        assert len(store.containers) == 2


def test_all_platforms_of_an_image_are_listed(handmade: Handmade, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = Platform.of_machine(), Platform("riscv64", "linux")
    members = [
        {
            **handmade.image({"f": str(one)}, os=one.os, architecture=one.architecture),
            "platform": {"os": one.os, "architecture": one.architecture},
        }
        for one in (there, here)
    ]
    handmade.name("multi:v1", handmade.index(members))
    handmade.name("single:v1", handmade.image({"f": "1"}))
    with Store.open(handmade.path) as store:
        multi, single = store.images()
    assert (multi.platform, multi.platforms) == (here, (there, here))
    assert (single.platform, single.platforms) == (here, ())
    assert main(["--store", str(handmade.path), "images", "multi", "--format", "{{.Platform}}"]) == 0
    assert capsys.readouterr().out == f"{here}, {there}\n"


def test_a_bare_name_of_a_container_is_answered_with_how_to_name_it(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "tree", "app")
        store.create("app", "work", driver="directory")
        with pytest.raises(FileNotFoundError) as caught:
            store.commit("work", "new")
        assert caught.value.__notes__ == ["for the container of that name, give container('work')"]
        assert store.commit(store.container("work"), "new").name == "new:latest"
        with pytest.raises(FileNotFoundError) as caught:
            store.commit("nothing", "new")
        assert not hasattr(caught.value, "__notes__")
