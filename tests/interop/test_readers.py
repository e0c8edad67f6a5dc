"""skopeo, umoci and buildah read a store at any moment while images are committed and rubbish is collected."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from interop.tools import Tool
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support import probes

pytestmark = [pytest.mark.interop, pytest.mark.root]

READS = 6
"""Of each tool."""


def test_other_tools_read_while_images_are_committed(
    store: EmbeddedStore, sample: Path, tool: Callable[[str], Tool], tmp_path: Path
) -> None:
    skopeo, umoci, buildah = map(tool, ("skopeo", "umoci", "buildah"))
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    storage = ("--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs")
    place = f"{tmp_path}/store:app:latest"

    def read_with_skopeo(number: int) -> None:
        skopeo.run("copy", "--insecure-policy", f"oci:{place}", f"oci:{tmp_path}/copy{number}:app:latest")

    def read_with_umoci(_: int) -> None:
        assert "app:latest" in umoci.run("list", "--layout", tmp_path / "store").split()
        assert json.loads(umoci.run("stat", "--json", "--image", place))["history"]

    def read_with_buildah(_: int) -> None:
        # It makes a name of the path, which takes no capital letters.
        buildah.run(*storage, "pull", "-q", "--signature-policy", policy, "oci:store:app:latest", directory=tmp_path)

    def read(once: Callable[[int], None]) -> None:
        for number in range(READS):
            once(number)

    store.commit(sample / "lower", "app:latest")
    store.create("app:latest", "work", driver="overlay" if probes.can_mount_overlay() else "directory")
    readers = [read_with_skopeo, read_with_umoci, read_with_buildah]
    commits = 0
    with ThreadPoolExecutor(len(readers)) as pool:
        running: list[Future[None]] = [pool.submit(read, reader) for reader in readers]
        while not all(future.done() for future in running):
            root = Path(store.containers.mount("work"))
            (root / f"new{commits}").write_text(f"{commits}" * 10_000)
            store.containers.umount("work")
            commits += 1
            store.commit(store.containers.get("work"), f"app:v{commits}")
            store.tag(f"app:v{commits}", "app:latest")
            store.collect()
    for future in running:
        future.result()
    assert commits > READS
    with Store.open(f"{tmp_path}/copy{READS - 1}", create=False) as copied:
        assert copied.verify().faults == ()
    assert store.verify().faults == ()
