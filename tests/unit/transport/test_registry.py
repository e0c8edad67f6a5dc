"""Copies to and from a registry: what is sent, in which order, and what is not."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

import ocidiff
from ocidiff.embedded.layout import Layout
from ocidiff.errors import NotFoundError, UsageError
from support.registries import INDEX, Registry, digest_of, serving


def at(registry: Registry, name: str) -> str:
    return f"docker://{registry.address}/{name}"


def sent(registry: Registry) -> list[str]:
    """What brought bytes."""
    return [path for verb, path, _ in registry.requests if verb in {"POST", "PUT", "PATCH"}]


def test_an_image_comes_back_byte_for_byte(store: ocidiff.Store, registry: Registry, tmp_path: Path) -> None:
    descriptor = store.resolve("app:v1")
    done = store.copy("app:v1", at(registry, "team/app:v1"))
    assert (done.copied, done.skipped, done.mounted) == (3, 0, 0)
    manifest = (tmp_path / "store/blobs/sha256" / descriptor.digest.hex).read_bytes()
    assert registry.manifests["team/app", "v1"] == (descriptor.media_type, manifest)
    with ocidiff.Store.open(tmp_path / "other") as other:
        back = other.copy(at(registry, "team/app:v1"), "app:back")
        assert back.descriptor.digest == descriptor.digest
        assert other.verify().faults == ()


def test_blobs_come_first_and_the_tag_last(store: ocidiff.Store, registry: Registry) -> None:
    digest = store.resolve("app:v1").digest
    store.copy("app:v1", at(registry, "app:v1"))
    puts = registry.asked("PUT")
    assert puts[-2:] == [f"/v2/app/manifests/{digest}", "/v2/app/manifests/v1"]
    assert all("/uploads/" in path for path in puts[:-2])


def test_what_was_pushed_is_mounted_into_another_repository(store: ocidiff.EmbeddedStore, registry: Registry) -> None:
    assert store.copy("app:v1", at(registry, "first:v1")).copied == 3
    registry.requests.clear()
    assert store.copy("app:v1", at(registry, "second:v1")).mounted == 3
    assert [path for path in sent(registry) if "/manifests/" not in path and "mount=" not in path] == []
    # A note on a repository that is gone does no harm.
    registry.blobs.clear()
    registry.manifests.clear()
    assert store.copy("app:v1", at(registry, "third:v1")).copied == 3
    with serving(Registry()) as elsewhere:
        assert store.copy("app:v1", f"docker://{elsewhere}/first:v1").copied == 3
    for number in range(12):
        assert store.copy("app:v1", at(registry, f"more/r{number}:v1")).mounted == 3


def test_a_store_that_can_only_be_read_is_pushed_from(
    store: ocidiff.EmbeddedStore, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Layout, "label_all", refuse)
    assert store.copy("app:v1", at(registry, "first:v1")).copied == 3
    assert store.copy("app:v1", at(registry, "second:v1")).copied == 3


def test_nothing_is_sent_that_is_there(store: ocidiff.Store, registry: Registry) -> None:
    store.copy("app:v1", at(registry, "app:v1"))
    registry.requests.clear()
    done = store.copy("app:v1", at(registry, "app:v1"))
    assert (done.copied, done.skipped) == (0, 3)
    assert sent(registry) == []
    done = store.copy("base:1", at(registry, "app:base"))
    # The configuration.
    assert (done.copied, done.skipped) == (1, 1)


def test_a_blob_of_another_repository_is_mounted(store: ocidiff.Store, registry: Registry, tmp_path: Path) -> None:
    store.copy("app:v1", at(registry, "first:v1"))
    done = ocidiff.copy(at(registry, "first:v1"), at(registry, "second:v1"))
    assert (done.copied, done.mounted) == (0, 3)
    with ocidiff.Store.open(tmp_path / "other") as other:
        other.copy(at(registry, "first:v1"), "app:v1")
        # The store knows where its blobs came from.
        done = other.copy("app:v1", at(registry, "third:v1"))
    assert (done.copied, done.mounted) == (0, 3)


def test_a_layer_is_not_needed_here_if_it_is_there(store: ocidiff.Store, registry: Registry, tmp_path: Path) -> None:
    store.copy("base:1", at(registry, "app:base"))
    layer = json.loads(registry.manifests["app", "base"][1])["layers"][0]["digest"]
    (tmp_path / "store/blobs/sha256" / layer.partition(":")[2]).unlink()
    done = store.copy("app:v1", at(registry, "app:v1"))
    assert (done.copied, done.skipped) == (2, 1)
    with pytest.raises(NotFoundError, match=layer):
        store.copy("app:v1", at(registry, "elsewhere:v1"))
    assert ("elsewhere", "v1") not in registry.manifests


def test_several_tags(store: ocidiff.Store, registry: Registry) -> None:
    store.copy("app:v1", at(registry, "app:v1"), registry=ocidiff.Registry(tags=["v1.0", "latest"]))
    assert {reference for _, reference in registry.manifests if ":" not in reference} == {"v1", "v1.0", "latest"}
    with pytest.raises(UsageError, match="tag"):
        store.copy("app:v1", at(registry, "app:v1"), registry=ocidiff.Registry(tags=["a/b"]))


def test_a_digest_decides(store: ocidiff.Store, registry: Registry, tmp_path: Path) -> None:
    digest = store.resolve("app:v1").digest
    store.copy("app:v1", at(registry, f"app:v1@{digest}"))
    store.copy("base:1", at(registry, "app:v1"))
    with ocidiff.Store.open(tmp_path / "other") as other:
        assert other.copy(at(registry, f"app:v1@{digest}"), "app:v1").descriptor.digest == digest
    registry.requests.clear()
    with pytest.raises(UsageError, match="has the digest"):
        store.copy("base:1", at(registry, f"app:v1@{digest}"))
    assert sent(registry) == []


def test_chunks_have_the_size_that_was_asked_for(store: ocidiff.Store, registry: Registry) -> None:
    store.copy("app:v1", at(registry, "app:v1"), registry=ocidiff.Registry(chunk_bytes=1 << 20))
    sizes = [int(headers["Content-Length"]) for headers in registry.headers_of("PATCH")]
    assert len(sizes) >= 4
    assert max(sizes) == 1 << 20
    monolithic = Registry()
    with serving(monolithic):
        store.copy("app:v1", at(monolithic, "app:v1"))
    assert monolithic.asked("PATCH") == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("docker://localhost:5000/Team/app", "lower case"),
        ("docker://localhost:5000/app:v1:v2", "is no repository"),
        ("docker://localhost:5000/app@sha256:123", "not a sha256 digest"),
        ("docker://localhost:5000/", "is no repository"),
        ("docker://localhost:5000/../v2/app", "is no repository"),
        ("docker://localhost:5000/app:v 1", "is no tag"),
        ("docker://-host.example/app", "is no host"),
        ("https://localhost:5000/app", "no place begins with"),
        ("docker-daemon:app:v1", "no place begins with"),
        ("oci:", "takes oci:DIR"),
    ],
)
def test_names_that_are_none(store: ocidiff.Store, name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        store.copy("app:v1", name)
    with pytest.raises(UsageError, match=problem):
        store.copy(name, "app:v2")


def test_short_names_mean_what_they_mean_to_docker() -> None:
    from ocidiff.transport.registry.name import RegistryName

    assert str(RegistryName.parse("debian")) == "docker.io/library/debian:latest"
    assert str(RegistryName.parse("debian:13")) == "docker.io/library/debian:13"
    assert str(RegistryName.parse("team/app")) == "docker.io/team/app:latest"
    assert str(RegistryName.parse("index.docker.io/app")) == "docker.io/library/app:latest"
    assert str(RegistryName.parse("localhost/app")) == "localhost/app:latest"
    assert str(RegistryName.parse("host:5000/a/b/c:v1")) == "host:5000/a/b/c:v1"
    digest = digest_of(b"")
    both = RegistryName.parse(f"[::1]:5000/app:v1@{digest}")
    assert (both.host, both.repository, both.tag, both.reference) == ("[::1]:5000", "app", "v1", digest)


def put(registry: Registry, repository: str, document: dict[str, object], kind: str, tag: str = "") -> dict[str, object]:
    """Put a document into a registry; its descriptor."""
    data = json.dumps(document).encode()
    for reference in filter(None, (digest_of(data), tag)):
        registry.manifests[repository, reference] = (kind, data)
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


def blob(registry: Registry, repository: str, data: bytes, kind: str) -> dict[str, object]:
    registry.blobs[repository, digest_of(data)] = data
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def several(registry: Registry, store: ocidiff.Store) -> Registry:
    """A registry whose image `app:all` is for two platforms, with an attestation, a signature and a blob of unknown type."""
    store.copy("app:v1", at(registry, "app:amd64"))
    kind, data = registry.manifests["app", "amd64"]
    amd64 = {"mediaType": kind, "digest": digest_of(data), "size": len(data)}
    config = json.loads(registry.blobs["app", json.loads(data)["config"]["digest"]])
    config["architecture"] = "riscv64"
    other = {
        **json.loads(data),
        "config": blob(registry, "app", json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
    }
    riscv64 = put(registry, "app", other, MANIFEST)
    empty = blob(registry, "app", b"{}", "application/vnd.oci.empty.v1+json")
    proof = blob(registry, "app", b"in-toto", "application/vnd.in-toto+json")
    parts = {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [proof]}
    attestation = put(registry, "app", parts, MANIFEST)
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": amd64["digest"]}
    signature = {**parts, "artifactType": "application/x-signature", "subject": amd64, "annotations": {"by": "me"}}
    put(registry, "app", signature, MANIFEST)
    members = [
        {**amd64, "platform": {"os": "linux", "architecture": "amd64"}},
        {**riscv64, "platform": {"os": "linux", "architecture": "riscv64"}},
        {**attestation, "platform": {"os": "unknown", "architecture": "unknown"}, "annotations": about},
        blob(registry, "app", b"what is it?", "application/x-unknown"),
    ]
    put(registry, "app", {"schemaVersion": 2, "mediaType": INDEX, "manifests": members}, INDEX, "all")
    return registry


def test_a_store_gets_the_index_and_one_image_of_it(several: Registry, tmp_path: Path) -> None:
    index = digest_of(several.manifests["app", "all"][1])
    with ocidiff.Store.open(tmp_path / "other") as other:
        done = other.copy(at(several, "app:all"), "app:all", platform="linux/amd64")
        assert done.descriptor.digest == index
        assert other.inspect("app:all", platform="linux/amd64")["name"] == "app:all"
        assert other.verify().faults == ()
        with pytest.raises(NotFoundError):
            other.inspect("app:all", platform="linux/riscv64")
        # The attestation of this image came with it.
        names = {path.name for path in (tmp_path / "other/blobs/sha256").iterdir()}
        assert digest_of(b"in-toto").partition(":")[2] in names
        other.copy(at(several, "app:all"), "app:all", everything=True)
        assert other.inspect("app:all", platform="linux/riscv64")["name"] == "app:all"
        other.collect()
        assert other.verify().faults == ()


def test_another_registry_gets_one_image_without_the_index(several: Registry) -> None:
    target = Registry()
    with serving(target):
        done = ocidiff.copy(at(several, "app:all"), at(target, "app:one"), platform="linux/riscv64")
        assert done.descriptor.media_type == MANIFEST
        assert INDEX not in {kind for kind, _ in target.manifests.values()}
        with pytest.raises(NotFoundError, match="no image for linux/s390x"):
            ocidiff.copy(at(several, "app:all"), at(target, "app:one"), platform="linux/s390x")


@pytest.mark.parametrize("lists_referrers", [True, False])
def test_everything_is_carried_along(several: Registry, tmp_path: Path, lists_referrers: bool) -> None:
    target = Registry(lists_referrers=lists_referrers)
    with serving(target), ocidiff.Store.open(tmp_path / "other") as other:
        other.copy(at(several, "app:all"), "app:all", everything=True)
        other.collect()
        other.copy("app:all", f"oci:{tmp_path}/layout:all", everything=True)
        ocidiff.copy(f"oci:{tmp_path}/layout:all", at(target, "app:all"), everything=True)
        expected = {key for key in several.manifests if ":" in key[1]}
        lists = {key for key in target.manifests if key[1].startswith("sha256-")}
        assert {key for key in target.manifests if ":" in key[1]} >= expected
        assert bool(lists) is not lists_referrers
        assert target.blobs == several.blobs
        # And from there on.
        last = Registry()
        with serving(last):
            ocidiff.copy(at(target, "app:all"), at(last, "app:all"), everything=True)
        assert {key for key in last.manifests if ":" in key[1]} >= expected
    if lists:
        listed = json.loads(target.manifests[lists.pop()][1])["manifests"][0]
        assert (listed["artifactType"], listed["annotations"]) == ("application/x-signature", {"by": "me"})
