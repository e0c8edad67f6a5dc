"""A user without privileges: what that user did not touch stays as it was, and closed modes are in nobody's way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from support import probes

pytestmark = pytest.mark.root

# One id and no capabilities, as a user has who was given nothing.
USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


def run(store: Path, engine: str, *words: str, user: bool = True) -> str:
    done = subprocess.run(
        [*(USER if user else ()), sys.executable, "-m", "ocidiff", *words],
        env={**os.environ, "OCIDIFF_STORE": str(store), "OCIDIFF_ENGINE": engine},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _can_be_a_user() -> None:
    if subprocess.run([*USER, "true"], capture_output=True, check=False).returncode:
        probes.missing("needs user namespaces")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tree of root's: other groups, set-id bits, a device, closed files and directories."""
    root = tmp_path / "base"
    for directory in ("etc", "bin", "var/mail", "secret/deep"):
        (root / directory).mkdir(parents=True)
    for name, mode, uid, gid in (
        *(("etc/shadow", 0, 0, 42), ("bin/su", 0o4755, 0, 0), ("bin/wall", 0o2755, 0, 5), ("bin/own", 0o755, 33, 33)),
        *(("secret/deep/f", 0o600, 0, 0), ("etc/user", 0o644, 1000, 1000)),
    ):
        (root / name).write_text(name)
        os.chown(root / name, uid, gid)
        (root / name).chmod(mode)
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    (root / "link").symlink_to("etc/shadow")
    os.lchown(root / "link", 33, 33)
    os.chown(root / "var/mail", 0, 8)
    (root / "var/mail").chmod(0o2775)
    (root / "secret/deep").chmod(0)
    (root / "secret").chmod(0)
    return root


def last_words(store: Path, engine: str, image: str) -> dict[str, tuple[bytes, int, int, int]]:
    """Type, mode and owner that the last layer with a name gives it."""
    found = {}
    for layer in json.loads(run(store, engine, "inspect", image, user=False))["manifest"]["layers"]:
        with tarfile.open(store / "blobs" / layer["digest"].replace(":", "/")) as archive:
            for entry in archive:
                found[entry.name] = (entry.type, entry.mode, entry.uid, entry.gid)
    return found


def test_what_is_not_touched_stays(base: Path, tmp_path: Path, engine_name: str) -> None:
    store = tmp_path / "store"
    run(store, engine_name, "commit", str(base), "box:1", user=False)
    before = last_words(store, engine_name, "box:1")
    run(store, engine_name, "create", "box:1", "work")
    (Path(run(store, engine_name, "mount", "work")) / "etc/new").touch()
    run(store, engine_name, "commit", "work", "box:2")
    run(store, engine_name, "unpack", "box:1", str(tmp_path / "got"))
    (tmp_path / "got/etc/new").touch()
    maps = ("--uid-map", "0:1000:1", "--gid-map", "0:1000:1")
    run(store, engine_name, "commit", str(tmp_path / "got"), "box:3", "--base", "box:1", *maps)
    for image in ("box:2", "box:3"):
        after = last_words(store, engine_name, image)
        assert {name: after.get(name) for name in before} == before, image
        assert after["etc/new"][2:] == (0, 0)
        assert after.keys() == before.keys() | {"etc/new"}


def test_closed_modes_are_in_nobodys_way(base: Path, tmp_path: Path, engine_name: str) -> None:
    store = tmp_path / "store"
    run(store, engine_name, "commit", str(base), "box:1", user=False)
    run(store, engine_name, "create", "box:1", "work")
    root = Path(run(store, engine_name, "mount", "work"))
    modes = {path: path.lstat().st_mode for path in (root / "etc/shadow", root / "secret", root / "secret/deep")}
    (root / "new").touch()
    run(store, engine_name, "commit", "work", "box:2")
    run(store, engine_name, "create", "box:2", "again")
    run(store, engine_name, "verify")
    assert {path: path.lstat().st_mode for path in modes} == modes
    run(store, engine_name, "rm", "work", "again")
    run(store, engine_name, "rmi", "box:2", "box:1")
    run(store, engine_name, "gc")
    assert [path.name for path in (store / "snapshots").iterdir()] == []


def test_a_container_that_nobody_touched_has_no_changes(tmp_path: Path, engine_name: str) -> None:
    tree, store = tmp_path / "tree", tmp_path / "store"
    (tree / "etc").mkdir(parents=True)
    for number, mode in enumerate((0o000, 0o200, 0o400, 0o440, 0o600, 0o4711, 0o2755)):
        for path in (tree / f"etc/file{mode:o}", tree / f"etc/directory{mode:o}"):
            path.mkdir() if "directory" in path.name else path.write_text(str(mode))
            os.setxattr(path, "user.note", b"kept")
            os.chown(path, number, 42)
            path.chmod(mode)
    run(store, engine_name, "commit", str(tree), "app:v1", user=False)
    run(store, engine_name, "create", "app:v1", "work", "--driver", "directory")
    assert run(store, engine_name, "changes", "work") == ""
    assert json.loads(run(store, engine_name, "commit", "work", "app:v2", "--json"))["layer"] is None
