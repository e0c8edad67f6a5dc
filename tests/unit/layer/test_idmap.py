"""Id maps: a tree with ids of the host gives the layer of its twin with ids of the container, and nothing else passes."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ocidiff
from ocidiff.errors import UnrepresentableError, UsageError
from ocidiff.layer import idmap
from ocidiff.layer.engine import Engine
from ocidiff.layer.idmap import IdMaps, IdRange
from ocidiff.layer.options import Profile
from ocidiff.mounts.layers import OverlayLayers
from support import overlays, probes, verbs

SHIFT = 100_000
USERS = ("0:100000:1000", "1000:101000:64536")
GROUPS = ("0:100000:65536",)
MAPS = IdMaps.of(USERS, GROUPS, None)
OWNERS = ((0, 0), (1, 5), (999, 1000), (1000, 65535), (65534, 0))


@contextmanager
def kept_times(path: Path) -> Iterator[None]:
    """Changes inside leave the modification time as it was."""
    seen = path.lstat().st_mtime_ns
    yield
    os.utime(path, ns=(seen, seen), follow_symlinks=False)


def shift(root: Path, by: int) -> None:
    """Give all below `root` ids of the host, as an engine does that makes a tree for a user namespace."""
    for path in [root, *root.rglob("*")]:
        facts = path.lstat()
        with kept_times(path):
            values = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            os.chown(path, facts.st_uid + by, facts.st_gid + by, follow_symlinks=False)
            if not path.is_symlink():
                os.chmod(path, stat.S_IMODE(facts.st_mode))
            for key, value in values.items():
                if key == "security.capability":
                    value = value[:3] + b"\3" + value[4:20] + struct.pack("<I", by)  # noqa: PLW2901
                if key.startswith("system.posix_acl_"):
                    value = value[:16] + struct.pack("<I", 1000 + by) + value[20:]  # noqa: PLW2901
                os.setxattr(path, key, value, follow_symlinks=False)


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, Path, Path, Path]:
    """Lower and upper with ids of the container, and both again with ids of the host."""
    if not probes.can_set_xattr("system.posix_acl_access", value=probes.ACL_VALUE):
        probes.missing("needs ACLs")
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for number, (uid, gid) in enumerate(OWNERS):
        for root in (lower, upper):
            directory = root / f"d{number}"
            directory.mkdir(parents=True)
            for name in ("kept", "changed", "moved"):
                (directory / name).write_text(name if root is lower or name == "kept" else name.upper())
                os.chown(directory / name, uid, gid)
                os.chmod(directory / name, 0o6755)
                os.utime(directory / name, ns=(10**18, 10**18))
            os.symlink("kept", directory / "link")
            os.chown(directory / "link", uid, gid, follow_symlinks=False)
            os.chown(directory, uid, gid)
    os.chown(upper / "d0/moved", 7, 7)
    os.setxattr(upper / "d1/changed", "security.capability", probes.CAPABILITY_VALUE)
    os.setxattr(upper / "d2/changed", "system.posix_acl_access", probes.ACL_VALUE)
    shutil.rmtree(upper / "d4")
    mapped = [root.with_name(root.name + ".host") for root in (lower, upper)]
    for root, copy in zip((lower, upper), mapped, strict=True):
        subprocess.run(["cp", "-a", root, copy], check=True)
        shift(copy, SHIFT)
    return lower, upper, mapped[0], mapped[1]


@pytest.mark.root
@pytest.mark.parametrize("profile", Profile)
def test_the_layer_is_that_of_the_unmapped_twin(
    engine: Engine, twins: tuple[Path, Path, Path, Path], profile: Profile
) -> None:
    lower, upper, mapped_lower, mapped_upper = twins
    for below, mapped_below in ((lower, mapped_lower), (None, None)):
        plain, _ = verbs.diff(engine, below, upper, profile=profile)
        mapped, _ = verbs.diff(engine, mapped_below, mapped_upper, profile=profile, ids=MAPS)
        unmapped, _ = verbs.diff(engine, mapped_below, mapped_upper, profile=profile)
        assert mapped == plain
        assert unmapped.diff_id != plain.diff_id


@pytest.mark.root
def test_a_lower_tree_from_layers_has_the_ids_of_the_container(engine: Engine, twins: tuple[Path, Path, Path, Path]) -> None:
    lower, upper, _, mapped_upper = twins
    plain, _ = verbs.diff(engine, lower, upper, lower_has_layer_times=True)
    assert verbs.diff(engine, lower, mapped_upper, lower_has_layer_times=True, ids=MAPS)[0] == plain


@pytest.mark.root
def test_from_inside_and_outside_a_user_namespace_the_layer_is_the_same(
    twins: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    lower, upper, mapped_lower, mapped_upper = twins
    if not probes.can_use_user_namespaces():
        probes.missing("needs user namespaces")
    plain = ocidiff.diff(lower, upper, tmp_path / "plain")
    assert ocidiff.diff(lower, upper, tmp_path / "same", userns=os.getpid()).diff_id == plain.diff_id
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "ocidiff",
        "diff",
        mapped_lower,
        mapped_upper,
        "-o",
        tmp_path / "inside",
        "--json",
    ]
    words: list[str | Path] = ["unshare", "--user", "sh", "-c", 'echo; read mapped; "$@"; read done', "sh", *command]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as inner:
        assert inner.stdin is not None
        assert inner.stdout is not None
        inner.stdout.readline()
        with pytest.raises(UsageError, match="has no uid_map yet"):
            ocidiff.diff(mapped_lower, mapped_upper, tmp_path / "mapped", userns=inner.pid)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{inner.pid}/{name}").write_text("0 100000 1000\n1000 101000 64536\n")
        print(file=inner.stdin, flush=True)
        assert json.loads(inner.stdout.readline())["diffID"] == plain.diff_id
        mapped = ocidiff.diff(mapped_lower, mapped_upper, tmp_path / "mapped", userns=inner.pid)
    assert mapped.diff_id == plain.diff_id


@pytest.mark.root
@pytest.mark.parametrize("kind", ["user", "group"])
def test_an_id_outside_the_map_is_told_with_its_file(engine: Engine, tmp_path: Path, kind: str) -> None:
    (tmp_path / "d").mkdir()
    file = tmp_path / "d/f"
    file.write_text("")
    os.chown(file, 77 if kind == "user" else 0, 77 if kind == "group" else 0)
    ids = IdMaps.of(["0:0:77"], ["0:0:77"], None)
    with pytest.raises(UnrepresentableError, match=rf"^{re.escape(str(file))}: {kind} id 77 is outside the id map$"):
        verbs.diff(engine, None, tmp_path, ids=ids)
    os.chown(file, 76, 76)
    verbs.diff(engine, None, tmp_path, ids=ids)
    # A file that was there before may have any owner.
    with pytest.raises(UnrepresentableError, match="id 76"):
        verbs.diff(engine, tmp_path, tmp_path, ids=IdMaps.of(["0:0:76"], [], None))
    (tmp_path / "after").mkdir()
    summary, _ = verbs.diff(engine, tmp_path / "d", tmp_path / "after", ids=IdMaps.of(["0:0:76"], [], None))
    assert summary.deleted == 1


@pytest.mark.root
def test_an_id_in_an_acl_or_capability_outside_the_map_is_told_too(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("")
    os.setxattr(file, "system.posix_acl_access", probes.ACL_VALUE)
    with pytest.raises(UnrepresentableError, match="user id 1000 is outside"):
        verbs.diff(engine, None, tmp_path, ids=IdMaps.of(["0:0:1000"], [], None))
    os.removexattr(file, "system.posix_acl_access")
    value = probes.CAPABILITY_VALUE
    os.setxattr(file, "security.capability", value[:3] + b"\3" + value[4:] + struct.pack("<I", 5000))
    with pytest.raises(UnrepresentableError, match="user id 5000 is outside"):
        verbs.diff(engine, None, tmp_path, ids=IdMaps.of(["0:0:1000"], [], None))
    _, mapped = verbs.diff(engine, None, tmp_path, ids=IdMaps.of(["0:0:1", "9:5000:1"], [], None))
    assert b"security.capability=" + value[:3] + b"\3" + value[4:] + struct.pack("<I", 9) in mapped


@pytest.mark.root
def test_marks_of_an_overlay_may_have_any_owner(
    engine: Engine, twins: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    if not overlays.can_mount():
        probes.missing("needs overlay mounts")
    lower, _, mapped_lower, _ = twins
    results = []
    for below, by in ((lower, 0), (mapped_lower, SHIFT)):
        layer = tmp_path / f"layer{by}"
        layer.mkdir()
        with overlays.mounted(tmp_path / "merged", [below], layer) as root:
            (root / "d1/kept").unlink()
            (root / "d2/changed").write_text("now")
            os.utime(root / "d2/changed", ns=(10**18 + 1, 10**18 + 1))
            shutil.rmtree(root / "d3")
            for name in ("d1", "d2"):
                os.utime(root / name, (0, 0))
        assert (layer / "d1/kept").lstat().st_uid == 0
        layers = OverlayLayers(os.fsencode(layer), (os.fsencode(below),))
        results.append(verbs.diff(engine, None, layers, ids=MAPS if by else IdMaps())[0])
    assert results[0] == results[1]
    assert results[0].deleted == 2


@pytest.mark.root
def test_a_commit_maps_the_tree_and_not_its_base(twins: tuple[Path, Path, Path, Path], tmp_path: Path) -> None:
    lower, upper, mapped_lower, mapped_upper = twins
    with ocidiff.Store.open(tmp_path / "store", create=True) as store:
        base = store.commit(mapped_lower, "base", uid_map=USERS, gid_map=GROUPS)
        assert base.layer is not None
        assert base.layer.diff_id == ocidiff.diff(None, lower, tmp_path / "layer").diff_id
        twin = store.commit(upper, "twin", base="base")
        mapped = store.commit(mapped_upper, "mapped", base="base", uid_map=USERS, gid_map=GROUPS)
        assert (twin.layer, mapped.layer) != (None, None)
        assert twin.config.rootfs == mapped.config.rootfs
        container = store.create("base")
        with pytest.raises(UsageError, match="id maps cannot be given"):
            store.commit(container, "again", uid_map=USERS)


@pytest.mark.parametrize(
    "text", ["", "0:0", "0:0:0:0", "a:0:1", "0:0:0", "-1:0:1", "0:0:4294967296", "1:0:4294967295", "0:99999999999:1"]
)
def test_a_malformed_map_is_wrong_usage(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="id map"):
        ocidiff.diff(None, tmp_path, tmp_path / "layer", uid_map=[text])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("texts", [["0:0:10", "20:9:1"], ["0:0:10", "9:20:1"]])
def test_ranges_that_overlap_are_wrong_usage(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="overlap"):
        IdMaps.of([], texts, None)


def test_a_process_takes_the_place_of_maps() -> None:
    with pytest.raises(UsageError, match="takes the place"):
        IdMaps.of(["0:0:1"], [], os.getpid())
    with pytest.raises(FileNotFoundError):
        IdMaps.of([], [], 1 << 30)


def test_the_ranges_of_a_user_lie_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "subuid"
    file.write_text(
        "# ranges\nroot:100000:10\nother:5:1\nbroken:\n0:200000:5\n" + f"root:{'9' * 5000}:1\nroot:²:1\nroot:1:-1\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(idmap, "_SUBORDINATE", {"user": str(file), "group": str(file)})
    expected = (IdRange(0, 100000, 10), IdRange(10, 200000, 5))
    assert IdMaps.of(["root"], [], None).users == expected
    assert IdMaps.of([], ["0"], None).groups == expected
    with pytest.raises(UsageError, match="no such user"):
        IdMaps.of(["nobody-of-that-name"], [], None)
