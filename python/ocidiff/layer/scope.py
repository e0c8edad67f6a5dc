"""Which paths count: patterns as in a gitignore file, made expressions here, once, that both engines run.

Law: what is outside of a scope is treated as if neither tree had it, so that it is never added and never deleted by itself
(docs/decisions/0023-excludes.md).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Self

from ocidiff.errors import UsageError
from ocidiff.values import dataclass

IGNORE_FILE: Final = ".ocidiffignore"
RUNTIME: Final = "@runtime"
"""The preset for what a container engine puts into a running container; sockets are outside too."""

_RUNTIME_PATTERNS: Final = (
    *("/proc/*", "/sys/*", "/dev/*", "/run/*"),
    *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"),
)
_MAX_FILE_BYTES: Final = 1 << 20
# Of what stands between brackets only that in which no two matchers differ: plain ASCII, and ranges of letters and digits.
_MEMBER: Final = r"(?:[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9]|[A-Za-z0-9_.,:;=+@%#$?!*(){}'\" ])"
_BRACKETS: Final = rf"\[(?:[!^](?!\])|(?![!^]))-?{_MEMBER}+-?\]"
_TOKEN: Final = rf"(?P<stars>\*+)|\\[^/]|(?P<brackets>{_BRACKETS})|[^\\\[]"


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern that was understood.

    Attributes:
        expression: A regular expression in ASCII, about bytes, for a whole path relative to the root; that of a directory
            has a slash at its end.
        excludes: Whether it excludes, or takes back in.
    """

    expression: str
    excludes: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """The paths that count.

    Attributes:
        rules: The last one that fits a path decides; what is below an excluded directory is excluded with it.
        sockets: Whether sockets are outside.
        cross_mounts: Whether what is mounted in the trees counts. Otherwise a mount point is outside in both trees.
    """

    rules: tuple[Rule, ...] = ()
    sockets: bool = False
    cross_mounts: bool = False

    @classmethod
    def of(cls, patterns: Sequence[str], *, cross_mounts: bool = False) -> Self:
        """The scope that patterns of a command line leave.

        Raises:
            UsageError: One is not understood.
        """
        rules = list[Rule]()
        for pattern in patterns:
            rules += map(_rule, _RUNTIME_PATTERNS if pattern == RUNTIME else (pattern,))
        return cls(tuple(rules), RUNTIME in patterns, cross_mounts)

    def within(self, upper: bytes | Sequence[bytes]) -> Self:
        """This scope after the rules of the ignore file of a tree, if it has one; the file itself is then outside.

        Args:
            upper: Path of the tree; or of the layers that it is made of, top first.

        Raises:
            UsageError: A pattern is not understood, or the file is none.
        """
        for layer in [upper] if isinstance(upper, bytes) else upper:
            path = os.path.join(os.fsdecode(layer), IGNORE_FILE)
            try:
                text = _read(path)
            except FileNotFoundError:
                if os.path.lexists(os.path.join(os.fsdecode(layer), f".wh.{IGNORE_FILE}")):
                    break  # as fuse-overlayfs hides what is in lower layers
                continue
            return self if text is None else self._after(path, text)
        return self

    def _after(self, path: str, text: str) -> Self:
        rules, sockets = [_rule("/" + IGNORE_FILE)], self.sockets
        for number, line in enumerate(text.split("\n"), 1):
            pattern = _without_trailing_spaces(line.removesuffix("\r"))
            if not pattern or pattern.startswith("#"):
                continue
            try:
                found = type(self).of([pattern])
            except UsageError as error:
                raise UsageError(f"{path}: line {number}: {error}") from error
            rules += found.rules
            sockets |= found.sockets
        return replace(self, rules=(*rules, *self.rules), sockets=sockets)


def _read(path: str) -> str | None:
    """The text of an ignore file; None for the device that hides one of a lower layer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC) if _is_file(path) else None
    if descriptor is None:
        return None
    with open(descriptor, "rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES or b"\0" in content:
        raise UsageError(f"{path}: it is no list of patterns")
    return os.fsdecode(content)


def _is_file(path: str) -> bool:
    found = os.lstat(path)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path}: it is no regular file")
    return True


def _rule(pattern: str) -> Rule:
    """What a pattern says. Spec: gitignore(5), "Pattern format".

    Raises:
        UsageError: It says nothing, or something that matchers of such patterns do not agree on.
    """
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    text = _without_trailing_spaces(pattern)
    body = text.removeprefix("!")
    if not body or text.startswith("#"):
        raise UsageError(f"pattern {pattern!r}: it names nothing")
    if "\0" in body:
        raise UsageError(f"pattern {pattern!r}: no name has a NUL")
    segments = [_plain_segment(pattern, segment) for segment in body.split("/")]
    names = segments[bool(not segments[0]) : len(segments) - bool(not segments[-1])]
    if not names or not all(names):
        raise UsageError(f"pattern {pattern!r}: it has an empty name")
    # The library takes `a/**` for `a/`, and `*` for all at any depth; so told, both fit what they are written for alone.
    last = len(segments) - 1 - bool(not segments[-1])
    segments[last] = {"*": "?*", "**": "**/?*"}.get(segments[last], segments[last])
    if segments[-1] and segments[-1][-1].isspace() and segments[-1][-2:] != "\\ ":
        raise UsageError(f"pattern {pattern!r}: it ends in white space")
    expression, excludes = GitIgnoreSpecPattern.pattern_to_regex("!" * (text != body) + "/".join(segments))
    if expression is None or excludes is None:
        raise UsageError(f"pattern {pattern!r}: it is not understood")
    # No bracket fits a slash, which the library forgets of those that say what does not fit.
    in_ascii = "".join(map(_in_ascii, re.sub(r"\[\^(?!/)", "[^/", expression)))
    try:
        re.compile(in_ascii.encode())
    except re.error as error:
        raise UsageError(f"pattern {pattern!r}: {error}") from error
    return Rule(in_ascii, excludes)


def _plain_segment(pattern: str, segment: str) -> str:
    """A part of a pattern, with stars that count as one written so."""
    parts, position = [], 0
    token_at = re.compile(_TOKEN, re.DOTALL).match
    while position < len(segment):
        token = token_at(segment, position)
        if token is None:
            raise UsageError(f"pattern {pattern!r}: takes brackets around plain characters, and a backslash before one")
        whole = token["stars"] == segment
        parts.append(("**" if whole and len(segment) > 1 else "*") if token["stars"] else token[0])
        position = token.end()
    return "".join(parts)


def _in_ascii(character: str) -> str:
    return character if character.isascii() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _without_trailing_spaces(text: str) -> str:
    """Spaces at the end count only after a backslash."""
    while text.endswith(" "):
        rest = text[:-1]
        if (len(rest) - len(rest.rstrip("\\"))) % 2:
            break
        text = rest
    return text
