"""The options of the verbs: what is taken, what is refused, and by type checkers too."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import ocidiff
from ocidiff import Compression, DiffOptions, OverlayMode, Profile, UsageError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("text")
    (tmp_path / "tree" / "file.pyc").write_text("text")
    return tmp_path / "tree"


# mypy refuses each of these calls too: it reports an ignored error that is none.
def test_a_text_is_no_list_of_texts(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^exclude '\*\.pyc': must be a list: \['\*\.pyc'\]$"):
        ocidiff.diff(None, tree, tmp_path / "layer", exclude="*.pyc")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^uid_map '0:1:1': must be a list"):
        ocidiff.changes(None, tree, uid_map="0:1:1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^gid_map 5: must be a list"):
        DiffOptions(gid_map=5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^exclude b'x': must be text$"):
        DiffOptions(exclude=[b"x"])  # type: ignore[list-item]
    assert not (tmp_path / "layer").exists()


def test_a_number_is_no_text_and_no_flag(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^fail above '5MB': takes bytes, 0 or more$"):
        ocidiff.diff(None, tree, tmp_path / "layer", fail_above="5MB")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^threads None: takes 1 to 1024"):
        ocidiff.changes(None, tree, threads=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^level '6': takes a number$"):
        ocidiff.diff(None, tree, tmp_path / "layer", level="6")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^threads True: takes 1 to 1024"):
        DiffOptions(threads=True)
    with pytest.raises(UsageError, match=r"^cross_mounts 'no': must be True or False$"):
        ocidiff.changes(None, tree, cross_mounts="no")  # type: ignore[arg-type]


def test_words_that_stand_for_nothing_are_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^engine 'rustt': there are rust and pure$"):
        ocidiff.diff(None, tree, tmp_path / "layer", engine="rustt")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^compression 'zst': takes gzip, zstd, none$"):
        ocidiff.diff(None, tree, tmp_path / "layer", compression="zst")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^profile 'docker': takes oci, containerd$"):
        ocidiff.changes(None, tree, profile="docker")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^on_change 'wait': takes fail, retry$"):
        ocidiff.changes(None, tree, on_change="wait")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^overlay 'yes': takes auto, never, require$"):
        ocidiff.changes(None, tree, overlay="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="compresion"):
        ocidiff.diff(None, tree, tmp_path / "layer", compresion="gzip")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="exclude"):
        ocidiff.index(tree, tmp_path / "index", exclude=["x"])  # type: ignore[call-arg]


def test_options_are_given_as_a_value_or_by_name(tree: Path, tmp_path: Path) -> None:
    options = DiffOptions(exclude=["*.pyc"], compression=Compression.NONE, profile=Profile.CONTAINERD)
    by_value = ocidiff.diff(None, tree, tmp_path / "value", options=options)
    by_name = ocidiff.diff(None, tree, tmp_path / "name", exclude=["*.pyc"], compression="none", profile=Profile.CONTAINERD)
    assert by_value.descriptor == by_name.descriptor
    assert by_value.diff_id == by_value.descriptor.digest
    assert [change.path for change in ocidiff.changes(None, tree, options=options)] == ["/file"]
    with ocidiff.Store.open(tmp_path / "store") as store:
        image = store.commit(tree, "app:v1", options=options)
        assert image.layer is not None
        assert image.layer.diff_id == by_value.diff_id
    with pytest.raises(UsageError, match=r"^options: cannot be combined with level, threads$"):
        ocidiff.diff(None, tree, tmp_path / "both", options=options, threads=1, level=1)


def test_options_are_values() -> None:
    options = DiffOptions(exclude=["*.pyc"], compression="zstd", overlay="never")  # type: ignore[arg-type]
    assert options == DiffOptions(exclude=("*.pyc",), compression=Compression.ZSTD, overlay=OverlayMode.NEVER)
    assert type(options.compression) is Compression
    assert hash(options) == hash(pickle.loads(pickle.dumps(options)))
    assert pickle.loads(pickle.dumps(options)) == options


def test_a_level_is_judged_by_the_compression_that_the_output_names(tree: Path, tmp_path: Path) -> None:
    assert ocidiff.diff(None, tree, tmp_path / "layer.tar.zst", level=19).descriptor.media_type.endswith("zstd")
    with pytest.raises(UsageError, match=r"^level 19: gzip takes 1 to 9$"):
        ocidiff.diff(None, tree, tmp_path / "layer", level=19)
