"""Registries and clients of others: what one writes the other reads, and calls that are killed go on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ocidiff
from interop.tools import Tool
from ocidiff.oci import media_type
from support.layouts import Handmade

pytestmark = pytest.mark.interop

# Larger than what a process needs for itself.
LARGE_BYTES = 1 << 30
MOST_MEMORY_BYTES = 100 << 20


# For what costs much, and shows nothing more with another.
one_registry = pytest.mark.parametrize("host", ["docker-registry"], indirect=True)


@pytest.fixture
def skopeo(tool: Callable[[str], Tool]) -> Tool:
    return tool("skopeo")


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "ocidiff", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("chunk_bytes", [0, 1 << 20])
def test_push_mount_and_pull(images: ocidiff.Store, host: str, tmp_path: Path, chunk_bytes: int) -> None:
    registry = ocidiff.Registry(chunk_bytes=chunk_bytes, tags=["latest"])
    first, second = f"docker://{host}/first{chunk_bytes}/app:v2", f"docker://{host}/second{chunk_bytes}/app:v2"
    done = images.copy("app:v2", first, registry=registry)
    assert (done.copied, done.skipped) == (3, 0)
    assert images.copy("app:v2", first).copied == 0
    # One of them keeps the blobs of all repositories together.
    again = ocidiff.copy(first, second)
    assert (again.copied, again.mounted + again.skipped) == (0, 3)
    with ocidiff.Store.open(tmp_path / "back") as back:
        again = back.copy(second.replace(":v2", f"@{done.descriptor.digest}"), "app:back")
        assert again.descriptor.digest == done.descriptor.digest
        assert back.verify().faults == ()
        # The labels of a pull lead to a mount.
        assert back.copy("app:back", f"docker://{host}/third{chunk_bytes}/app:v2").copied == 0


def test_what_was_pushed_is_mounted(images: ocidiff.Store, host: str) -> None:
    assert images.copy("app:v2", f"docker://{host}/pushed/one:v2").copied == 3
    again = images.copy("app:v2", f"docker://{host}/pushed/two:v2")
    assert (again.copied, again.mounted + again.skipped) == (0, 3)


def test_a_signature_is_found_again(images: ocidiff.Store, host: str, tmp_path: Path) -> None:
    layout = Handmade(tmp_path / "made")
    image = layout.image({"file": "x"})
    layout.name("app:1", image)
    config = layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
    signature = layout.blob(b"signature", "application/x-signature")
    document = {"schemaVersion": 2, "mediaType": media_type.MANIFEST, "config": config, "layers": [signature]}
    referrer = layout.document({**document, "subject": image}, media_type.MANIFEST)
    layout.entries.append(referrer)
    layout.finish()
    images.copy(f"oci:{layout.path}:app:1", f"docker://{host}/signed:1", everything=True)
    back = images.copy(f"docker://{host}/signed:1", f"oci:{tmp_path}/back:1", everything=True)
    assert back.descriptor.digest == image["digest"]
    blobs = {path.name for path in (tmp_path / "back/blobs/sha256").iterdir()}
    assert {one["digest"].partition(":")[2] for one in (referrer, signature)} <= blobs


def test_skopeo_reads_what_we_push(images: ocidiff.Store, host: str, skopeo: Tool, tmp_path: Path) -> None:
    done = images.copy("app:v2", f"docker://{host}/ours:v2")
    shown = json.loads(skopeo.run("inspect", "--tls-verify=false", f"docker://{host}/ours:v2"))
    assert shown["Digest"] == done.descriptor.digest
    flags = ("--insecure-policy", "--src-tls-verify=false", "--preserve-digests")
    skopeo.run("copy", *flags, f"docker://{host}/ours:v2", f"oci:{tmp_path}/layout:v2")
    with ocidiff.Store.open(tmp_path / "back") as back:
        assert back.copy(f"oci:{tmp_path}/layout:v2", "app:v2").descriptor.digest == done.descriptor.digest
        assert back.verify().faults == ()


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_we_pull_what_skopeo_pushed(images: ocidiff.Store, host: str, skopeo: Tool, tmp_path: Path, form: str) -> None:
    flags = ("--insecure-policy", "--dest-tls-verify=false", "--format", form)
    skopeo.run("copy", *flags, f"oci:{tmp_path}/images:app:v2", f"docker://{host}/theirs-{form}:v2")
    with ocidiff.Store.open(tmp_path / "back") as back:
        back.copy(f"docker://{host}/theirs-{form}:v2", "app:v2")
        assert back.verify().faults == ()
        back.unpack("app:v2", tmp_path / "out")
    assert (tmp_path / "out/two").read_bytes() == (tmp_path / "tree/two").read_bytes()


def test_a_commit_goes_straight_to_it(images: ocidiff.Store, host: str, tmp_path: Path) -> None:
    images.copy("app:v1", f"docker://{host}/base:v1")
    with ocidiff.Store.open(tmp_path / "other") as other:
        other.commit(tmp_path / "tree", f"docker://{host}/new:v2", base=f"docker://{host}/base:v1")
        other.copy(f"docker://{host}/new:v2", "new:v2")
        other.unpack("new:v2", tmp_path / "out")
    assert (tmp_path / "out/two").read_bytes() == (tmp_path / "tree/two").read_bytes()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Directory of a store with the image `large:1` of one plain layer of zeros."""
    tree = tmp_path / "large"
    tree.mkdir()
    with (tree / "zeros").open("wb") as file:
        file.truncate(LARGE_BYTES)
    with ocidiff.Store.open(tmp_path / "images") as opened:
        opened.commit(tree, "large:1", compression="none")
    return tmp_path / "images"


def most_memory_of(*words: str) -> int:
    """The most memory that a command had, in bytes."""
    # wait4 counts the memory of the process that was forked, too.
    program = "from ocidiff.cli.main import main; import sys; print(main(sys.argv[1:]), open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True, check=True)
    assert re.search(r"^0 Name:", done.stdout, re.MULTILINE), done.stdout
    found = re.search(r"^VmHWM:\s+(\d+) kB$", done.stdout, re.MULTILINE)
    assert found
    return int(found[1]) << 10


@one_registry
def test_memory_is_flat_and_what_was_killed_goes_on(large: Path, host: str, tmp_path: Path) -> None:
    name = f"{host}/large:1"
    assert most_memory_of("push", "large:1", name, "--store", str(large)) < MOST_MEMORY_BYTES
    words = ["pull", name, "--store", str(tmp_path / "back")]
    process = subprocess.Popen([sys.executable, "-m", "ocidiff", *words])
    try:
        deadline = time.monotonic() + 120
        while not any(data.stat().st_size > LARGE_BYTES // 20 for data in (tmp_path / "back/ingest").glob("*/data")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run("images", "-q", "--store", str(tmp_path / "back")) == ""
    done = json.loads(run(*words, "--json"))
    assert done["copied"]["kept"] > LARGE_BYTES // 20
    assert most_memory_of("copy", f"docker://{name}", f"oci:{tmp_path}/layout:1") < MOST_MEMORY_BYTES


@one_registry
def test_a_push_that_was_killed_goes_on_with_the_next_blob(large: Path, host: str) -> None:
    words = ["push", "large:1", f"{host}/killed:1", "--store", str(large)]
    process = subprocess.Popen([sys.executable, "-m", "ocidiff", *words])
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(*words)
    again = json.loads(run(*words, "--json"))
    assert again["copied"]["blobs"] == 0
