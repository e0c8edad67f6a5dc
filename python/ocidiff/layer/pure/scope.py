"""What is left of both trees within a scope, and how much is not."""

from __future__ import annotations

import re
import stat

from ocidiff.layer.pure.index_tree import IndexTree
from ocidiff.layer.pure.overlay import OverlayTree
from ocidiff.layer.pure.tree import Node, Tree
from ocidiff.layer.scope import Scope

_AnyTree = Tree | OverlayTree | IndexTree


class Narrowing:
    """Takes out of each pair of entries what is outside.

    Attributes:
        excluded: Paths taken out that seem to have changed.
        mounts: Mount points taken out.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._rules = [(re.compile(rule.expression.encode(), re.DOTALL), rule.excludes) for rule in reversed(scope.rules)]
        self.excluded = 0
        self.mounts = 0

    def left(
        self, lower: _AnyTree | None, old: Node | None, upper: _AnyTree, new: Node | None
    ) -> tuple[Node | None, Node | None]:
        """What is left of the entries of one path."""
        # A tree of which mounts are crossed has none.
        if (new is not None and upper.is_mount(new)) or (lower is not None and old is not None and lower.is_mount(old)):
            self.mounts += 1
            return None, None
        old_is_out = old is not None and self._is_out(old)
        new_is_out = new is not None and self._is_out(new)
        if new is None:
            self.excluded += old_is_out
        elif new_is_out:
            self.excluded += old is None or _seem_different(old, new)
        # A socket takes the place of what was there, and says nothing of it.
        hides = self._scope.sockets and new is not None and stat.S_ISSOCK(new.stat.st_mode)
        return None if old_is_out or hides else old, None if new_is_out else new

    def _is_out(self, node: Node) -> bool:
        if self._scope.sockets and stat.S_ISSOCK(node.stat.st_mode):
            return True
        path = node.path + b"/" if node.is_dir else node.path
        return next((excludes for expression, excludes in self._rules if expression.fullmatch(path)), False)


def _seem_different(old: Node, new: Node) -> bool:
    """Whether they differ by what a look at them tells, without their content or attributes."""
    a, b = old.stat, new.stat
    if (a.st_mode, old.uid, old.gid, a.st_rdev) != (b.st_mode, new.uid, new.gid, b.st_rdev):
        return True
    return not new.is_dir and (a.st_size, a.st_mtime_ns) != (b.st_size, b.st_mtime_ns)
