"""The plugin gives containerd what its own differ would: the same layers, the same trees, and nothing left behind."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from containerd.changes import CHANGES
from containerd.conftest import archived
from containerd.daemon import VERSION, Daemon, running
from containerd.layers import comparable, entries, layer_of_containerd
from containerd.serve.plugin import NOTHING, Server, diff, left_behind, prepared, snapshots, tree_of, until
from ocidiff.containerd.blobs import BlobFiles
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.open import services_of
from ocidiff.errors import DigestMismatchError, NotFoundError, OcidiffError, UnsupportedError
from ocidiff.layer.engine import select_engine
from ocidiff.mounts.kernel import directory_of
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest, chain_id
from ocidiff.services import labels
from ocidiff.store import Store

pytestmark = [pytest.mark.interop, pytest.mark.root]

NO_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"  # 1024 zeros


def test_the_layers_are_those_of_containerd(daemon: Daemon, server: Server, namespace: str, base: str) -> None:
    names = {f"c{number}": change for number, change in enumerate(CHANGES.values())}
    threads = [threading.Thread(target=daemon.run, args=(namespace, "base:1", name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, change in names.items():
        change(daemon.root(namespace, name))
    before = len(server.calls())
    own = {name: layer_of_containerd(daemon, namespace, name) for name in names}
    told = server.calls()[before:]
    assert [call["code"] for call in told] == ["OK"] * len(names)
    assert [call["diff_id"] for call in told] == [Digest.of(tar) for tar in own.values()]
    assert {call["overlay"] for call in told} == {"True"}
    with daemon.stock():
        theirs = {name: comparable(daemon, layer_of_containerd(daemon, namespace, name)) for name in names}
    assert [name for name in names if own[name] != theirs[name]] == []
    daemon.kill_containers(namespace)


def test_images_are_unpacked_to_the_trees_of_containerd(
    daemon: Daemon, server: Server, namespace: str, channel: Channel, tmp_path: Path
) -> None:
    archive = archived(layered(tmp_path), tmp_path / "app.tar")
    before = len(server.calls())
    daemon.load(archive, namespace)
    told = server.calls()[before:]
    assert [(call["msg"], call["code"]) for call in told] == [("Apply", "OK")] * 3
    with running(VERSION) as stock:
        stock.load(archive, "default")
        other = Channel.open(stock.address, "default")
        theirs = trees(stock, other)
        other.close()
    assert trees(daemon, channel) == theirs
    assert left_behind(channel, server) == NOTHING


STEPS = (
    """rm -r gone opaque to-file; mkdir opaque; echo new >opaque/new; echo x >to-file; rm links/second; chmod 4711 dir/file
    chown 12:34 dir/sub; mkfifo fifo; ln -s nowhere link; ln dir/file hard; touch -d '2001-02-03 04:05:06.5' dir/sub/file
    mkdir -p deep/a/b; dd if=/dev/zero of=large bs=1M count=3""",
    """rm -r dir deep/a device; mkdir -p dir gone; echo back >gone/file; rm link; mkdir link; chmod 700 .; ln hard again""",
)


def test_pulls_inside_containerd_use_the_plugin(
    daemon: Daemon, server: Server, namespace: str, channel: Channel, tmp_path: Path
) -> None:
    archive = archived(layered(tmp_path), tmp_path / "app.tar")
    before = len(server.calls())
    # containerd 2 imports through its transfer service unless told otherwise, and 1.7 if it is told to.
    daemon.ctr("images", "import", *(("--local=false",) if daemon.is_first else ()), archive, namespace=namespace)
    assert [(call["msg"], call["code"]) for call in server.calls()[before:]] == [("Apply", "OK")] * 3
    assert left_behind(channel, server) == NOTHING


def layered(place: Path) -> Path:
    """A store with an image of three layers, which change and hide what is below them."""
    tree, store = place / "tree", place / "store"
    for name in ("dir", "dir/sub", "opaque/old", "gone", "links", "to-file"):
        (tree / name).mkdir(parents=True, exist_ok=True)
        (tree / name / "file").write_text(name)
    os.link(tree / "links/file", tree / "links/second")
    os.setxattr(tree / "dir/file", "user.kept", b"1")
    os.mknod(tree / "device", stat.S_IFCHR | 0o620, os.makedev(5, 1))
    with Store.open(store) as opened:
        opened.commit(tree, "app:1")
        for number, script in enumerate(STEPS, 2):
            subprocess.run(["sh", "-ec", script], cwd=tree, check=True, capture_output=True)
            opened.commit(tree, f"app:{number}", base=f"app:{number - 1}")
        for name in ("app:1", "app:2"):
            opened.untag(name)
    return store


def trees(daemon: Daemon, channel: Channel) -> list[dict[str, tuple[object, ...]]]:
    """What each snapshot of an image shows."""
    with Store.containerd(daemon.address, channel.namespace) as opened:
        document: Any = opened.inspect("app:3")
    diff_ids = document["config"]["rootfs"]["diff_ids"]
    own = services_of(channel, select_engine(None)).snapshotter("overlayfs")
    found = []
    for number in range(1, len(diff_ids) + 1):
        with own.reading(chain_id(diff_ids[:number])) as mounts, directory_of(mounts) as tree:
            found.append(tree_of(Path(tree)))
    return found


@pytest.mark.parametrize(
    ("wanted", "magic"),
    [
        ("", b"\x1f\x8b"),
        (media_type.LAYER_GZIP, b"\x1f\x8b"),
        (media_type.LAYER_ZSTD, b"\x28\xb5\x2f\xfd"),
        (media_type.LAYER, b"etc/"),
    ],
)
def test_blobs_have_the_form_and_the_labels_that_were_asked_for(
    daemon: Daemon, namespace: str, base: str, channel: Channel, plugin: Channel, wanted: str, magic: bytes
) -> None:
    upper = prepared(daemon, namespace, channel, "s")
    (upper / "etc").mkdir()
    (upper / "etc/new").write_text("new")
    content = ContainerdContent(channel)
    for value in ("first", "second"):
        found = diff(plugin, channel, "s", media_type=wanted, ref="mine", labels={"containerd.io/x": value})
        assert found.media_type == (wanted or media_type.LAYER_GZIP)
        descriptor = Descriptor(found.media_type, Digest(found.digest), found.size)
        blob = content.read(descriptor)
        assert blob.startswith(magic)
        set_labels = content.info(descriptor.digest).labels
        assert set_labels["containerd.io/x"] == value
        if magic == b"\x1f\x8b":
            assert set_labels[labels.UNCOMPRESSED] == Digest.of(gzip.decompress(blob))
        elif wanted == media_type.LAYER:
            assert set_labels[labels.UNCOMPRESSED] == descriptor.digest
    # Nothing refers to it but the lease of the server; the second time it was there already.
    daemon.collect(namespace)
    assert content.contains(descriptor.digest)


def test_no_change_is_a_layer_without_entries(
    daemon: Daemon, namespace: str, base: str, channel: Channel, plugin: Channel, server: Server
) -> None:
    prepared(daemon, namespace, channel, "s")
    diff(plugin, channel, "s")
    assert server.calls()[-1]["diff_id"] == NO_LAYER
    assert left_behind(channel, server) == NOTHING


def test_times_are_bounded_by_the_epoch(
    daemon: Daemon, namespace: str, base: str, channel: Channel, plugin: Channel, server: Server
) -> None:
    upper = prepared(daemon, namespace, channel, "s")
    (upper / "new").write_text("new")
    diff(plugin, channel, "s", source_date_epoch={"seconds": 1000})
    first = server.calls()[-1]["diff_id"]
    os.utime(upper / "new")
    diff(plugin, channel, "s", source_date_epoch={"seconds": 1000})
    assert server.calls()[-1]["diff_id"] == first
    with pytest.raises(UnsupportedError, match="whole seconds"):
        diff(plugin, channel, "s", source_date_epoch={"seconds": 1000, "nanos": 1})


def test_only_what_another_differ_could_do_is_left_to_it(
    daemon: Daemon, namespace: str, base: str, channel: Channel, plugin: Channel, server: Server
) -> None:
    upper = prepared(daemon, namespace, channel, "s")
    with pytest.raises(UnsupportedError, match="media type 'application/x'"):
        diff(plugin, channel, "s", media_type="application/x")
    mount = {"type": "erofs", "source": "/dev/loop7", "options": []}
    with pytest.raises(UnsupportedError, match="erofs"):
        plugin.call("diff.v1.Diff/Diff", left=[mount], right=[mount])
    encrypted = {"media_type": media_type.LAYER_GZIP + "+encrypted", "digest": NO_LAYER, "size": 1024}
    with pytest.raises(UnsupportedError, match="encrypted"):
        plugin.call("diff.v1.Diff/Apply", diff=encrypted, mounts=snapshots(channel, "s")["right"])
    # An empty layer of another differ would lose the changes.
    (upper / ".gvisor.filestore.1").write_text("")
    with pytest.raises(OcidiffError, match="gVisor keeps the changes") as caught:
        diff(plugin, channel, "s")
    assert not isinstance(caught.value, UnsupportedError)
    missing = {"media_type": media_type.LAYER_GZIP, "digest": "sha256:" + "1" * 64, "size": 10}
    with pytest.raises(NotFoundError):
        plugin.call("diff.v1.Diff/Apply", diff=missing, mounts=snapshots(channel, "s")["right"])
    assert [call["code"] for call in server.calls()[-5:]] == [
        *("UNIMPLEMENTED", "UNIMPLEMENTED", "UNIMPLEMENTED", "FAILED_PRECONDITION", "NOT_FOUND")
    ]
    assert left_behind(channel, server) == NOTHING


def test_a_layer_is_verified_before_success_is_told(
    daemon: Daemon, namespace: str, base: str, channel: Channel, plugin: Channel
) -> None:
    prepared(daemon, namespace, channel, "s")
    wrong = ContainerdContent(channel).write(gzip.compress(b"\0" * 10240)[:-6] + b"\1" * 6, media_type.LAYER_GZIP)
    descriptor = {"media_type": wrong.media_type, "digest": wrong.digest, "size": wrong.size}
    with pytest.raises(OcidiffError):
        plugin.call("diff.v1.Diff/Apply", diff=descriptor, mounts=snapshots(channel, "s")["right"])
    right = ContainerdContent(channel).write(gzip.compress(b"\0" * 10240), media_type.LAYER_GZIP)
    short = {"media_type": right.media_type, "digest": right.digest, "size": right.size - 1}
    with pytest.raises(OcidiffError, match="expected"):
        plugin.call("diff.v1.Diff/Apply", diff=short, mounts=snapshots(channel, "s")["right"])
    whole = {"media_type": right.media_type, "digest": right.digest, "size": right.size}
    done = plugin.call("diff.v1.Diff/Apply", diff=whole, mounts=snapshots(channel, "s")["right"], sync_fs=True).applied
    assert (done.media_type, done.digest, done.size) == (media_type.LAYER, Digest.of(b"\0" * 10240), 10240)
    # A container may start on the snapshot.
    with directory_of(services_of(channel, select_engine(None)).snapshotter("overlayfs").mounts("s")) as tree:
        assert "etc" in os.listdir(tree)


MAPS = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "--remap-labels")


def test_an_id_mapped_container_gives_the_layer_of_containerd_with_the_ids_that_it_sees(
    daemon: Daemon, server: Server, namespace: str, base: str
) -> None:
    script = "echo x >/etc/new; chown 5:6 /etc/changed; rm /etc/gone; mkfifo /etc/fifo; touch /tmp/done; sleep 1000"
    daemon.run(namespace, "base:1", "m1", *MAPS, script=script)
    until((daemon.root(namespace, "m1") / "tmp/done").exists)
    before = len(server.calls())
    own = list(entries(layer_of_containerd(daemon, namespace, "m1")))
    told = server.calls()[before:]
    assert [(call["msg"], call["code"]) for call in told] == [("Diff", "OK")]
    with daemon.stock():
        tar = comparable(daemon, layer_of_containerd(daemon, namespace, "m1"))
    # containerd 1.7 does not say that it is mapped, and 2.1 sees the owners of its own mount as nobody.
    theirs = list(entries(tar, *((0, 0) if daemon.is_first else (100000, 200000))))
    owners = {str(one[0]): (one[3], one[4]) for one in own}
    if not daemon.is_first:
        assert (owners["etc/new"], owners["etc/changed"], owners["etc/fifo"]) == ((0, 0), (5, 6), (0, 0))
        theirs = [one for one in theirs if str(one[0]) in owners]
    assert [(*one[:3], *one[5:]) for one in own] == [(*one[:3], *one[5:]) for one in theirs]
    daemon.kill_containers(namespace)


def test_a_layer_applied_to_an_id_mapped_snapshot_has_the_ids_that_it_says(
    daemon: Daemon, namespace: str, base: str, channel: Channel, plugin: Channel, server: Server
) -> None:
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as tar:
        for name, uid, gid in (("new", 0, 0), ("etc/theirs", 5, 6), ("etc/kept", 7, 8), ("etc/.wh.gone", 0, 0)):
            member = tarfile.TarInfo(name)
            member.uid, member.gid = uid, gid
            tar.addfile(member)
    layer = ContainerdContent(channel).write(blob.getvalue(), media_type.LAYER, {labels.ROOT: "now"})
    descriptor = {"media_type": layer.media_type, "digest": layer.digest, "size": layer.size}
    ids = {"containerd.io/snapshot/uidmapping": "0:100000:65536", "containerd.io/snapshot/gidmapping": "0:200000:65536"}
    own = services_of(channel, select_engine(None)).snapshotter("overlayfs")
    found = []
    for key in ("ours", "theirs"):
        upper = prepared(daemon, namespace, channel, key, ids)
        mounts = [{"type": one.type, "source": one.source, "options": list(one.options)} for one in own.mounts(key)]
        if key == "ours":
            plugin.call("diff.v1.Diff/Apply", diff=descriptor, mounts=mounts)
            assert server.calls()[-1]["code"] == "OK"
        else:
            with daemon.stock():
                channel.call("diff.v1.Diff/Apply", diff=descriptor, mounts=mounts)
        tree = tree_of(upper)
        found.append({name: (one[0], one[1], one[2], one[4], one[6]) for name, one in tree.items()})
    assert found[0] == found[1]
    assert found[0]["etc/theirs"][1:3] == (5, 6)


def test_blobs_are_read_from_their_files_if_they_can_be_and_from_containerd_if_not(
    daemon: Daemon, namespace: str, channel: Channel, tmp_path: Path
) -> None:
    layer = ContainerdContent(channel).write(b"blob", media_type.LAYER, {labels.ROOT: "now"})
    files = BlobFiles(channel)
    content = files.content(namespace)
    with content.open_blob(layer) as blob:
        path = Path(os.readlink(f"/proc/self/fd/{blob.fileno()}"))
        assert (path.is_relative_to(daemon.place / "root"), blob.read()) == (True, b"blob")
    with pytest.raises(DigestMismatchError):
        content.open_blob(Descriptor(layer.media_type, layer.digest, 5))
    daemon.ctr("namespaces", "create", f"{namespace}-other")
    with pytest.raises(NotFoundError):
        files.content(f"{namespace}-other").open_blob(layer)
    # Where the server does not see the files, or other ones.
    for text in (None, "other bytes"):
        files._root = str(tmp_path)
        seen = tmp_path / "blobs/sha256" / layer.digest.hex
        seen.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            seen.write_text(text)
        with files.content(namespace).open_blob(layer) as blob:
            assert os.readlink(f"/proc/self/fd/{blob.fileno()}").startswith("pipe:")
            assert blob.read() == b"blob"
