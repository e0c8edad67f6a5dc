"""Layers that go into containerd are copied from older ones, by the plugin and by the command, and have the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from containerd.daemon import Daemon
from containerd.serve.plugin import NOTHING, Server, diff, left_behind, prepared, snapshots
from ocidiff.containerd.channel import Channel
from ocidiff.oci import media_type
from ocidiff.store import Store

pytestmark = [pytest.mark.interop, pytest.mark.root]

SIZE = 400 << 10
ZSTD_SIZE = 4 << 20
"""Bytes of a file that is a segment of its own."""
FILES = 4
RUN = "import sys; from ocidiff.cli.main import main; sys.exit(main(sys.argv[1:]))"


def fill(upper: Path, seed: int, size: int = SIZE) -> None:
    """Write the same files as any other caller, and one of its own."""
    for number in range(FILES):
        (upper / f"same{number}").write_bytes(random.Random(number).randbytes(size))
    (upper / "own").write_bytes(random.Random(1000 + seed).randbytes(size))


def told(server: Server, size: int = SIZE) -> tuple[str, str, int]:
    """Return what the log says of the latest call: digest, diff ID, and how many contents were copied."""
    call = server.calls()[-1]
    return call["layer"], call["diff_id"], int(call["reused_bytes"]) // size


def test_the_plugin_copies_what_it_has_compressed_before(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel, plugin: Channel
) -> None:
    for seed in range(3):
        fill(prepared(daemon, namespace, channel, f"s{seed}"), seed)
    diff(plugin, channel, "s0")
    first = told(server)
    assert first[2] == 0
    diff(plugin, channel, "s1")
    assert told(server)[2] == FILES
    # The blobs are collected, and containerd is asked for a layer that it had.
    daemon.collect(namespace)
    diff(plugin, channel, "s0")
    assert told(server) == (*first[:2], FILES + 1)
    with daemon.stock():
        theirs = diff(channel, channel, "s2").annotations
    diff(plugin, channel, "s2")
    assert told(server)[2] == FILES
    if theirs:
        assert theirs["containerd.io/uncompressed"] == told(server)[1]
    server.stop()
    text = server.metrics.read_text()
    counted = float(next(line for line in text.splitlines() if line.startswith("ocidiff_reused_bytes_total{")).split()[1])
    # Calls that failed tell no bytes.
    assert counted == sum(int(call.get("reused_bytes", 0)) for call in server.calls())
    server.start()
    assert left_behind(channel, server) == NOTHING


def test_the_plugin_copies_frames_of_zstd_and_containerd_applies_them(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel, plugin: Channel
) -> None:
    for seed in (40, 41):
        fill(prepared(daemon, namespace, channel, f"s{seed}"), seed, ZSTD_SIZE)
    wanted = media_type.LAYER_ZSTD
    made = [diff(plugin, channel, f"s{seed}", media_type=wanted) for seed in (40, 41)][-1]
    assert [int(call["reused_bytes"]) // ZSTD_SIZE for call in server.calls()[-2:]] == [0, FILES]
    target = prepared(daemon, namespace, channel, "target")
    layer = {"media_type": made.media_type, "digest": made.digest, "size": made.size}
    with daemon.stock():
        applied = channel.call("diff.v1.Diff/Apply", diff=layer, mounts=snapshots(channel, "target")["right"]).applied
    assert applied.digest == server.calls()[-1]["diff_id"]
    assert (target / "own").read_bytes() == random.Random(1041).randbytes(ZSTD_SIZE)


def test_a_server_that_is_killed_or_takes_over_goes_on_with_the_cache(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    fill(prepared(daemon, namespace, channel, "s"), 10)

    def once() -> tuple[str, str, int]:
        opened = Channel.connect(str(server.socket), namespace)
        diff(opened, channel, "s")
        opened.close()
        return told(server)

    first = once()
    server.stop(signal.SIGKILL)
    (server.cache / "ingest" / ("0" * 32)).write_text("as a killed server leaves it")
    server.start()
    assert once() == (*first[:2], FILES + 1)
    assert os.listdir(server.cache / "ingest") == []
    server.reload()
    assert once() == (*first[:2], FILES + 1)


def test_a_cache_that_is_of_no_use_is_told_and_done_without(
    daemon: Daemon, namespace: str, base: str, channel: Channel, tmp_path: Path
) -> None:
    place = tmp_path / "cache"
    place.mkdir()
    place.chmod(0o777)
    server = Server(daemon, "p", cache=str(place))
    fill(prepared(daemon, namespace, channel, "s"), 20)
    opened = Channel.connect(str(server.socket), namespace)
    for _ in range(2):
        diff(opened, channel, "s")
        assert told(server)[2] == 0
    opened.close()
    assert "layers are compressed as a whole" in server.log()
    assert os.listdir(place) == []
    server.stop()


@pytest.mark.parametrize(("compression", "size"), [("gzip", SIZE), ("zstd", ZSTD_SIZE)])
def test_commits_into_containerd_copy_too(
    daemon: Daemon, namespace: str, base: str, tmp_path: Path, compression: str, size: int
) -> None:
    tree, cache = tmp_path / "tree", tmp_path / "cache"
    tree.mkdir()
    fill(tree, 30, size)
    place = ["--address", daemon.address, "--namespace", namespace]
    words = ["commit", str(tree), *place, "--json", "--compression", compression]

    def commit(name: str, *more: str) -> tuple[str, int]:
        line = [sys.executable, "-c", RUN, *words, name, *more]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        layer = json.loads(done.stdout)["layers"][0]
        return layer["diffID"], layer["reusedSize"] // size

    own = ("--cache", str(cache))
    first, copied = commit("app:1", *own)
    assert copied == 0
    assert commit("app:2", *own) == (first, FILES + 1)
    assert commit("app:3", *own, "--reuse", "never") == (first, 0)
    assert commit("app:4", "--cache", str(tmp_path / "other"), "--cache-size", "0") == (first, 0)
    assert os.listdir(tmp_path / "other/segments") == ["newest"]
    with Store.containerd(daemon.address, namespace) as store:
        documents: list[Any] = [store.inspect(f"app:{number}") for number in (1, 2, 3, 4)]
    assert len({one["manifest"]["layers"][-1]["digest"] for one in documents}) == 1
    cache.chmod(0o770)
    line = [sys.executable, "-c", RUN, *words, "app:5", *own]
    refused = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1), refused.stderr
    assert "others may write to the cache" in refused.stderr
