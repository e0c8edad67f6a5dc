"""Patterns as in a gitignore file, compiled once to an automaton that both engines run.

Law: reading a path takes one step a byte, whatever the patterns and the path are. Each pattern is a chain of states, all
states are one row of bits, and a step moves the whole row. Nothing is tried again, so nothing takes exponential time.

Spec: gitignore(5), "Pattern format"; docs/decisions/0065-patterns-are-one-automaton.md.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from ocidiff.errors import UsageError
from ocidiff.values import dataclass

MAX_PATTERNS: Final = 1000
MAX_BYTES: Final = 64 << 10
"""Bytes of all patterns of a call, and of an ignore file."""
MAX_PATTERN_BYTES: Final = 4096
"""The longest path that Linux takes."""

_SLASH: Final = ord("/")
_SEPARATOR: Final = b"/"
_ANY_DEPTH: Final = b"**"
_STARS: Final = re.compile(rb"\*\*+")
_SPECIAL: Final = re.compile(rb"[*?\[\\]")
_GLUED: Final = re.compile(rb"([^*?\[\\]+)\*\*+")
# Of what stands between brackets only that in which no two matchers differ: plain ASCII, and ranges of letters and digits.
_MEMBER: Final = rb"(?:[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9]|[A-Za-z0-9_.,:;=+@%#$?!*(){}'\" ])"
_BRACKETS: Final = rb"\[(?P<negated>[!^](?!\])|(?![!^]))(?P<members>-?" + _MEMBER + rb"+-?)\]"
_WILDCARD: Final = rb"(?P<stars>\*+)|(?P<any>\?)|" + _BRACKETS
_TOKEN: Final = re.compile(_WILDCARD + rb"|\\(?P<escaped>[^/])|(?P<plain>[^\\\[])", re.DOTALL)
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern that was understood.

    Attributes:
        parts: Globs of the components of a path from the root on, and the slashes between; `**` is any number of components.
        excludes: True if it excludes, false if it takes back in.
        directories_only: True if it fits nothing but directories.
        asked: The pattern as a caller gave it; empty for one of a preset or a file.
    """

    parts: tuple[bytes, ...]
    excludes: bool
    directories_only: bool
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Automaton:
    """Rules as rows of states; state number N is bit N, and the states of later rules are higher.

    Attributes:
        size: Number of states.
        start: States before the first byte.
        moves: For each byte that the rules tell from others, the states that it can lead to, each from the one below it.
        other_moves: The same for all other bytes.
        name_loops: States that stay active over every byte but a slash.
        path_loops: States that stay active over every byte.
        skips: States that activate the next one when they are reached.
        accepts: Last states of rules.
        directories_only: Those of `accepts` that fit nothing but directories.
        excludes: Those of `accepts` that exclude.
    """

    size: int
    start: int
    moves: dict[int, int]
    other_moves: int
    name_loops: int
    path_loops: int
    skips: int
    accepts: int
    directories_only: int
    excludes: int


def parse_pattern(pattern: str) -> Rule:
    """Return what a pattern says.

    Raises:
        UsageError: It says nothing, or something that matchers of such patterns do not agree on.
    """

    def refuse(why: str) -> UsageError:
        return UsageError(f"pattern {shown(pattern)}: {why}")

    text = without_trailing_spaces(os.fsencode(pattern))
    body = text.removeprefix(b"!")
    if not body or text.startswith(b"#"):
        raise refuse("it names nothing")
    if len(text) > MAX_PATTERN_BYTES:
        raise refuse(f"too long: {len(text)} bytes, must be at most {MAX_PATTERN_BYTES}")
    if b"\0" in body:
        raise refuse("no name has a NUL")
    names = body.split(b"/")
    directories_only, anchored = not names[-1], len(names) - (not names[-1]) > 1
    names = names[bool(not names[0]) : len(names) - directories_only]
    if not names or not all(names):
        raise refuse("it has an empty name")
    parts, is_literal = [] if anchored else [_ANY_DEPTH], anchored
    for name in names:
        if not _is_understood(name):
            raise refuse("takes brackets around plain characters, and a backslash before one")
        # git compares a literal beginning apart: stars right after it stand at the start of what is left.
        glued = _GLUED.fullmatch(name) if is_literal else None
        globs = [glued[1], _ANY_DEPTH] if glued else [_ANY_DEPTH if _STARS.fullmatch(name) else name]
        is_literal = is_literal and not _SPECIAL.search(name)
        if globs == [_ANY_DEPTH] == parts[-1:]:
            continue
        parts += [*([_SEPARATOR] if parts else []), *globs]
    return Rule(tuple(parts), not text.startswith(b"!"), directories_only)


