"""Index: what a tree is, in a file to compare with later, without the tree."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from ocidiff.errors import IndexFileError
from ocidiff.layer.differ import Tree, tree_path
from ocidiff.layer.engine import select_engine
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.layer import IndexPath, TreeIndex
from ocidiff.layer.monitor import Cancellation, Monitor, ProgressCallback
from ocidiff.layer.options import LayerOptions
from ocidiff.layer.pure.index_format import HEADER, BrokenIndex, decode_header
from ocidiff.oci.digest import ChainID
from ocidiff.output import Output, open_output


def index(
    tree: Tree,
    output: Output,
    *,
    sha256: bool = False,
    stamps: bool = False,
    cross_mounts: bool = False,
    threads: int = 0,
    uid_map: Sequence[str] = (),
    gid_map: Sequence[str] = (),
    userns: int | None = None,
    engine: str | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> TreeIndex:
    """Save what a tree is, so that `diff`, `changes` and `Store.commit` take `index:FILE` in its place as the lower tree.

    Args:
        tree: Directory of the tree.
        output: Path of the index, which appears whole or not at all; or an open file, written from its position on.
        sha256: Give contents a sha256 beside the XXH3-128. It decides then: who can make files may make two of one XXH3.
        stamps: Keep the inodes and change times of files too. A comparison with this very tree then takes what still has
            them as the same, and reads only what changed since. The bytes of the index depend on time and place then.
        cross_mounts: Let what is mounted in the tree count. Otherwise mount points do not, in any comparison with the index.
        threads: Worker threads; 0 for as many as there are cores. The bytes do not depend on it.
        uid_map: See `diff`, here and below. An index has ids of the container.
        gid_map: The same of groups.
        userns: Process with both.
        engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.
        progress: Called with the counters a few times a second.
        cancel: Stops the call.

    Raises:
        UsageError: An option is out of range.
        FileNotFoundError, NotADirectoryError: The tree is missing, or is no directory.
        UnrepresentableError: A file has an owner outside the id maps, or the tree is not whole.
        SourceChangedError: A file changed while it was read.
        Cancelled: `cancel` was used.
    """
    started = time.monotonic()
    options = LayerOptions(threads=threads, ids=IdMaps.of(uid_map, gid_map, userns))
    selected, directory, monitor = select_engine(engine), tree_path(tree), Monitor(progress, cancel)
    monitor.check()
    with open_output(output) as sink:
        summary = selected.write_index(
            directory,
            sink,
            chain_id=None,
            ids=options.ids,
            sha256=sha256,
            stamps=stamps,
            cross_mounts=cross_mounts,
            threads=options.threads,
            monitor=monitor,
        )
    seconds = time.monotonic() - started
    return TreeIndex(summary.digest, summary.size, summary.entries, summary.file_bytes, seconds, summary.skipped)


def layers_of(index: IndexPath) -> ChainID | None:
    """The layers that an index was made from; None for a tree. No more of it is looked at.

    Raises:
        IndexFileError: It does not begin as an index does.
    """
    path = os.fsdecode(index.path)
    with open(path, "rb") as file:
        try:
            chain_id = decode_header(file.read(HEADER.size)).chain_id
        except BrokenIndex as broken:
            raise IndexFileError(f"index {path}: {broken}") from broken
    return ChainID("sha256:" + chain_id.hex()) if any(chain_id) else None
