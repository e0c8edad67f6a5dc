"""What the distribution specification lets a registry do, and clients must handle, but Docker's registry does not do."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import ocidiff
from ocidiff.errors import DigestMismatchError
from ocidiff.oci import media_type
from support.layouts import Handmade
from support.registries import INDEX, Handler, Registry

MIB = 1 << 20


def at(registry: Registry, name: str = "app:v1") -> str:
    return f"docker://{registry.address}/{name}"


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"oci:{tmp_path}/other:v1"


@pytest.mark.parametrize("form", ["http://{address}{path}?state=a%2Fb&c", "{path}?state=x", "//{address}{path}"])
@pytest.mark.parametrize("chunk_bytes", [0, MIB])
def test_uploads_go_on_at_any_form_of_url(store: ocidiff.Store, registry: Registry, form: str, chunk_bytes: int) -> None:
    def fault(handler: Handler) -> bool:
        if handler.command == "POST":
            registry.begun += 1
            registry.uploads[str(registry.begun)] = bytearray()
            path = f"{urlsplit(handler.path).path}{registry.begun}"
            handler.reply(202, Location=form.format(address=registry.address, path=path))
        return handler.command == "POST"

    registry.faults.append(fault)
    assert store.copy("app:v1", at(registry), registry=ocidiff.Registry(chunk_bytes=chunk_bytes)).copied == 3
    # What the registry wrote into the URL comes back as it was.
    state = urlsplit(form).query
    first = registry.asked("PATCH" if chunk_bytes else "PUT", "/uploads/")
    assert all(state in path for path in first[:1])


def test_a_registry_says_how_small_a_chunk_may_be(store: ocidiff.Store, registry: Registry) -> None:
    def fault(handler: Handler) -> bool:
        if handler.command == "POST":
            registry.begun += 1
            registry.uploads[str(registry.begun)] = bytearray()
            place = f"{handler.path}{registry.begun}"
            handler.reply(202, Location=place, OCI_Chunk_Min_Length=str(2 * MIB))
        return handler.command == "POST"

    registry.faults.append(fault)
    store.copy("app:v1", at(registry), registry=ocidiff.Registry(chunk_bytes=1000))
    sizes = [int(headers["Content-Length"]) for headers in registry.headers_of("PATCH")]
    assert max(sizes) == 2 * MIB
    # The configuration, two of a layer of 3 MiB, and a layer of 1 MiB.
    assert len(sizes) == 4


def test_a_chunk_that_is_out_of_order_is_sent_from_where_the_registry_is(store: ocidiff.Store, registry: Registry) -> None:
    lost = [1]

    def fault(handler: Handler) -> bool:
        if handler.command != "PATCH" or not handler.headers["Content-Range"].startswith(f"{MIB}-") or not lost[0]:
            return False
        lost[0] = 0
        handler.body()
        handler.error(416, "RANGE_INVALID")
        return True

    registry.faults.append(fault)
    assert store.copy("app:v1", at(registry), registry=ocidiff.Registry(chunk_bytes=MIB)).copied == 3
    assert lost == [0]


def test_a_mount_that_is_refused_is_an_upload_that_has_begun(store: ocidiff.Store, registry: Registry) -> None:
    store.copy("app:v1", at(registry, "first:v1"))
    registry.blobs.clear()
    registry.manifests.clear()
    registry.requests.clear()
    assert store.copy("app:v1", at(registry, "second:v1")).copied == 3
    # The layers need no request more; the configuration is small.
    assert len(registry.asked("POST")) <= 4


def test_digests_need_not_be_said(store: ocidiff.Store, registry: Registry, other: str) -> None:
    reply = Handler.reply

    def fault(handler: Handler) -> bool:
        def silent(status: int, body: bytes = b"", **headers: str) -> None:
            headers.pop("Docker_Content_Digest", None)
            # Some have a word for all their users.
            reply(handler, status, body, Warning='299 - "this registry moves"', **headers)

        handler.reply = silent  # type: ignore[method-assign]
        return False

    registry.faults.append(fault)
    done = store.copy("app:v1", at(registry))
    assert ocidiff.copy(at(registry), other).descriptor.digest == done.descriptor.digest


def test_a_digest_that_is_said_wrong_is_refused(store: ocidiff.Store, registry: Registry, other: str) -> None:
    store.copy("app:v1", at(registry))

    def fault(handler: Handler) -> bool:
        if "/manifests/" not in handler.path or handler.command != "GET":
            return False
        kind, data = registry.manifests["app", "v1"]
        handler.reply(200, data, Content_Type=kind, Docker_Content_Digest="sha256:" + "0" * 64)
        return True

    registry.faults.append(fault)
    with pytest.raises(DigestMismatchError):
        ocidiff.copy(at(registry), other)


@pytest.fixture
def signed(tmp_path: Path) -> tuple[str, set[str]]:
    """A layout with an image that three manifests refer to, and their digests."""
    layout = Handmade(tmp_path / "signed")
    image = layout.image({"file": "x"})
    layout.name("app:1", image)
    found = set()
    for number in range(3):
        config = layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
        document = {"schemaVersion": 2, "mediaType": media_type.MANIFEST, "config": config, "layers": [], "subject": image}
        entry = layout.document({**document, "annotations": {"n": str(number)}}, media_type.MANIFEST)
        layout.entries.append(entry)
        found.add(entry["digest"])
    layout.finish()
    return f"oci:{layout.path}:app:1", found


def test_referrers_come_in_pages(signed: tuple[str, set[str]], registry: Registry, other: str, tmp_path: Path) -> None:
    source, digests = signed
    ocidiff.copy(source, at(registry), everything=True)

    def pages(handler: Handler) -> bool:
        parts = urlsplit(handler.path)
        if "/referrers/" not in parts.path or not parts.path.endswith(subject):
            return False
        page = sorted(digests)
        number = int(parts.query.removeprefix("page=") or 0)
        kind, data = registry.manifests["app", page[number]]
        entries = [{"mediaType": kind, "digest": page[number], "size": len(data)}]
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        link = {"Link": f'<{parts.path}?page={number + 1}>; rel="next"'} if number < 2 else {}
        handler.reply(200, body, Content_Type=INDEX, **link)
        return True

    subject = ocidiff.copy(source, other).descriptor.digest
    registry.faults.append(pages)
    ocidiff.copy(at(registry), f"oci:{tmp_path}/back:v1", everything=True)
    there = {f"sha256:{path.name}" for path in (tmp_path / "back/blobs/sha256").iterdir()}
    assert digests <= there


def test_a_registry_without_referrers_gets_them_under_a_tag(
    signed: tuple[str, set[str]], registry: Registry, tmp_path: Path
) -> None:
    source, digests = signed
    registry.lists_referrers = False
    done = ocidiff.copy(source, at(registry), everything=True)
    _, data = registry.manifests["app", done.descriptor.digest.replace(":", "-")]
    assert {entry["digest"] for entry in json.loads(data)["manifests"]} == digests
    ocidiff.copy(at(registry), f"oci:{tmp_path}/back:v1", everything=True)
    assert digests <= {f"sha256:{path.name}" for path in (tmp_path / "back/blobs/sha256").iterdir()}