def check_bounds(patterns: Sequence[str]) -> None:
    """Refuse patterns that would take too much memory or time.

    Raises:
        UsageError: There are too many of them, or they are too long together.
    """
    if len(patterns) > MAX_PATTERNS:
        raise UsageError(f"too many patterns: {len(patterns)}, must be at most {MAX_PATTERNS}")
    size = sum(len(os.fsencode(pattern)) for pattern in patterns)
    if size > MAX_BYTES:
        raise UsageError(f"patterns too long: {size} bytes together, must be at most {MAX_BYTES}")


def compile_rules(rules: Iterable[Rule]) -> Automaton:
    """Return the automaton that reads paths for all of these rules at once."""
    state = 0
    leads, leads_not = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    start, others, name_loops, path_loops, skips = list[int](), list[int](), list[int](), list[int](), list[int]()
    accepts, directories_only, excludes = list[int](), list[int](), list[int]()
    for rule in rules:
        start.append(state)
        first, last = state, len(rule.parts) - 1
        for number, part in enumerate(rule.parts):
            if part == _ANY_DEPTH:
                path_loops.append(state)
                if number != last:
                    # No component at all is a number of them too.
                    skips.append(state)
                    if state == first:
                        start.append(state + 1)
            elif part == _SEPARATOR:
                state += 1
                leads[_SLASH].append(state)
            else:
                for token in _TOKEN.finditer(part):
                    if token["stars"]:
                        name_loops.append(state)
                        continue
                    state += 1
                    if token["any"] or token["negated"]:
                        others.append(state)
                    for byte in _members(token):
                        (leads_not if token["negated"] else leads)[byte].append(state)
        accepts.append(state)
        if rule.directories_only:
            directories_only.append(state)
        if rule.excludes:
            excludes.append(state)
        state += 1
    common = _row(others, state)
    moves = {byte: common & ~_row(leads_not[byte], state) | _row(leads[byte], state) for byte in {*leads, *leads_not}}
    moves[_SLASH] = _row(leads[_SLASH], state)
    return Automaton(
        size=state,
        start=_row(start, state),
        moves=moves,
        other_moves=common,
        name_loops=_row(name_loops + path_loops, state),
        path_loops=_row(path_loops, state),
        skips=_row(skips, state),
        accepts=_row(accepts, state),
        directories_only=_row(directories_only, state),
        excludes=_row(excludes, state),
    )


def shown(pattern: str) -> str:
    """Return a pattern for a message."""
    return repr(pattern) if len(pattern) <= _SHOWN else repr(pattern[:_SHOWN]) + "..."


def without_trailing_spaces(text: bytes) -> bytes:
    """Return a pattern without the spaces at its end, except one after a backslash."""
    bare = text.rstrip(b" ")
    backslashes = len(bare) - len(bare.rstrip(b"\\"))
    return bare + b" " if bare != text and backslashes % 2 else bare


def _is_understood(segment: bytes) -> bool:
    position = 0
    while position < len(segment):
        token = _TOKEN.match(segment, position)
        if token is None or (token["members"] and not _members(token)):
            return False
        position = token.end()
    return True


def _members(token: re.Match[bytes]) -> set[int]:
    """Return the bytes that a token names; none if one of its ranges ends before it starts."""
    if token["members"] is None:
        return set(token["escaped"] or token["plain"] or b"")
    found = set[int]()
    for part in re.finditer(rb"(.)-(.)|.", token["members"]):
        if part[1] and part[1] > part[2]:
            return set()
        found.update(range(part[1][0], part[2][0] + 1) if part[1] else part[0])
    return found


def _row(states: Iterable[int], size: int) -> int:
    row = bytearray(size // 8 + 1)
    for state in states:
        row[state >> 3] |= 1 << (state & 7)
    return int.from_bytes(row, "little")
