"""What ocidiff commits of containers of nerdctl and Docker is what these commit."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from containerd.changes import CHANGES
from containerd.daemon import Daemon
from containerd.engines import ContainerEngine, Docker
from containerd.layers import comparable
from ocidiff.image import lookup
from ocidiff.oci.digest import Digest
from ocidiff.store import Store
from support import registry_software

pytestmark = [pytest.mark.interop, pytest.mark.root]

OURS, THEIRS = "docker.io/library/ours:1", "docker.io/library/theirs:1"
EMPTY_TAR = Digest.of(bytes(1024))


def documents(daemon: Daemon, engine: ContainerEngine, image: str) -> tuple[dict[str, Any], list[Digest]]:
    """Configuration of an image without the times of the last step, and the diff IDs of its layers that can be compared."""
    with Store.containerd(daemon.address, engine.namespace) as store:
        found: Any = store.inspect(image)
        services = store._services()
        diff_ids = []
        for layer in lookup.find_image(services, image, None).manifest.layers:
            with services.content.open_blob(layer) as blob:
                diff_ids.append(Digest.of(comparable(daemon, gzip.decompress(blob.read()))))
    config = found["config"]
    del config["created"], config["history"][-1]["created"], config["rootfs"]
    return config, diff_ids


def ocidiff(daemon: Daemon, engine: ContainerEngine, *words: str) -> str:
    line = [sys.executable, "-m", "ocidiff", *words, "--address", daemon.address, "--namespace", engine.namespace]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("change", CHANGES)
def test_a_commit_is_that_of_the_engine(daemon: Daemon, container_engine: ContainerEngine, change: str) -> None:
    engine = container_engine
    container = engine.run("--name", "c1", "base:1")
    CHANGES[change](daemon.root(engine.namespace, container))
    said = ("--message", "a step", "--author", "a <a@b>")
    engine("commit", *said, "c1", "theirs:1")
    ocidiff(daemon, engine, "commit", f"containerd:{container}", OURS, *said, "--profile", "containerd", "-q")
    ours, theirs = documents(daemon, engine, OURS), documents(daemon, engine, THEIRS)
    if change == "nothing" and not isinstance(engine, Docker):
        # nerdctl adds an empty layer, and does not say so in the history.
        assert theirs[1].pop() == EMPTY_TAR
        theirs[0]["history"][-1]["empty_layer"] = True
    assert ours == theirs


def test_a_committed_image_runs_when_its_container_is_gone(daemon: Daemon, container_engine: ContainerEngine) -> None:
    engine = container_engine
    container = engine.run("--name", "c1", "base:1", "/bin/sh", "-c", "echo told >/etc/told; rm /etc/gone; exec sleep 1000")
    ocidiff(daemon, engine, "commit", f"containerd:{container}", OURS, "--change", "ENV NEW=1")
    engine("rm", "--force", "c1")
    daemon.collect(engine.namespace)
    assert engine.shown("ours:1", "/bin/cat", "/etc/told") == "told"
    names = engine.shown("ours:1", "/bin/ls", "/etc").split()
    assert ("told" in names, "gone" in names) == (True, False)
    # It is a base as any other.
    container = engine.run("--name", "c2", "ours:1", "/bin/sh", "-c", "echo more >/etc/more; exec sleep 1000")
    ocidiff(daemon, engine, "commit", f"containerd:{container}", "docker.io/library/more:1")
    assert engine.shown("more:1", "/bin/cat", "/etc/told", "/etc/more") == "told\nmore"


def test_a_committed_image_is_pushed_and_pulled_by_the_engine(
    daemon: Daemon, container_engine: ContainerEngine, tmp_path: Path
) -> None:
    engine = container_engine
    insecure = () if isinstance(engine, Docker) else ("--insecure-registry",)
    container = engine.run("base:1")
    CHANGES["added"](daemon.root(engine.namespace, container))
    with registry_software.running(tmp_path) as host:
        name = f"{host}/team/app:1"
        digest = ocidiff(daemon, engine, "commit", f"containerd:{container}", name)
        engine("push", *insecure, name)
        engine("rmi", "--force", name)
        daemon.collect(engine.namespace)
        engine("pull", *insecure, name)
        with Store.containerd(daemon.address, engine.namespace) as store:
            assert store.resolve(name).digest == digest
        names = engine.shown(name, "/bin/ls", "/etc").split()
        assert set(os.listdir(daemon.root(engine.namespace, container) / "etc")) <= {*names, "hosts", "hostname"}
        engine("rmi", "--force", name)


def test_settings_of_a_run_are_of_the_image_with_docker_alone(daemon: Daemon, container_engine: ContainerEngine) -> None:
    engine = container_engine
    options = ("--env", "OF=run", "--label", "of=run", "--workdir", "/etc")
    container = engine.run("--name", "c1", *options, "base:1", "/bin/sleep", "900")
    CHANGES["added"](daemon.root(engine.namespace, container))
    engine("commit", "c1", "theirs:1")
    ocidiff(daemon, engine, "commit", f"containerd:{container}", OURS)
    ours, theirs = documents(daemon, engine, OURS)[0], documents(daemon, engine, THEIRS)[0]
    assert ours["history"] == theirs["history"]
    assert ours["history"][-1]["created_by"] == "/bin/sleep 900"
    assert ours["config"] == {"Env": ["A=b"], "Cmd": ["/bin/sleep", "1000"], "Labels": {"k": "v"}}
    if not isinstance(engine, Docker):
        assert theirs["config"] == ours["config"]
        return
    settings = {
        "Env": ["OF=run", "A=b"],
        "Cmd": ["/bin/sleep", "900"],
        "WorkingDir": "/etc",
        "Labels": {"k": "v", "of": "run"},
    }
    assert theirs["config"] == settings
    # The shortcuts give them to the image.
    said = ("--env", "OF=run", "--label", "of=run", "--workdir", "/etc", "--cmd", '["/bin/sleep", "900"]')
    ocidiff(daemon, engine, "commit", f"containerd:{container}", OURS, *said)
    again = documents(daemon, engine, OURS)[0]["config"]
    assert {**again, "Env": sorted(again["Env"])} == {**settings, "Env": sorted(settings["Env"])}
