"""The verb index: a tree, or the layers of an image, become an index.

Law: the index of layers is the index of the tree that they unpack to.
"""

from __future__ import annotations

import stat
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from ocidiff.frozen import FrozenMapping
from ocidiff.layer.apply_options import IndexOptions
from ocidiff.layer.layer import IndexSummary, LayerMeasure
from ocidiff.layer.limits import Limits
from ocidiff.layer.options import LayerOptions, OnChange
from ocidiff.layer.pure.index_format import Header, Record, fingerprint, mount_point, stamp_of, xattr_digests
from ocidiff.layer.pure.index_writer import IndexWriter
from ocidiff.layer.pure.pace import Pace
from ocidiff.layer.pure.sketch import Sketch
from ocidiff.layer.pure.stream import BlobReader
from ocidiff.layer.pure.tar_reader import TarReader, filled
from ocidiff.layer.pure.tree import Node, Tree
from ocidiff.layer.scope import Scope
from ocidiff.oci.timestamp import NS_PER_SECOND

# A file that changed later before the index was begun gets no stamp: a change time is that of the last tick of the clock, up
# to 2 seconds ago on some file systems, so that a change to come could have the same one.
_SETTLED_SECONDS: Final = 3


def write_index(tree: bytes, sink: int, options: IndexOptions, pace: Pace) -> IndexSummary:
    """Write the index of a tree; see `Engine.write_index`."""
    writer = IndexWriter(sink, _header(options), pace)
    settled_before_ns = (int(time.time()) - _SETTLED_SECONDS) * NS_PER_SECOND if options.stamps else 0
    skipped = Counter[str]()
    reading = LayerOptions(ids=options.ids, scope=Scope(cross_mounts=options.cross_mounts), on_change=OnChange.FAIL)
    with Tree(tree, reading, pace) as source:
        for node, is_mount in _walk(source, pace):
            skipped.update({"mounts": 1} if is_mount else source.lost(node))
            record = mount_point(node.stat.st_mode) if is_mount else _record(source, node, sha256=options.sha256)
            # One that its owner may not read has no change time that says anything.
            may_have_stamp = not (node.is_dir or is_mount) and node.stat.st_mode & 0o400
            if node.stat.st_ctime_ns < settled_before_ns and may_have_stamp:
                record = replace(record, stamp=stamp_of(node.stat))
            writer.add(node.path, record)
    summary = replace(writer.finish(), skipped=FrozenMapping(skipped))
    pace.report()
    return summary


def write_index_of_layers(
    layers: Sequence[int], sink: int, options: IndexOptions, limits: Limits, pace: Pace
) -> tuple[IndexSummary, list[LayerMeasure]]:
    """Write the index of the tree that layers unpack to; see `Engine.write_index_of_layers`."""
    sketch, measures = Sketch(), list[LayerMeasure]()
    for layer in layers:
        sketch.next_layer()
        blob = BlobReader(layer, limits, pace)
        archive = TarReader(blob, limits)
        for entry in archive.entries():
            pace.entry()
            # As in an apply, what the entry says is judged before its data.
            file = sketch.apply(entry)
            if file is not None and entry.size:
                file.content = fingerprint(filled(archive.data()), sha256=options.sha256)
        sketch.end_layer()
        blob.drain()
        measures.append(LayerMeasure(blob.digest, blob.size, blob.diff_id, blob.plain_size, archive.holes, archive.count))
        limits = limits.after(blob.plain_size + archive.holes, archive.count)
    writer = IndexWriter(sink, _header(options), pace)
    for path, record in sketch.records():
        writer.add(path, record)
        pace.check()
    summary = replace(writer.finish(), skipped=FrozenMapping(sketch.lost))
    pace.report()
    return summary, measures


def _header(options: IndexOptions) -> Header:
    if options.chain_id is None:
        return Header(options.sha256)
    return Header(options.sha256, bytes.fromhex(options.chain_id.removeprefix("sha256:")))


def _walk(tree: Tree, pace: Pace) -> Iterator[tuple[Node, bool]]:
    """All below the root, a directory before its children, and whether something is mounted there, which is not entered."""
    stack = [iter(sorted(tree.children(None).items()))]
    while stack:
        name_and_path = next(stack[-1], None)
        if name_and_path is None:
            stack.pop()
            continue
        pace.entry()
        node = tree.node(name_and_path[1])
        is_mount = tree.is_mount(node)
        yield node, is_mount
        if node.is_dir and not is_mount:
            stack.append(iter(sorted(tree.children(node).items())))


def _record(tree: Tree, node: Node, *, sha256: bool) -> Record:
    tree.check_ids(node)
    facts = node.stat
    is_file = stat.S_ISREG(facts.st_mode)
    is_device = stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode)
    return Record(
        facts.st_mode,
        node.uid,
        node.gid,
        xattr_digests(tree.xattrs(node)),
        0 if node.is_dir else facts.st_mtime_ns,
        0 if node.is_dir else facts.st_size,
        facts.st_rdev if is_device else 0,
        fingerprint(tree.blocks(node), sha256=sha256) if is_file and facts.st_size else None,
        tree.target(node) if stat.S_ISLNK(facts.st_mode) else b"",
        lacks_owner=node.lacks_owner,
    )
