"""A number with more digits than Python converts is an error of ours, or passed over, wherever foreign text becomes one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import click
import pytest

import ocidiff
from ocidiff.cli.options import size_type
from ocidiff.containerd.serve.config import numbers_of
from ocidiff.errors import OcidiffError
from ocidiff.image import instructions, quantities
from ocidiff.image.batch_lines import Line, Shard
from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.engine import Engine
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.pure.note import parse_note
from ocidiff.oci import media_type, references
from ocidiff.oci.config import ImageConfig
from ocidiff.oci.index import REF_NAME, Index
from ocidiff.oci.manifest import Manifest
from ocidiff.oci.platform import Platform
from ocidiff.oci.timestamp import time_ns_of
from ocidiff.transport.registry import auth, response
from ocidiff.transport.store import _references
from support import headers
from support.registries import Handler, Registry, serving

DIGITS = "9" * 5000
DIGEST = "sha256:" + "0" * 64
SIZED = f'{{"mediaType":"a/b","digest":"{DIGEST}","size":{DIGITS},"annotations":{{"{REF_NAME}":"a:1"}}}}'
INDEX = f'{{"schemaVersion":2,"manifests":[{SIZED}]}}'.encode()
MANIFEST = f'{{"schemaVersion":2,"config":{SIZED},"layers":[{SIZED}]}}'.encode()

REFUSED: dict[str, Callable[[], object]] = {
    "manifest": lambda: Manifest.parse(MANIFEST, media_type.MANIFEST, "it"),
    "version of an index": lambda: Index.parse(f'{{"schemaVersion":{DIGITS}}}'.encode(), media_type.INDEX, "it"),
    "configuration": lambda: ImageConfig.parse(f'{{"x":{DIGITS}}}'.encode(), "it"),
    "negative": lambda: ImageConfig.parse(f'{{"x":-{DIGITS}}}'.encode(), "it"),
    "line of a batch": lambda: Line.parse(1, f'{{"upper":{DIGITS}}}'.encode()),
    "shard": lambda: Shard.of(f"{DIGITS}/{DIGITS}"),
    "shard of a job": lambda: Shard.of("/3", {"JOB_COMPLETION_INDEX": DIGITS}),
    "exposed port": lambda: quantities.port_keys(DIGITS),
    "signal": lambda: quantities.check_signal(DIGITS),
    "retries": lambda: instructions.parse(f"HEALTHCHECK --retries={DIGITS} CMD x"),
    "interval": lambda: instructions.parse(f"HEALTHCHECK --interval={DIGITS}s CMD x"),
    "owner map": lambda: IdMaps.of([f"0:{DIGITS}:1"], [], None),
    "owner map of a user": lambda: IdMaps.of([DIGITS], [], None),
    "size": lambda: size_type.convert(DIGITS, None, None),
    "location": lambda: response.joined("http://here/", f"http://there:{DIGITS}/"),
}
PASSED_OVER: dict[str, tuple[Callable[[], object], object]] = {
    # The entry is kept as its author wrote it, under its name.
    "entry of an index": (lambda: Index.parse(INDEX, media_type.INDEX, "it").entries[0].name, "a:1"),
    "parts": (lambda: [list(map(str, found)) for found in references.parts(MANIFEST)], [[DIGEST, DIGEST], []]),
    "mentioned": (lambda: set(map(str, references.mentioned(MANIFEST))), {DIGEST}),
    "references": (lambda: set(_references(MANIFEST).values()), {DIGEST}),
    "note": (lambda: parse_note(f"{DIGITS}:0:755".encode()), None),
    "version of containerd": (lambda: numbers_of(f"v{DIGITS}.1.2"), (0, 0, 0)),
    "variant": (lambda: Platform("arm", "linux", f"v{DIGITS}").rank(Platform("arm", "linux", "v7")), None),
    "year": (lambda: time_ns_of(f"{DIGITS}-01-01T00:00:00Z"), None),
    "fraction of a second": (lambda: time_ns_of(f"1970-01-01T00:00:00.{DIGITS}Z"), 999_999_999),
    "token": (lambda: auth._token(b'{"token":"x","expires_in":-%s}' % (b"9" * 400), "here")[1], 0.0),
}


@pytest.mark.parametrize("place", REFUSED)
def test_a_long_number_is_an_error_of_ours(place: str) -> None:
    with pytest.raises((OcidiffError, click.ClickException)) as caught:
        REFUSED[place]()
    assert len(str(caught.value)) < 500 or isinstance(caught.value, click.ClickException)
    assert "set_int_max_str_digits" not in str(caught.value)


@pytest.mark.parametrize("place", PASSED_OVER)
def test_a_long_number_is_passed_over(place: str) -> None:
    read, expected = PASSED_OVER[place]
    assert read() == expected


RECORDS = [b"size", b"uid", b"gid", b"mtime", b"GNU.sparse.size", b"GNU.sparse.numblocks", b"GNU.sparse.realsize"]


@pytest.mark.parametrize("key", [*RECORDS, b"GNU.sparse.map", b"length", b"map"])
def test_a_long_number_in_a_tar_is_malformed(key: bytes, tmp_path: Path, engine: Engine) -> None:
    digits = DIGITS.encode()
    told = {b"major": b"1", b"minor": b"0", b"realsize": b"1", b"name": b"f"}
    sparse = [(b"GNU.sparse." + name, value) for name, value in told.items()]
    if key == b"length":
        tar = headers.special(b"x", digits + b" path=x\n") + headers.file()
    elif key == b"map":
        tar = headers.file(b"f", headers.padded(digits + b"\n"), *sparse)
    else:
        tar = headers.file(b"f", b"", (key, digits if key != b"GNU.sparse.map" else b"0," + digits))
    (tmp_path / "tree").mkdir()
    (tmp_path / "layer").write_bytes(tar + headers.END)
    with (tmp_path / "layer").open("rb") as layer, pytest.raises(OcidiffError):
        engine.apply_layer(layer.fileno(), os.fsencode(tmp_path / "tree"), ApplyOptions(), Monitor())


ANSWERS = {
    "Content-Length": ("GET", "/blobs/sha256", 200, {"Content-Length": DIGITS}),
    "Content-Range": ("GET", "/blobs/sha256", 206, {"Content-Range": f"bytes {DIGITS}-{DIGITS}/{DIGITS}"}),
    "Retry-After": ("GET", "/blobs/sha256", 429, {"Retry-After": DIGITS}),
    "status": ("GET", "/blobs/sha256", cast("int", DIGITS), {}),
    "length of a manifest": ("GET", "/manifests/", 200, {"Content-Length": DIGITS}),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_long_number_of_a_registry_is_an_error_of_ours(kind: str, tmp_path: Path) -> None:
    method, path, status, told = ANSWERS[kind]

    def answer(handler: Handler) -> bool:
        if handler.command != method or path not in handler.path:
            return False
        handler.wfile.write(f"HTTP/1.1 {status} told\r\n".encode())
        for name, value in told.items():
            handler.wfile.write(f"{name}: {value}\r\n".encode())
        handler.wfile.write(b"\r\n")
        handler.close_connection = True
        return True

    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(os.urandom(1000))
    registry = Registry()
    with ocidiff.Store.open(tmp_path / "store") as store, serving(registry):
        image = f"docker://{registry.address}/app:1"
        store.commit(tmp_path / "tree", image)
        registry.faults.append(answer)
        with ocidiff.Store.open(tmp_path / "other") as other, pytest.raises(OcidiffError) as caught:
            other.copy(image, "app:1")
    assert len(str(caught.value)) < 500


def test_a_long_number_of_a_token_is_no_token() -> None:
    with pytest.raises(OcidiffError, match="gives no token"):
        auth._token(json.dumps({"token": "x"})[:-1].encode() + f',"expires_in":{DIGITS}}}'.encode(), "here")


def test_names_that_look_like_numbers_disturb_no_store(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "tree", "app:1")
        store.create("app:1", "work", driver="directory")
        for name in ("²", "٣", "9" * 200):
            (tmp_path / "store/snapshots" / name).mkdir()
        store.verify()
        store.collect()
        store.containers.remove("work")
