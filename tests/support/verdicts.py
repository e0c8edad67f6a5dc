"""What the engines say of a layer: a refusal to the word, or the tree that an apply leaves."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ocidiff.errors import OcidiffError
from ocidiff.layer.engine import Engine
from support import trees, verbs
from support.archives import directory, file, symlink, tar

Refusal = tuple[type[Exception], str]


def assert_same(rust: Engine, pure: Engine, layer: bytes, *, scans: bool = True, **limits: int) -> Refusal | None:
    """Fail unless both engines take a layer for the same; what an index says of its form is the same too.

    Args:
        scans: Compare the trees too, whose paths system calls can take.
    """
    with tempfile.TemporaryDirectory() as home:
        roots = [target(home, name) for name in ("rust", "pure")]
        one, other = (refusal(engine, layer, root, **limits) for engine, root in zip((rust, pure), roots, strict=True))
        assert one == other, (one, other)
        if one is None and scans:
            facts = [trees.comparable(trees.scan_tree(root), xattrs=lambda _: True) for root in roots]
            trees.assert_same_facts(*facts)
            # Times that no entry gives are those of the run.
            assert [os.stat(root).st_mode for root in roots] == [os.stat(roots[0]).st_mode] * 2
        indexed = [index_verdict(engine, layer) for engine in (rust, pure)]
        assert indexed[0] == indexed[1], indexed
        # Only the kernel knows which attributes it takes, and which names.
        if one is None or (issubclass(one[0], OcidiffError) and "xattr" not in one[1] and not limits):
            assert (indexed[0] if one else type(indexed[0])) == (one or bytes), (one, indexed[0])
        return one


_TARGET = tar(
    *(directory(b"d"), directory(b"d/x"), file(b"a", b"lower"), file(b"d/old", b"lower"), file(b"d/x/old", b"lower")),
    *(symlink(b"up", b".."), symlink(b"l", b"/d")),
)


def target(home: str, name: str) -> Path:
    """A target with a file, a directory and two links, as `cases` describes it."""
    root = Path(home, name)
    (root / "d" / "x").mkdir(parents=True)
    for path in ("a", "d/old", "d/x/old"):
        (root / path).write_text("lower")
    (root / "up").symlink_to("..")
    (root / "l").symlink_to("/d")
    for path in ("a", "d/old", "d/x/old", "d/x", "d", "up", "l"):
        os.utime(root / path, (7, 7), follow_symlinks=False)
    return root


def refusal(engine: Engine, layer: bytes, root: Path, **limits: int) -> Refusal | None:
    """How a layer is refused, with the target left out of the sentence; None when it is applied."""
    try:
        verbs.apply(engine, layer, root, **limits)
    except (OcidiffError, OSError) as error:
        return type(error), str(error).replace(str(root), "TARGET")
    return None


def index_verdict(engine: Engine, layer: bytes) -> Refusal | bytes:
    """How a layer over the target is refused when it is indexed, or the index."""
    try:
        return verbs.index_of_layers(engine, [_TARGET, layer])[0]
    except (OcidiffError, OSError) as error:
        return type(error), str(error)
