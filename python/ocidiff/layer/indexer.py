"""Index: what a tree is, in a file to compare with later, without the tree."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, cast

from ocidiff.errors import IndexFileError
from ocidiff.layer.apply_options import IndexOptions
from ocidiff.layer.engine import select_engine
from ocidiff.layer.layer import IndexPath, TreeIndex
from ocidiff.layer.monitor import Cancellation, Monitor, ProgressCallback
from ocidiff.layer.operand import Tree
from ocidiff.layer.options import DiffOptions
from ocidiff.layer.paths import tree_path
from ocidiff.layer.pure.index_format import HEADER, BrokenIndex, decode_header
from ocidiff.oci.digest import ChainID
from ocidiff.output import Output, open_output

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.layer.arguments import DiffArguments, TreeArguments

TREE_OPTIONS: Final = frozenset({"threads", "uid_map", "gid_map", "userns", "cross_mounts", "engine"})
"""The fields of `DiffOptions` that concern a tree alone: the keys of `TreeArguments`."""


def index(
    tree: Tree,
    output: Output,
    *,
    sha256: bool = False,
    stamps: bool = False,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
    **arguments: Unpack[TreeArguments],
) -> TreeIndex:
    """Save what a tree is, so that `diff`, `changes` and `Store.commit` take `index:FILE` in its place as the lower tree.

    Args:
        tree: Directory of the tree.
        output: Path of the index, which appears whole or not at all; or an open file, written from its position on.
        sha256: Give contents a sha256 beside the XXH3-128. It decides then: who can make files may make two of one XXH3.
        stamps: Keep the inodes and change times of files too. A comparison with this very tree then takes what still has
            them as the same, and reads only what changed since. The bytes of the index depend on time and place then.
        progress: Called with the counters a few times a second.
        cancel: Stops the call.
        **arguments: The fields of `DiffOptions` that concern a tree: `threads`, `uid_map`, `gid_map`, `userns`,
            `cross_mounts` and `engine`. An index has ids of the container. Without `cross_mounts`, what is mounted in the
            tree does not count in any comparison with the index.

    Raises:
        UsageError: An option is out of range.
        FileNotFoundError, NotADirectoryError: The tree is missing, or is no directory.
        UnrepresentableError: A file has an owner outside the id maps, or the tree is not whole.
        SourceChangedError: A file changed while it was read.
        Cancelled: `cancel` was used.
    """
    started = time.monotonic()
    if unknown := sorted(arguments.keys() - TREE_OPTIONS):
        raise TypeError(f"index() got an unexpected keyword argument {unknown[0]!r}")
    options = DiffOptions.of(None, cast("DiffArguments", arguments)).compared()
    selected, directory, monitor = select_engine(options.engine), tree_path(tree), Monitor(progress, cancel)
    monitor.check()
    with open_output(output) as sink:
        how = IndexOptions(None, options.ids, sha256, stamps, options.cross_mounts, options.threads)
        summary = selected.write_index(directory, sink, how, monitor)
    return summary.timed(time.monotonic() - started)


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
