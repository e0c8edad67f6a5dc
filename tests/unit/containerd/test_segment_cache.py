"""The segment cache: later layers copy by it, it stays within its bounds, and no state of it changes a byte."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from ocidiff.cli.main import main
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.open import Containerd
from ocidiff.containerd.segment_cache import CacheDirectory, SegmentCache, default_directory
from ocidiff.embedded.layout import Layout
from ocidiff.image.layers import LocalDiffer
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import Layer
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Compression, LayerOptions, Reuse
from support import probes

SIZE = 300 << 10
PATHS = (str(Path(__file__).parent), str(Path(__file__).parents[2]))
# Makes layers one after another, with a cache, until it is killed.
PROGRAM = """
import os, sys, random
sys.path[:0] = sys.argv[4:]
from pathlib import Path
import test_segment_cache as own
from ocidiff.layer.engine import select_engine
from ocidiff.embedded.layout import Layout
tree, content, cache = map(Path, sys.argv[1:4])
with Layout.open(content, create=True) as layout:
    number = os.getpid()
    while True:
        number += 1
        own.fill(tree, number % 7)
        own.layer(select_engine("rust"), tree, layout, own.cache_of(cache, layout, 4 * own.SIZE))
        print(number, flush=True)
"""


def fill(tree: Path, seed: int, size: int = SIZE) -> None:
    """Give the tree two files, of which one is as before."""
    tree.mkdir(exist_ok=True)
    (tree / "always").write_bytes(random.Random(1000).randbytes(size))
    (tree / "other").write_bytes(random.Random(seed).randbytes(size))


def cache_of(place: Path, layout: Layout, max_bytes: int | None = None) -> SegmentCache:
    return SegmentCache(CacheDirectory(str(place)), lambda: layout.path, max_bytes)


def layer(
    engine: Engine,
    tree: Path,
    layout: Layout,
    cache: SegmentCache | None = None,
    reuse: Reuse = Reuse.AUTO,
    compression: Compression = Compression.GZIP,
) -> Layer:
    differ = LocalDiffer(engine, tables=lambda: cache)
    options = LayerOptions(reuse=reuse, compression=compression)
    return differ.store(None, os.fsencode(tree), layout, options, Monitor())


def copied(made: Layer, size: int = SIZE) -> int:
    """Return how many of the two contents were copied. Headers may be, too."""
    return made.reused_bytes // size


def remove(layout: Layout, made: Layer) -> None:
    os.unlink(Path(layout.path, "blobs", "sha256", made.descriptor.digest.hex))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    fill(tmp_path / "tree", 0)
    return tmp_path / "tree"


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    with Layout.open(tmp_path / "content", create=True) as opened:
        yield opened


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def names(place: Path) -> dict[str, list[str]]:
    found = {name: sorted(os.listdir(place / name)) for name in ("blobs", "segments", "ingest")}
    found["segments"].remove("newest")
    return found


def directories(place: Path) -> list[Path]:
    return [one for one in place.iterdir() if one.is_dir()]


def size(place: Path) -> int:
    files = (file for name in ("blobs", "segments") for file in (place / name).iterdir() if file.name != "newest")
    return sum(file.stat().st_size for file in files)


def test_a_later_layer_is_copied_also_when_the_blob_is_gone(rust: Engine, tree: Path, layout: Layout, place: Path) -> None:
    cache = cache_of(place, layout)
    first = layer(rust, tree, layout, cache)
    assert copied(first) == 0
    again = layer(rust, tree, layout, cache)
    assert (again.descriptor, copied(again)) == (first.descriptor, 2)
    remove(layout, first)
    again = layer(rust, tree, layout, cache)
    assert (again.descriptor, copied(again)) == (first.descriptor, 2)
    assert names(place) == {"blobs": [first.descriptor.digest.hex], "segments": [first.descriptor.digest.hex], "ingest": []}
    assert copied(layer(rust, tree, layout, cache, Reuse.NEVER)) == 0


def test_a_later_layer_of_zstd_is_copied_also_when_the_blob_is_gone(
    rust: Engine, tree: Path, layout: Layout, place: Path
) -> None:
    size = 4 << 20
    fill(tree, 0, size)
    cache = cache_of(place, layout)

    def made(reuse: Reuse = Reuse.AUTO) -> Layer:
        return layer(rust, tree, layout, cache, reuse, Compression.ZSTD)

    first = made()
    # Another compression of the same content is copied from nowhere.
    assert layer(rust, tree, layout, cache).reused_bytes == 0
    remove(layout, first)
    again = made()
    assert (again.descriptor, again.reused_bytes) == (first.descriptor, first.uncompressed_size)
    assert made(Reuse.NEVER).reused_bytes == 0
    blob = place / "blobs" / first.descriptor.digest.hex
    damaged = bytearray(blob.read_bytes())
    damaged[len(damaged) // 4] ^= 1
    # A second name is the file itself: damage a copy.
    blob.unlink()
    blob.write_bytes(damaged)
    again = made()
    assert (again.descriptor, copied(again, size)) == (first.descriptor, 1)


def test_a_cache_on_another_file_system_copies_from_the_content_store(
    rust: Engine, tree: Path, layout: Layout, tmp_path: Path
) -> None:
    if os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        probes.missing("needs two file systems")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        cache = cache_of(Path(other, "cache"), layout)
        first = layer(rust, tree, layout, cache)
        assert copied(layer(rust, tree, layout, cache)) == 2
        assert names(Path(other, "cache"))["blobs"] == []
        remove(layout, first)
        again = layer(rust, tree, layout, cache)
        assert (again.descriptor, copied(again)) == (first.descriptor, 0)


def test_the_oldest_go_first_and_the_bounds_hold(rust: Engine, tree: Path, layout: Layout, place: Path) -> None:
    bound = 5 * SIZE
    cache = cache_of(place, layout, bound)
    made = []
    for seed in range(40):
        fill(tree, seed)
        made.append(layer(rust, tree, layout, cache))
        assert size(place) <= bound
        assert copied(made[-1]) == (1 if seed else 0)
    found = names(place)
    assert set(found["blobs"]) == {one.descriptor.digest.hex for one in made[-2:]}
    # The others are read from the content store.
    assert set(found["segments"]) == {one.descriptor.digest.hex for one in made[-32:]}
    fill(tree, 39 - 31)
    assert copied(layer(rust, tree, layout, cache)) == 2
    fill(tree, 100)
    layer(rust, tree, layout, cache_of(place, layout, 0))
    assert names(place) == {"blobs": [], "segments": [], "ingest": []}


def test_a_blob_that_is_larger_than_the_bound_is_read_where_it_is(
    rust: Engine, tree: Path, layout: Layout, place: Path
) -> None:
    cache = cache_of(place, layout, SIZE)
    layer(rust, tree, layout, cache)
    assert names(place)["blobs"] == []
    assert copied(layer(rust, tree, layout, cache)) == 2


def test_the_cache_is_for_its_owner_alone(rust: Engine, tree: Path, layout: Layout, place: Path) -> None:
    cache = cache_of(place, layout)
    layer(rust, tree, layout, cache)
    assert {stat.S_IMODE(one.stat().st_mode) for one in (place, *directories(place))} == {0o700}
    place.chmod(0o755)
    assert layer(rust, tree, layout, cache).reused_bytes > 0
    # The user may have named a directory of others.
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert {stat.S_IMODE(one.stat().st_mode) for one in directories(place)} == {0o700}
    place.chmod(0o720)
    with pytest.raises(PermissionError, match="others may write"):
        CacheDirectory(str(place)).check()
    assert copied(layer(rust, tree, layout, cache)) == 0
    place.chmod(0o700)
    if probes.is_root():
        os.chown(place, 1, 1)
        with pytest.raises(PermissionError, match="belongs to another user"):
            CacheDirectory(str(place)).check()
        assert copied(layer(rust, tree, layout, cache)) == 0


@pytest.mark.parametrize("kind", ["empty", "missing", "empty with a slash", "begun by a killed process"])
def test_an_empty_directory_becomes_a_cache(kind: str, rust: Engine, tree: Path, layout: Layout, place: Path) -> None:
    if kind != "missing":
        place.mkdir(mode=0o755)
    if kind == "begun by a killed process":
        (place / "CACHEDIR.TAG").touch()
    named = CacheDirectory(f"{place}/" if "slash" in kind else str(place))
    named.check()
    named.check()
    signature, ours = (place / "CACHEDIR.TAG").read_text().splitlines()
    assert signature == "Signature: 8a477f597d28d172789f06886806bc55"
    assert "Cache of ocidiff" in ours
    layer(rust, tree, layout, cache_of(place, layout))
    assert copied(layer(rust, tree, layout, cache_of(place, layout))) == 2


@pytest.mark.parametrize("kind", ["one file", "same names", "tag of another program", "tag is a link"])
def test_a_directory_of_others_is_refused_and_stays(
    kind: str, rust: Engine, tree: Path, layout: Layout, place: Path
) -> None:
    for name in ("blobs", "segments", "ingest"):
        (place / name).mkdir(parents=True)
        if kind == "same names":
            (place / name / "precious.dat").write_text("mine")
    if kind == "one file":
        (place / "precious.dat").write_text("mine")
    elif kind == "tag of another program":
        (place / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    elif kind == "tag is a link":
        (place / "CACHEDIR.TAG").symlink_to("blobs/precious.dat")
    before = sorted(place.rglob("*"))
    with pytest.raises(OSError, match=r"is not empty and not a cache of ocidiff|symbolic links"):
        CacheDirectory(str(place)).check()
    for _ in range(2):
        assert copied(layer(rust, tree, layout, cache_of(place, layout))) == 0
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("end", ["", "/"])
def test_a_link_to_a_cache_is_refused(end: str, place: Path, tmp_path: Path) -> None:
    CacheDirectory(str(place)).check()
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(NotADirectoryError, match="not a link to one"):
        CacheDirectory(f"{tmp_path}/link{end}").check()


def test_names_that_are_not_ours_stay_in_a_cache(rust: Engine, tree: Path, layout: Layout, place: Path) -> None:
    layer(rust, tree, layout, cache_of(place, layout))
    for name in ("blobs", "segments", "ingest"):
        (place / name / "precious.dat").write_text("mine")
    (place / "ingest" / ("0" * 32)).touch()
    layer(rust, tree, layout, cache_of(place, layout, 0))
    assert names(place) == {name: ["precious.dat"] for name in ("blobs", "segments", "ingest")}


def test_damage_and_removal_change_no_byte(rust: Engine, tree: Path, layout: Layout, place: Path) -> None:
    cold = layer(rust, tree, layout)
    hexes = cold.descriptor.digest.hex
    for damage in ("flip", "cut", "table", "list", "blob is a directory", "list is a FIFO", "removed"):
        assert layer(rust, tree, layout, cache_of(place, layout)).descriptor == cold.descriptor
        copy = (place / "blobs" / hexes).read_bytes()
        # A second name is the file itself: damage a copy.
        os.unlink(place / "blobs" / hexes)
        if damage == "flip":
            at = len(copy) // 4
            (place / "blobs" / hexes).write_bytes(copy[:at] + bytes([copy[at] ^ 1]) + copy[at + 1 :])
        elif damage == "cut":
            (place / "blobs" / hexes).write_bytes(copy[: len(copy) // 2])
        elif damage == "table":
            os.unlink(place / "segments" / hexes)
            (place / "segments" / hexes).write_bytes(b"no table")
        elif damage == "list":
            (place / "segments/newest").write_bytes(b"x" * 100 + b"\n../../../etc/passwd\n" + hexes.encode())
        elif damage == "blob is a directory":
            (place / "blobs" / hexes).mkdir()
        elif damage == "list is a FIFO":
            os.unlink(place / "segments/newest")
            os.mkfifo(place / "segments/newest")
        else:
            subprocess.run(["rm", "-r", place], check=True)
        again = layer(rust, tree, layout, cache_of(place, layout))
        assert (again.descriptor, again.diff_id) == (cold.descriptor, cold.diff_id), damage
        assert copied(again) == {"flip": 1, "cut": 1, "list": 2}.get(damage, 0), damage
        subprocess.run(["rm", "-rf", place], check=True)


def test_without_a_content_store_nothing_is_copied(rust: Engine, tree: Path, layout: Layout, place: Path) -> None:
    for store in (lambda: None, lambda: "/nowhere"):
        cache = SegmentCache(CacheDirectory(str(place)), store)
        layer(rust, tree, layout, cache)
        assert copied(layer(rust, tree, layout, cache)) == 0


@pytest.mark.root
def test_a_named_cache_on_a_full_disk_is_warned_of_and_done_without(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [errno.ENOSPC, errno.EDQUOT, errno.EROFS]

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errors[0], os.strerror(errors.pop(0)), str(place))

    monkeypatch.setattr(os, "makedirs", fail)
    monkeypatch.setattr(Channel, "open", lambda *_: "a channel")
    for _ in range(2):
        caplog.clear()
        assert Containerd.open(None, None, None, str(place))
        assert [record.getMessage() for record in caplog.records] == [
            f"{place}: the disk is full; layers are compressed as a whole"
        ]
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        Containerd.open(None, None, None, str(place))


def test_a_full_disk_is_no_failure(rust: Engine, tree: Path, layout: Layout, place: Path) -> None:
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", place], check=True)
    try:
        cache = cache_of(place, layout)
        first = layer(rust, tree, layout, cache)
        filler = place / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(1 << 20))
        # What is there is copied all the same.
        fill(tree, 1)
        full = layer(rust, tree, layout, cache)
        assert copied(full) == 1
        assert names(place)["ingest"] == []
        filler.unlink()
        assert layer(rust, tree, layout, cache).descriptor == full.descriptor
        assert copied(layer(rust, tree, layout, cache)) == 2
        assert first.descriptor != full.descriptor
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_processes_that_share_a_cache_and_are_killed(rust: Engine, tree: Path, layout: Layout, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    for turn in range(6):
        running = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(tmp_path / f"tree{one}"), layout.path, str(place), *PATHS],
                stdout=subprocess.PIPE,
            )
            for one in range(3)
        ]
        for one in running:
            assert one.stdout is not None
            one.stdout.readline()
        # At another moment each time.
        time.sleep(0.01 * turn)
        for one in running:
            one.send_signal(signal.SIGKILL)
            one.communicate()
    cold = layer(rust, tree, layout)
    cache = cache_of(place, layout, 4 * SIZE)
    assert layer(rust, tree, layout, cache).descriptor == cold.descriptor
    assert copied(layer(rust, tree, layout, cache)) == 2
    assert names(place)["ingest"] == []
    assert set(names(place)["blobs"]) <= set(names(place)["segments"])
    assert size(place) <= 4 * SIZE


def test_the_default_directory_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCIDIFF_CACHE_DIR", "/chosen")
    assert default_directory() == "/chosen"
    monkeypatch.delenv("OCIDIFF_CACHE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_directory() == "/var/cache/ocidiff"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_directory() == "/home/one/.cache/ocidiff"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_directory() == "/caches/ocidiff"


def test_a_command_refuses_a_directory_of_others_in_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "blobs").mkdir(parents=True)
    (place / "blobs" / "precious.dat").write_text("mine")
    words = ["commit", str(place.parent), "app:1", "--address", str(place / "socket"), "--cache", str(place)]
    assert main(words) == 1
    told = f"ocidiff: commit: {place}: is not empty and not a cache of ocidiff; name an empty directory\n"
    assert capsys.readouterr() == ("", told)
    assert [one.name for one in place.rglob("*")] == ["blobs", "precious.dat"]
