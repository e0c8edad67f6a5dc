"""The verbs as a program calls them: `ocidiff.diff`, `ocidiff.changes`, `ocidiff.apply`."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff import output
from ocidiff.layer.options import EngineName
from support import trees


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    (tmp_path / "lower" / "d").mkdir(parents=True)
    (tmp_path / "lower" / "d" / "gone").write_text("gone")
    (tmp_path / "lower" / "kept").write_text("kept")
    os.utime(tmp_path / "lower" / "kept", (1, 1))
    return tmp_path / "lower"


@pytest.fixture
def upper(tmp_path: Path, lower: Path) -> Path:
    (tmp_path / "upper" / "d").mkdir(parents=True)
    (tmp_path / "upper" / "d" / "new").write_text("new")
    (tmp_path / "upper" / "kept").write_text("kept")
    os.utime(tmp_path / "upper" / "kept", (1, 1))
    return tmp_path / "upper"


def _left_behind(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name not in {"lower", "upper"})


def test_a_layer_is_written_described_and_applied(lower: Path, upper: Path, tmp_path: Path, engine_name: EngineName) -> None:
    path = tmp_path / "layer.tar.gz"
    layer = ocidiff.diff(lower, upper, path, engine=engine_name)
    blob = path.read_bytes()
    assert layer.descriptor.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert layer.descriptor.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert layer.descriptor.size == len(blob)
    assert layer.diff_id == "sha256:" + hashlib.sha256(gzip.decompress(blob)).hexdigest()
    assert layer.uncompressed_size == len(gzip.decompress(blob))
    assert (layer.added, layer.modified, layer.deleted, layer.empty) == (1, 0, 1, False)
    summary = ocidiff.apply(path, lower, diff_id=layer.diff_id, digest=layer.descriptor.digest, engine=engine_name)
    assert (summary.diff_id, summary.digest, summary.whiteouts) == (layer.diff_id, layer.descriptor.digest, 1)
    trees.assert_same_tree(lower, upper)


def test_changes_come_in_layer_order(lower: Path, upper: Path, engine_name: EngineName) -> None:
    found = [(change.kind, change.path) for change in ocidiff.changes(lower, upper, engine=engine_name)]
    assert found == [(ocidiff.ChangeKind.DELETE, "/d/gone"), (ocidiff.ChangeKind.ADD, "/d/new")]


def test_equal_trees_give_an_empty_layer(lower: Path, tmp_path: Path, engine_name: EngineName) -> None:
    assert ocidiff.diff(lower, lower, tmp_path / "layer", engine=engine_name).empty


@pytest.mark.parametrize("word", [None, "scratch"])
def test_no_lower_tree_means_that_everything_is_added(
    upper: Path, word: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_name: EngineName
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path)
    paths = [change.path for change in ocidiff.changes(word, upper, engine=engine_name)]
    assert paths == ["/d", "/d/new", "/kept"]


@pytest.mark.parametrize("lower", ["./scratch", Path("scratch")])
def test_a_directory_named_scratch_can_be_the_lower_tree(
    upper: Path, lower: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        ocidiff.changes(lower, upper, engine="pure")


def test_missing_trees_are_told_at_once_with_their_name(lower: Path, tmp_path: Path) -> None:
    for arguments in ((tmp_path / "no", lower), (lower, tmp_path / "no")):
        with pytest.raises(FileNotFoundError) as missing:
            ocidiff.changes(*arguments)
        assert missing.value.filename == str(tmp_path / "no")
        with pytest.raises(FileNotFoundError):
            ocidiff.diff(*arguments, tmp_path / "layer")
    with pytest.raises(NotADirectoryError) as wrong:
        ocidiff.diff(lower / "kept", lower, tmp_path / "layer")
    assert wrong.value.filename == str(lower / "kept")
    assert _left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"compression": "lz4"}, "compression 'lz4': takes gzip, zstd, none"),
        ({"level": 0}, "level 0"),
        ({"compression": "none", "level": 1}, "no level"),
        ({"profile": "x"}, "profile 'x': takes oci, containerd"),
        ({"threads": 5000}, "threads 5000"),
        ({"source_date_epoch": -1}, "source date epoch -1"),
        ({"engine": "x"}, "engine 'x'"),
    ],
)
def test_wrong_options_are_wrong_usage(lower: Path, tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ocidiff.UsageError, match=problem):
        ocidiff.diff(lower, lower, tmp_path / "layer", **options)
    assert _left_behind(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["yesterday", "-1", "1.5", " 1", "1e9", "\u0663", "9" * 19, "9" * 5000, "0x10", "1_000", "+1"]
)
def test_a_hostile_source_date_epoch_in_the_environment_is_wrong_usage(
    lower: Path, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(ocidiff.UsageError, match=r"(?i)source.date.epoch") as caught:
        ocidiff.diff(lower, lower, tmp_path / "layer")
    assert len(str(caught.value)) < 200


def test_the_source_date_epoch_of_the_environment_is_used_unless_one_is_given(
    upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diff_id(**options: Any) -> str:
        return ocidiff.diff(None, upper, tmp_path / "layer", engine="pure", **options).diff_id

    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    unbound, bound = diff_id(), diff_id(source_date_epoch=100)
    assert unbound != bound
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "100")
    assert diff_id() == bound
    assert diff_id(source_date_epoch=0) != bound
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert diff_id() == unbound


# Output.


@pytest.fixture(params=["unnamed", "named", "no proc"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way of writing a file: with O_TMPFILE, where the file system lacks it, and where /proc is not mounted."""
    if request.param == "named":
        real = os.open

        def without_unnamed_files(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            return real(path, flags, *arguments, **named)

        monkeypatch.setattr(os, "open", without_unnamed_files)
    elif request.param == "no proc":
        monkeypatch.setattr(output, "_link_source", lambda _: "/nonexistent/fd")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("exists", [True, False])
def test_an_output_appears_whole_with_the_modes_of_the_umask(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "layer"
    if exists:
        path.write_bytes(b"old and longer")
    umask = os.umask(0o027)
    try:
        with output.open_output(path) as descriptor:
            os.write(descriptor, b"new")
            assert path.exists() == exists
    finally:
        os.umask(umask)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["layer"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_a_failure_leaves_the_output_as_it_was(tmp_path: Path, exists: bool, error: Any) -> None:
    path = tmp_path / "layer"
    if exists:
        path.write_bytes(b"old")

    def write() -> None:
        with output.open_output(path) as descriptor:
            os.write(descriptor, b"half")
            raise error

    with pytest.raises(error if isinstance(error, type) else OSError):
        write()
    assert os.listdir(tmp_path) == (["layer"] if exists else [])
    assert not exists or path.read_bytes() == b"old"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failure_at_the_end_leaves_the_output_as_it_was(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "layer"
    path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="Input/output"), output.open_output(path):
        pass
    assert os.listdir(tmp_path) == ["layer"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("length", [1, 255])
def test_an_output_may_have_any_name(tmp_path: Path, length: int) -> None:
    path = os.fsencode(tmp_path) + b"/" + b"\xff" * length
    for _ in range(2):
        with output.open_output(path) as descriptor:
            os.write(descriptor, b"new")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff" * length]


def test_a_symlink_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    for _ in range(2):
        with output.open_output(tmp_path / "link") as descriptor:
            os.write(descriptor, b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"new"


def test_devices_pipes_and_open_files_are_written_directly(tmp_path: Path, upper: Path) -> None:
    layer = ocidiff.diff(None, upper, "/dev/null", engine="pure")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with tempfile.TemporaryFile() as file:
        file.write(b"before ")
        ocidiff.diff(None, upper, file, engine="pure")
        file.seek(0)
        data = file.read()
    assert data.startswith(b"before \x1f\x8b")
    assert len(data) == len(b"before ") + layer.descriptor.size


def test_a_bad_place_for_the_output_is_told_with_its_name(upper: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        ocidiff.diff(None, upper, tmp_path / "no" / "layer", engine="pure")
    assert missing.value.filename == str(tmp_path / "no")
    with pytest.raises(IsADirectoryError) as directory:
        ocidiff.diff(None, upper, upper, engine="pure")
    assert directory.value.filename == str(upper)
    with pytest.raises(NotADirectoryError):
        ocidiff.diff(None, upper, upper / "kept" / "layer", engine="pure")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_what_progress_raises_ends_the_diff_and_leaves_nothing(
    upper: Path, tmp_path: Path, kind: type[BaseException], engine_name: EngineName
) -> None:
    for number in range(3000):
        (upper / str(number)).write_bytes(os.urandom(4096))

    def interrupt(_: ocidiff.Progress) -> None:
        raise kind

    with pytest.raises(kind):
        ocidiff.diff(None, upper, tmp_path / "layer", progress=interrupt, engine=engine_name)
    assert _left_behind(tmp_path) == []


def test_a_cancelled_diff_leaves_nothing(upper: Path, tmp_path: Path, engine_name: EngineName) -> None:
    cancel = ocidiff.Cancellation()
    cancel.cancel()
    with pytest.raises(ocidiff.Cancelled):
        ocidiff.diff(None, upper, tmp_path / "layer", cancel=cancel, engine=engine_name)
    assert _left_behind(tmp_path) == []


# Apply.


def test_a_cancelled_apply_writes_nothing(lower: Path, upper: Path, tmp_path: Path, engine_name: EngineName) -> None:
    ocidiff.diff(lower, upper, tmp_path / "layer", engine=engine_name)
    cancel = ocidiff.Cancellation()
    cancel.cancel()
    with pytest.raises(ocidiff.Cancelled):
        ocidiff.apply(tmp_path / "layer", lower, cancel=cancel, engine=engine_name)
    assert sorted(os.listdir(lower / "d")) == ["gone"]


@pytest.mark.parametrize("what", ["diff_id", "digest"])
def test_another_layer_than_the_one_named_is_told(
    lower: Path, upper: Path, tmp_path: Path, what: str, engine_name: EngineName
) -> None:
    ocidiff.diff(lower, upper, tmp_path / "layer", engine=engine_name)
    expected = "sha256:" + "0" * 64
    with pytest.raises(ocidiff.DigestMismatchError, match=expected):
        ocidiff.apply(tmp_path / "layer", lower, engine=engine_name, **{what: expected})  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["diff_id", "digest"])
def test_a_digest_that_is_none_is_wrong_usage(lower: Path, tmp_path: Path, what: str) -> None:
    with pytest.raises(ocidiff.UsageError, match="not a sha256 digest"):
        ocidiff.apply(tmp_path / "layer", lower, **{what: "sha256:x"})  # type: ignore[arg-type]


def test_a_layer_may_come_from_an_open_file(lower: Path, upper: Path, tmp_path: Path) -> None:
    ocidiff.diff(lower, upper, tmp_path / "layer", engine="pure")
    with open(tmp_path / "layer", "rb") as file:
        ocidiff.apply(file, lower, engine="pure")
    trees.assert_same_tree(lower, upper)


def test_bad_places_are_told_before_anything_is_applied(lower: Path, upper: Path, tmp_path: Path) -> None:
    ocidiff.diff(lower, upper, tmp_path / "layer", engine="pure")
    for layer, target, kind in (
        (tmp_path / "no", lower, FileNotFoundError),
        (lower, lower, IsADirectoryError),
        (tmp_path / "layer", tmp_path / "no", FileNotFoundError),
        (tmp_path / "layer", lower / "kept", NotADirectoryError),
    ):
        with pytest.raises(kind) as caught:
            ocidiff.apply(layer, target, engine="pure")
        assert isinstance(caught.value.filename, str)
