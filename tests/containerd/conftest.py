"""A containerd for the session, and a namespace for each test."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from containerd.daemon import NEW, VERSION, Daemon, programs, running
from containerd.engines import ContainerEngine, Docker, Nerdctl, docker, load
from ocidiff.containerd.channel import Channel
from ocidiff.store import Store

# Building from sources takes minutes.
collect_ignore = [] if VERSION.startswith(NEW) else ["test_engines.py", "test_chart.py"]

APPLETS = (
    "sh",
    "sleep",
    "ls",
    "cat",
    "rm",
    "mkdir",
    "rmdir",
    "ln",
    "mv",
    "chmod",
    "chown",
    "touch",
    "mknod",
    "mkfifo",
    "true",
    "dd",
)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the cache of segments of this machine as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCIDIFF_CACHE_DIR", str(tmp_path_factory.mktemp("cache") / "segments"))
        yield


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """containerd 2, or the kind that `OCIDIFF_CONTAINERD` says."""
    with running(VERSION) as one:
        yield one


@pytest.fixture
def namespace(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that is empty."""
    name = f"test-{os.urandom(6).hex()}"
    daemon.ctr("namespaces", "create", name)
    yield name
    daemon.kill_containers(name)


@pytest.fixture
def channel(daemon: Daemon, namespace: str) -> Iterator[Channel]:
    opened = Channel.open(daemon.address, namespace)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image `base:1` of a busybox and some files, as an archive."""
    place = tmp_path_factory.mktemp("base")
    tree = place / "tree"
    for name in ("bin", "etc", "tmp", "proc", "dev", "sys", "run", "dir/sub", "opaque", "links"):
        (tree / name).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    (tree / "bin/busybox").write_bytes((programs(VERSION) / "busybox").read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    for name in APPLETS:
        (tree / "bin" / name).symlink_to("busybox")
    for name in ("etc/kept", "etc/changed", "etc/gone", "dir/one", "dir/sub/two", "opaque/old", "links/first"):
        (tree / name).write_text(f"{name}\n")
    # Engines mount files of their own over these, and would make what is missing.
    for name in ("hosts", "hostname", "resolv.conf"):
        (tree / "etc" / name).touch()
    os.link(tree / "links/first", tree / "links/second")
    with Store.open(place / "store") as store:
        store.commit(tree, "base:1", changes=['CMD ["/bin/sleep", "1000"]', "ENV A=b", "LABEL k=v"])
    return archived(place / "store", place / "base.tar")


def archived(store: Path, archive: Path) -> Path:
    """A store as an archive that containerd imports."""
    with tarfile.open(archive, "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(store / name, name)
    return archive


@pytest.fixture
def base(daemon: Daemon, namespace: str, archive: Path) -> str:
    """The name of an image in the namespace."""
    daemon.load(archive, namespace)
    return "base:1"


@pytest.fixture(scope="session")
def docker_engine(daemon: Daemon, archive: Path) -> Iterator[Docker]:
    with docker(daemon) as engine:
        load(daemon, archive, engine.namespace)
        yield engine


@pytest.fixture(params=["nerdctl", "docker"])
def container_engine(
    request: pytest.FixtureRequest, daemon: Daemon, namespace: str, archive: Path
) -> Iterator[ContainerEngine]:
    """An engine that has the image `base:1`, and no container."""
    if request.param == "docker":
        docker_: Docker = request.getfixturevalue("docker_engine")
        yield docker_
        docker_.clear()
        return
    nerdctl = Nerdctl(daemon, namespace)
    load(daemon, archive, namespace)
    yield nerdctl
    nerdctl.clear()
