"""nerdctl and Docker commit and run through the plugin without knowing of it."""

from __future__ import annotations

from typing import Any

import pytest

from containerd.changes import CHANGES
from containerd.daemon import Daemon
from containerd.engines import ContainerEngine
from containerd.serve.plugin import Server
from ocidiff.image import lookup
from ocidiff.services import labels
from ocidiff.store import Store

pytestmark = [pytest.mark.interop, pytest.mark.root]

NAME = "docker.io/library/theirs:1"


@pytest.mark.parametrize("change", ["added", "removed"])
def test_a_commit_of_an_engine_goes_through_the_plugin(
    daemon: Daemon, server: Server, container_engine: ContainerEngine, change: str
) -> None:
    engine = container_engine
    container = engine.run("--name", "c1", "base:1")
    CHANGES[change](daemon.root(engine.namespace, container))
    before = len(server.calls())
    engine("commit", "c1", "theirs:1")
    calls = server.calls()[before:]
    assert {call["code"] for call in calls} == {"OK"}
    written = next(call for call in calls if call["msg"] == "Diff")
    engine("rm", "--force", "c1")
    daemon.collect(engine.namespace)
    with Store.containerd(daemon.address, engine.namespace) as store:
        document: Any = store.inspect(NAME)
        services = store._services()
        layer = lookup.find_image(services, NAME, None).manifest.layers[-1]
        assert services.content.info(layer.digest).labels[labels.UNCOMPRESSED] == written["diff_id"]
    assert document["config"]["rootfs"]["diff_ids"][-1] == written["diff_id"]
    assert layer.digest == written["layer"]
    assert engine.shown("theirs:1", "/bin/cat", "/etc/kept") == "etc/kept"
