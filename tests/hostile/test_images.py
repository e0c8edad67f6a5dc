"""Every hostile layer as the upper one of an image: its tree comes whole and verified, or not at all."""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
from pathlib import Path

import cases
import pytest
from cases import Case

from ocidiff.embedded.drivers.select import DriverName
from ocidiff.layer.limits import Limits
from ocidiff.oci import media_type
from ocidiff.store import Store
from support import probes
from support.archives import directory, file, symlink, tar
from support.layouts import Handmade

# What `cases.Case` finds in its target.
_LOWER = tar(
    *(directory(b"d"), directory(b"d/x"), file(b"a", b"lower"), file(b"d/old", b"lower"), file(b"d/x/old", b"lower")),
    *(symlink(b"up", b".."), symlink(b"l", b"/d")),
)


@pytest.fixture(params=cases.ALL, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found = request.param
    assert isinstance(found, Case)
    return found


@pytest.fixture
def handmade(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    """A layout with the image `app`, made elsewhere than the target."""
    made = Handmade(tmp_path_factory.mktemp("image") / "layout")
    blobs = [_LOWER, case.layer()]
    layers = [made.blob(blob, media_type.LAYER_GZIP) for blob in blobs]
    made.name("app", made.manifest(made.config([_diff_id(blob) for blob in blobs]), layers))
    return made


@functools.cache
def _diff_id(blob: bytes) -> str:
    """Of the tar in a blob; of nothing where there is none. Kept, since one blob has very many members."""
    try:
        plain = gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob
    except (EOFError, OSError):
        plain = b""
    return "sha256:" + hashlib.sha256(plain).hexdigest()


def test_an_image_is_unpacked_whole_or_not_at_all(case: Case, handmade: Handmade, empty_target: Path) -> None:
    with Store.open(handmade.path) as store:
        if case.error is None:
            store.unpack("app", empty_target, limits=Limits(max_bytes=10_000_000))
            assert case.check(empty_target)
            return
        with pytest.raises(case.error):
            store.unpack("app", empty_target, limits=Limits(max_bytes=10_000_000))
    assert os.listdir(empty_target) == []


@pytest.mark.parametrize("driver", ["overlay", "directory"])
def test_a_container_is_made_whole_or_not(case: Case, handmade: Handmade, empty_target: Path, driver: DriverName) -> None:
    if driver == "overlay" and not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    error = case.error
    with Store.open(handmade.path) as store:
        if error is None or case.name.startswith("bomb"):
            # What is a bomb to the test above is less than the default limits.
            container = store.create("app", driver=driver)
            try:
                assert case.check(Path(store.containers.mount(container.name)))
            finally:
                store.containers.remove(container.name, force=True)
            return
        with pytest.raises(error):
            store.create("app", driver=driver)
        assert store.containers.list() == []
        assert len(os.listdir(handmade.path / "snapshots")) <= 2  # of layers that are sound
        # A blob may be broken itself; nothing else is.
        assert {fault.kind for fault in store.verify().faults} <= {"image"}
