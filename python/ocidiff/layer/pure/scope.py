"""The part of both trees that is within a scope, and how much is not."""

from __future__ import annotations

import stat
from functools import lru_cache
from typing import Final

from ocidiff.layer.patterns import compile_rules
from ocidiff.layer.pure.directories import split
from ocidiff.layer.pure.index_tree import IndexTree
from ocidiff.layer.pure.overlay import OverlayTree
from ocidiff.layer.pure.tree import Node, Tree
from ocidiff.layer.scope import Scope

_AnyTree = Tree | OverlayTree | IndexTree
_SLASH: Final = ord("/")
_REMEMBERED: Final = 64  # directories whose states are not read again


class Narrowing:
    """Takes out of each pair of entries what is outside.

    Attributes:
        excluded: Paths taken out that seem to have changed.
        mounts: Mount points taken out.
        steps: Bytes of paths that were matched.
        fitted: Last states of the patterns that fitted a path.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._automaton = compile_rules(scope.rules)
        self._moves = [self._automaton.moves.get(byte, self._automaton.other_moves) for byte in range(256)]
        self._states_in = lru_cache(_REMEMBERED)(self._enter)
        self.excluded = 0
        self.mounts = 0
        self.steps = 0
        self.fitted = 0

    def left(
        self, lower: _AnyTree | None, old: Node | None, upper: _AnyTree, new: Node | None
    ) -> tuple[Node | None, Node | None]:
        """Return what is left of the entries of one path."""
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
        if not self._scope.rules:
            return False
        parent, name = split(node.path)
        rules = self._automaton
        found = self._read(self._states_in(parent), name) & rules.accepts
        if not node.is_dir:
            found &= ~rules.directories_only
        self.fitted |= found
        # The last rule that fits has the highest state.
        return bool(found and rules.excludes >> (found.bit_length() - 1) & 1)

    def _enter(self, directory: bytes) -> int:
        """Return the states before a name in a directory."""
        start = self._automaton.start
        return self._read(start, directory + b"/") if directory else start

    def _read(self, states: int, text: bytes) -> int:
        rules, moves = self._automaton, self._moves
        self.steps += len(text)
        for byte in text:
            reached = states << 1 & moves[byte]
            kept = states & (rules.path_loops if byte == _SLASH else rules.name_loops)
            states = reached | (reached & rules.skips) << 1 | kept
        return states


def _seem_different(old: Node, new: Node) -> bool:
    """Return true if they differ by their metadata, without their content or attributes."""
    a, b = old.stat, new.stat
    if not old.has_facts_of(new):
        return True
    return not new.is_dir and (a.st_size, a.st_mtime_ns) != (b.st_size, b.st_mtime_ns)
