"""Containers of a real containerd become the images that containerd itself would make of them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from containerd.changes import CHANGES
from containerd.daemon import Daemon
from containerd.layers import comparable, entries, layer_of_containerd
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.open import services_of
from ocidiff.errors import NotFoundError
from ocidiff.image import lookup
from ocidiff.image.layers import LocalDiffer
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import EngineName
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest, chain_id
from ocidiff.services.snapshots import Kind
from ocidiff.store import Store

pytestmark = [pytest.mark.interop, pytest.mark.root]


def changed(daemon: Daemon, namespace: str, name: str, *options: str, script: str = "true") -> None:
    """A container that has run a script and rests."""
    daemon.run(namespace, "base:1", name, *options, script=f"{script}; >/tmp/done; sleep 1000")
    end = time.monotonic() + 20
    while not list(Path(daemon.place).glob(f"state/io.containerd.runtime.v2.task/{namespace}/{name}/rootfs/tmp/done")):
        assert time.monotonic() < end, f"the script of {name} does not end"
        time.sleep(0.02)


def left_behind(daemon: Daemon, channel: Channel, engine: Engine) -> dict[str, Any]:
    """Leases, views, ingests and snapshots on their way that are in a namespace."""
    services = services_of(channel, engine)
    rows = list(services.snapshotter("overlayfs").walk())
    return {
        "leases": services.leases.held(),
        "views": [row.key for row in rows if row.kind is Kind.VIEW],
        "half": [row.key for row in rows if row.kind is Kind.ACTIVE and row.key.startswith("extract-")],
        "ingests": [status.ref for status in services.content.statuses()],
    }


NOBODY = 65534
NOTHING: dict[str, Any] = {"leases": [], "views": [], "half": [], "ingests": []}


@pytest.fixture
def store(daemon: Daemon, namespace: str, base: str) -> Any:
    with Store.containerd(daemon.address, namespace) as opened:
        yield opened


def blob(store: Store, layer: ocidiff.Layer) -> bytes:
    """The tar of a layer."""
    with store._services().content.open_blob(layer.descriptor) as opened:
        data = opened.read()
    return gzip.decompress(data) if layer.descriptor.media_type.endswith("gzip") else data


@pytest.mark.parametrize("change", CHANGES)
def test_the_layer_is_that_of_containerd(store: Store, daemon: Daemon, namespace: str, change: str) -> None:
    daemon.run(namespace, "base:1", "c1")
    CHANGES[change](daemon.root(namespace, "c1"))
    image = store.commit(store.container("c1"), "app:v1", profile="containerd", compression="none")
    theirs = comparable(daemon, layer_of_containerd(daemon, namespace, "c1"))
    if change == "nothing":
        assert (image.layer, theirs) == (None, bytes(1024))
        return
    assert image.layer is not None
    assert image.layer.diff_id == Digest.of(theirs)


def test_the_snapshot_is_made_while_the_layer_is_written(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a layer was read again")

    daemon.run(namespace, "base:1", "c1")
    CHANGES["opaque_directories"](daemon.root(namespace, "c1"))
    monkeypatch.setattr(LocalDiffer, "apply", fail)
    image = store.commit(store.container("c1"), "app:v1", engine=engine_name(engine), pause=False)
    name = chain_id(image.config.rootfs.diff_ids)
    row = services_of(channel, engine).snapshotter("overlayfs").stat(name)
    assert row.labels["containerd.io/uncompressed"] == image.config.rootfs.diff_ids[-1]
    assert left_behind(daemon, channel, engine) == NOTHING


def test_the_layer_of_an_id_mapped_container_is_that_of_containerd_with_other_owners(
    store: Store, daemon: Daemon, namespace: str
) -> None:
    maps = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "--remap-labels")
    script = (
        "echo x >/etc/new; ln /etc/new /etc/newer; chmod 4755 /etc/kept; chown 5:6 /etc/changed; rm /etc/gone; "
        "rm -r /opaque; mkdir /opaque; echo x >/opaque/new; mkfifo /etc/fifo; ln -s kept /etc/link; chown -h 7:8 /etc/link; "
        "touch -d '2001-02-03 04:05:06' /etc/new"
    )
    changed(daemon, namespace, "m1", *maps, script=script)
    image = store.commit(store.container("m1"), "app:v1", profile="containerd")
    assert image.layer is not None
    theirs = comparable(daemon, layer_of_containerd(daemon, namespace, "m1"))
    ours, mapped = list(entries(blob(store, image.layer))), list(entries(theirs, 100000, 200000))
    # Whiteouts have no owner, which is root.
    mapped = [(*one[:3], 0, 0, *one[5:]) if ".wh." in str(one[0]) else one for one in mapped]
    if any(one[3] == NOBODY - 100000 for one in mapped):
        # containerd 2.1 sees the owners of its own mount as nobody, and so stores the whole image.
        names = {one[0] for one in ours}
        mapped = [(*one[:3], *one[5:]) for one in mapped if one[0] in names]
        ours = [(*one[:3], *one[5:]) for one in ours]
    assert ours == mapped


@pytest.mark.parametrize("kind", ["View", "Commit"])
def test_a_container_may_have_a_snapshot_that_cannot_change(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine, kind: str
) -> None:
    daemon.run(namespace, "base:1", "c1")
    CHANGES["opaque_directories"](daemon.root(namespace, "c1"))
    CHANGES["hard_links_to_old_files"](daemon.root(namespace, "c1"))
    first = store.commit(store.container("c1"), "app:v1", engine=engine_name(engine))
    assert first.layer is not None
    parent = services_of(channel, engine).snapshotter("overlayfs").stat("c1").parent
    daemon.kill_containers(namespace)
    fields: dict[str, Any] = {"snapshotter": "overlayfs", "key": "c1" if kind == "Commit" else "c2"}
    fields |= {"name": "c2"} if kind == "Commit" else {"parent": parent or ""}
    channel.call(f"snapshots.v1.Snapshots/{kind}", **fields)
    channel.call(
        "containers.v1.Containers/Create",
        container={
            "id": "kept",
            "image": "base:1",
            "runtime": {"name": "io.containerd.runc.v2"},
            "spec": {"type_url": "x", "value": b"{}"},
            "snapshotter": "overlayfs",
            "snapshot_key": "c2",
        },
    )
    listed = [change.path for change in store.changes(store.container("kept"), engine=engine_name(engine))]
    image = store.commit(store.container("kept"), "app:v2", engine=engine_name(engine))
    if kind == "View":
        assert (image.layer, listed) == (None, [])
        assert len(image.config.history) == 2
    else:
        assert image.layer is not None
        assert image.layer.diff_id == first.layer.diff_id
        assert image.config.history[-1].created_by == "/bin/sleep 1000"
        assert "/opaque/old" in listed
    views = [row.key for row in services_of(channel, engine).snapshotter("overlayfs").walk() if row.kind is Kind.VIEW]
    assert views == (["c2"] if kind == "View" else [])
    assert daemon.ctr("run", "--rm", "app:v2", "again", "/bin/cat", "/etc/kept", namespace=namespace) == "etc/kept\n"


def test_a_name_that_moved_to_another_image_is_not_the_base(store: Store, daemon: Daemon, namespace: str) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")
    store.commit(store.container("c1"), "app:v1")
    store.tag("base:1", "old:1")
    store.tag("app:v1", "base:1")
    for use in (lambda: store.commit(store.container("c1"), "app:v2"), lambda: list(store.changes(store.container("c1")))):
        with pytest.raises(NotFoundError, match="created from another image than the one that now has the name 'base:1'"):
            use()
    store.tag("old:1", "base:1")
    assert store.commit(store.container("c1"), "app:v2").layer is not None


def test_a_committed_image_runs_when_its_container_is_gone(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine
) -> None:
    changed(daemon, namespace, "c1", script="echo told >/etc/told; rm /etc/gone")
    image = store.commit(
        store.container("c1"), "app:v1", message="a step", changes=["ENV NEW=1"], engine=engine_name(engine)
    )
    assert left_behind(daemon, channel, engine) == NOTHING
    assert daemon.status(namespace, "c1") == "RUNNING"
    daemon.kill_containers(namespace)
    daemon.ctr("containers", "rm", "c1", namespace=namespace)
    daemon.collect(namespace)
    shown = daemon.ctr("run", "--rm", "app:v1", "again", "/bin/cat", "/etc/told", namespace=namespace)
    assert shown == "told\n"
    listed = daemon.ctr("run", "--rm", "app:v1", "more", "/bin/ls", "/etc", namespace=namespace)
    assert "gone" not in listed.split()
    document: Any = store.inspect("app:v1")
    assert document["config"]["config"]["Env"] == ["A=b", "NEW=1"]
    assert document["config"]["history"][-1]["comment"] == "a step"
    snapshot = services_of(channel, engine).snapshotter("overlayfs").stat(chain_id(image.config.rootfs.diff_ids))
    assert snapshot.parent == chain_id(image.config.rootfs.diff_ids[:1])
    # Every blob is whole, and what it says it is.
    for descriptor in (image.descriptor, image.manifest.config):
        assert ContainerdContent(channel).read(descriptor)


def engine_name(engine: Engine) -> EngineName:
    return "rust" if type(engine).__name__ == "RustEngine" else "pure"


def test_no_change_is_no_layer(store: Store, daemon: Daemon, namespace: str) -> None:
    changed(daemon, namespace, "c1")
    first = store.commit(store.container("c1"), "app:v1")
    assert first.layer is not None
    daemon.ctr("containers", "create", "app:v1", "c2", namespace=namespace)
    image = store.commit(store.container("c2"), "app:v2")
    assert image.layer is None
    assert image.manifest.layers == first.manifest.layers


@pytest.mark.parametrize("engine", ["rust", "pure"])
def test_an_id_mapped_container_has_the_ids_that_it_sees(
    store: Store, daemon: Daemon, namespace: str, engine: EngineName, tmp_path: Path
) -> None:
    maps = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "--remap-labels")
    changed(
        daemon, namespace, "m1", *maps, script="echo x >/etc/new; chmod 4755 /etc/kept; chown 5:6 /etc/changed; rm /etc/gone"
    )
    image = store.commit(store.container("m1"), "app:v1", engine=engine)
    assert image.layer is not None
    listed = store.changes(store.container("m1"), engine=engine)
    assert {"/etc/new", "/etc/kept", "/etc/changed", "/etc/gone"} <= {change.path for change in listed}
    assert len(list(store.changes(store.container("m1"), engine=engine))) == image.layer.added + image.layer.modified + (
        image.layer.deleted
    )
    names = {change.split()[-1] for change in tar_lines(store, image, tmp_path)}
    assert {"etc/new", "etc/kept", "etc/changed", "etc/.wh.gone"} <= names
    owners = {line.split()[-1]: line.split()[1] for line in tar_lines(store, image, tmp_path)}
    assert (owners["etc/new"], owners["etc/changed"], owners["etc/kept"]) == ("0/0", "5/6", "0/0")
    modes = {line.split()[-1]: line.split()[0] for line in tar_lines(store, image, tmp_path)}
    assert modes["etc/kept"] == "-rwsr-xr-x"


def tar_lines(store: Store, image: ocidiff.Image, tmp_path: Path) -> list[str]:
    """What tar lists of the layer that a commit added."""
    assert image.layer is not None
    with store._services().content.open_blob(image.layer.descriptor) as blob:
        data = blob.read()
    listed = subprocess.run(["tar", "tvz", "--numeric-owner"], input=data, capture_output=True, check=True)
    return listed.stdout.decode(errors="replace").splitlines()


def test_the_layers_of_the_base_may_be_discarded(
    store: Store, daemon: Daemon, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    changed(daemon, namespace, "c1", script="echo told >/etc/told")
    manifest: Any = store.inspect("base:1")["manifest"]
    layer = Digest(manifest["layers"][0]["digest"])
    store._services().content.delete(layer)
    image = store.commit(store.container("c1"), "app:v1")
    assert image.manifest.layers[0].digest == layer
    assert str(layer) in caplog.text
    assert daemon.ctr("run", "--rm", "app:v1", "again", "/bin/cat", "/etc/told", namespace=namespace) == "told\n"


def test_missing_layers_are_all_named(store: Store, daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    changed(daemon, namespace, "c1", script="echo told >/etc/told")
    image = store.commit(store.container("c1"), "app:v1")
    for layer in image.manifest.layers:
        store._services().content.delete(layer.digest)
    with pytest.raises(NotFoundError, match="app:v1: layers are not in the store") as caught:
        store.unpack("app:v1", tmp_path / "tree")
    assert all(layer.digest in str(caught.value) for layer in image.manifest.layers)
    assert not (tmp_path / "tree").exists()


def test_what_a_sandbox_changed_comes_as_a_tar(store: Store, daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "upper/etc").mkdir(parents=True)
    (tmp_path / "upper/etc/told").write_text("told\n")
    os.mknod(tmp_path / "upper/etc/gone", 0o20000, 0)
    subprocess.run(["tar", "cf", tmp_path / "upper.tar", "-C", tmp_path / "upper", "."], check=True)
    upper = ocidiff.UpperTar(tmp_path / "upper.tar")
    for runtime in ("runsc", "kata", "runc"):
        words = ("containers", "create", "--runtime", f"io.containerd.{runtime}.v2", "base:1", runtime)
        daemon.ctr(*words, namespace=namespace)
        image = store.commit(store.container(runtime), f"{runtime}:v1", upper=upper)
        assert image.layer is not None
        assert (image.layer.added, image.layer.modified, image.layer.deleted) == (1, 0, 1)
    shown = daemon.ctr("run", "--rm", "runsc:v1", "again", "/bin/ls", "/etc", namespace=namespace).split()
    assert ("told" in shown, "gone" in shown) == (True, False)


def test_a_directory_becomes_an_image_that_runs(store: Store, daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    store.unpack("base:1", tmp_path / "tree")
    (tmp_path / "tree/etc/more").write_text("more\n")
    image = store.commit(tmp_path / "tree", "app:v1", base="base:1")
    assert image.layer is not None
    assert (image.layer.added, image.layer.deleted) == (1, 0)
    assert daemon.ctr("run", "--rm", "app:v1", "again", "/bin/cat", "/etc/more", namespace=namespace) == "more\n"


def test_names_are_listed_given_and_taken(store: Store, daemon: Daemon, namespace: str, channel: Channel) -> None:
    store.tag("base:1", "docker.io/library/other:v1")
    assert sorted(str(one.name) for one in store.images()) == ["base:1", "docker.io/library/other:v1"]
    store.untag("base:1")
    assert [one.name for one in store.images()] == ["docker.io/library/other:v1"]
    assert len(store.history("docker.io/library/other:v1")) == 1
    found = lookup.find_image(store._services(), "docker.io/library/other:v1", None)
    assert isinstance(found.descriptor, Descriptor)


def test_the_command_line_names_containerd(store: Store, daemon: Daemon, namespace: str) -> None:
    changed(daemon, namespace, "c1", script="echo told >/etc/told")
    place = ["--address", daemon.address, "--namespace", namespace]

    def ocidiff_(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "ocidiff", *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    assert "A /etc/told" in ocidiff_("changes", "containerd:c1", *place).splitlines()
    digest = ocidiff_("commit", "containerd:c1", "app:v1", *place).strip()
    assert "A /etc/told" in ocidiff_("changes", "containerd:base:1", "containerd:app:v1", *place).splitlines()
    assert json.loads(ocidiff_("inspect", "containerd:app:v1", *place))["descriptor"]["digest"] == digest
    assert digest[7:19] in ocidiff_("images", *place)
    ocidiff_("tag", "containerd:app:v1", "app:v2", *place)
    ocidiff_("history", "app:v2", *place)
    ocidiff_("rmi", "app:v1", "app:v2", *place)
    assert [one.name for one in store.images()] == ["base:1"]
