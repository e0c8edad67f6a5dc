"""An entry for the root (`./`) says what the root of an image is, by whichever way it is unpacked."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ocidiff.embedded.drivers.select import DriverName
from ocidiff.layer.apply_options import Destination
from ocidiff.layer.engine import select_engine
from ocidiff.layer.options import ENGINES, EngineName
from ocidiff.oci import media_type
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support import headers, probes, verbs
from support.archives import Member, directory, file, tar
from support.layouts import Handmade

XATTR = {"SCHILY.xattr.user.root": "one"}
ROOT = directory(b"./", mode=0o2751, mtime=5, pax_headers=XATTR)
OTHER = directory(b".", mode=0o700, mtime=9, pax_headers={"SCHILY.xattr.user.gone": "x"})
CLOSED = directory(b"/", mode=0o2051, mtime=5, pax_headers=XATTR)
LAYERS = {
    "described": ([ROOT, file(b"a")],),
    "described-before-its-parts": ([ROOT, file(b"a")], [file(b"b")]),
    "described-late": ([file(b"a")], [file(b"b"), ROOT]),
    "described-twice": ([OTHER, file(b"a")], [ROOT]),
    "closed": ([ROOT], [CLOSED, file(b"a")], [file(b"b")]),
}


@pytest.fixture(params=LAYERS)
def layers(request: pytest.FixtureRequest) -> tuple[list[Member], ...]:
    found: tuple[list[Member], ...] = LAYERS[request.param]
    return found


@pytest.fixture
def store(handmade: Handmade, layers: tuple[list[Member], ...]) -> EmbeddedStore:
    """A store with an image `app` of these layers."""
    blobs = [tar(*members) for members in layers]
    made = [handmade.blob(blob, media_type.LAYER) for blob in blobs]
    diff_ids = [layer["digest"] for layer in made]
    handmade.name("app", handmade.manifest(handmade.config(diff_ids), made))
    return Store.open(handmade.path)


def assert_root(root: Path | str, layers: tuple[list[Member], ...]) -> None:
    """Fail unless a directory is what the last entry for the root says; later layers may have changed its time."""
    info = os.stat(root)
    is_closed = len(layers) == 3
    assert stat.S_IMODE(info.st_mode) == (0o2051 if is_closed else 0o2751)
    assert (info.st_uid, info.st_gid) == (os.geteuid(), os.getegid())
    found = {name: os.getxattr(root, name) for name in os.listxattr(root) if name.startswith("user.")}
    assert found == {"user.root": b"one"}
    if any(members[0] is ROOT or members[-1] is ROOT for members in layers[-1:]):
        assert info.st_mtime == 5


@pytest.mark.parametrize("there", [False, True])
def test_unpack(
    store: EmbeddedStore, layers: tuple[list[Member], ...], tmp_path: Path, engine_name: EngineName, *, there: bool
) -> None:
    target = tmp_path / "target"
    if there:
        target.mkdir(0o711)
        os.setxattr(target, "user.old", b"x")
    with store:
        store.unpack("app", target, engine=engine_name)
    assert_root(target, layers)


@pytest.mark.root
@pytest.mark.parametrize("driver", ["overlay", "directory"])
def test_create(store: EmbeddedStore, layers: tuple[list[Member], ...], engine_name: EngineName, driver: DriverName) -> None:
    if driver == "overlay" and not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    with store:
        container = store.create("app", driver=driver, engine=engine_name)
        try:
            assert_root(store.containers.mount(container.name), layers)
        finally:
            store.containers.remove(container.name, force=True)


@pytest.mark.parametrize("destination", Destination)
@pytest.mark.parametrize("engine_name", ENGINES)
def test_every_destination(tmp_path: Path, engine_name: EngineName, destination: Destination) -> None:
    if destination is Destination.OVERLAY and not probes.is_root():
        probes.missing("needs root")
    engine = select_engine(engine_name)
    assert verbs.apply(engine, tar(ROOT, file(b"a")), tmp_path, destination=destination).has_root
    assert_root(tmp_path, ([ROOT],))


@pytest.mark.root
def test_an_owner_is_given_or_refused(tmp_path: Path, rust: object, pure: object) -> None:
    for engine in (select_engine("rust"), select_engine("pure")):
        verbs.apply(engine, tar(directory(b"./", uid=7, gid=8)), tmp_path)
        assert (tmp_path.stat().st_uid, tmp_path.stat().st_gid) == (7, 8)
        with pytest.raises(Exception, match="unsafe entry /: owner 4294967295:0 is out of range"):
            verbs.apply(engine, headers.header(b"./", b"5", uid=(1 << 32) - 1, gid=0), tmp_path)
        with pytest.raises(Exception, match="unsafe entry /: owner 4294967295:0 is out of range"):
            verbs.index_of_layers(engine, [headers.header(b"./", b"5", uid=(1 << 32) - 1, gid=0)])


def test_a_diff_says_nothing_of_the_root(tmp_path: Path, engine_name: EngineName) -> None:
    engine = select_engine(engine_name)
    for name, mode in (("lower", 0o755), ("upper", 0o700)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    os.setxattr(tmp_path / "upper", "user.root", b"x")
    summary, blob = verbs.diff(engine, tmp_path / "lower", tmp_path / "upper")
    assert (summary.entries, blob) == (0, headers.END)


_AS_A_USER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support import verbs
from support.archives import directory, file, tar
from ocidiff.layer.engine import select_engine
root, engine = Path(sys.argv[2]), select_engine(sys.argv[3])
# What a user may not read is imported by now.
verbs.apply(engine, tar(), root.parent)
os.setgid(65534), os.setuid(65534)
os.mkdir(root)
closed = directory(b"./", mode=0o555, uid=0, gid=0)
summary = verbs.apply(engine, tar(closed, file(b"a")), root)
verbs.apply(engine, tar(file(b"b"), directory(b"d", mode=0o500)), root)
verbs.apply(engine, tar(file(b"d/c")), root)
note = os.getxattr(root, "user.containers.override_stat").decode()
print(oct(root.stat().st_mode & 0o7777), note, summary.skipped["owners"])
"""


@pytest.mark.root
@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_user_notes_the_owner_and_writes_into_a_closed_root(engine_name: EngineName) -> None:
    # Nobody else reaches the directories of pytest.
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        command = [sys.executable, "-c", _AS_A_USER, str(Path(__file__).parents[2]), home + "/root", engine_name]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("0o555 0:0:0555 1\n", "")
