"""The paths that count: the patterns of a call, and those of an ignore file in the changed tree.

Law: what is outside of a scope is treated as if neither tree had it, so that it is never added and never deleted by itself
(docs/decisions/0023-excludes.md).
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from ocidiff.errors import UsageError
from ocidiff.log import Logger
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.layer.patterns import Automaton, Rule

IGNORE_FILE: Final = ".ocidiffignore"
RUNTIME: Final = "@runtime"
"""The preset for what a container engine puts into a running container; sockets are outside too."""

_SHOWN: Final = 100
_MOST_SHOWN: Final = 5
_RUNTIME_PATTERNS: Final = (
    *("/proc/*", "/sys/*", "/dev/*", "/run/*"),
    *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"),
)
_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class Scope:
    """The paths that count.

    Attributes:
        rules: The last one that fits a path decides; what is below an excluded directory is excluded with it.
        sockets: True if sockets are outside.
        cross_mounts: True if what is mounted in the trees counts. Otherwise a mount point is outside in both trees.
    """

    rules: tuple[Rule, ...] = ()
    sockets: bool = False
    cross_mounts: bool = False

    @classmethod
    def of(cls, patterns: Sequence[str], *, cross_mounts: bool = False) -> Self:
        """Return the scope that the patterns of a call leave.

        Raises:
            UsageError: One is not understood, or there are too many.
        """
        if not patterns:
            return cls(cross_mounts=cross_mounts)
        from ocidiff.layer.patterns import check_bounds, parse_pattern

        known = _with_presets(patterns)
        check_bounds(known)
        asked = set(patterns)
        rules = [replace(parse_pattern(one), asked=one if one in asked else "") for one in known]
        return cls(tuple(rules), RUNTIME in patterns, cross_mounts)

    @property
    def automaton(self) -> Automaton | None:
        """The compiled rules; None for no rules."""
        if not self.rules:
            return None
        from ocidiff.layer.patterns import compile_rules

        return compile_rules(self.rules)

    def warn_of_unfitted(self, fitted: int, upper: object) -> None:
        """Log which patterns of the call fitted no path, as a misspelt one does.

        Args:
            fitted: Last states of the patterns that fitted one.
            upper: The changed tree; of an overlay only changes were looked at.
        """
        if not any(rule.asked for rule in self.rules):
            return
        accepts, unfitted = self.automaton.accepts if self.automaton else 0, list[str]()
        for rule in self.rules:
            last = accepts & -accepts
            accepts ^= last
            if rule.asked and not fitted & last:
                unfitted.append(rule.asked)
        if unfitted:
            named = ", ".join(repr(pattern[:_SHOWN]) for pattern in unfitted[:_MOST_SHOWN])
            more = f" and {len(unfitted) - _MOST_SHOWN} more" if len(unfitted) > _MOST_SHOWN else ""
            what, unseen = "path", ""
            if isinstance(upper, OverlayLayers):
                what, unseen = "change", "; unchanged paths of an overlay are not looked at"
            _log.warning("exclude: no %s matches %s%s%s", what, named, more, unseen)

    def without(self, pattern: str) -> Self:
        """Return this scope without the paths that a pattern names."""
        from ocidiff.layer.patterns import parse_pattern

        return replace(self, rules=(*self.rules, parse_pattern(pattern)))

    def within(self, upper: bytes | Sequence[bytes]) -> Self:
        """Return this scope after the rules of the ignore file of a tree, if it has one; the file itself is then outside.

        Args:
            upper: Path of the tree; or of the layers that it is made of, top first.

        Raises:
            UsageError: The file is not a list of patterns, one is not understood, or there are too many.
        """
        for layer in [upper] if isinstance(upper, bytes) else upper:
            path = os.path.join(os.fsdecode(layer), IGNORE_FILE)
            try:
                content = _read(path)
                return self if content is None else self._after(content)
            except FileNotFoundError:
                with suppress(FileNotFoundError):
                    os.lstat(os.path.join(os.fsdecode(layer), f".wh.{IGNORE_FILE}"))
                    break  # as fuse-overlayfs hides what is in lower layers
            except UsageError as error:
                raise UsageError(f"{path}: {error}; --no-ignore-file leaves the file unread") from error
        return self

    def _after(self, content: bytes) -> Self:
        from ocidiff.layer.patterns import check_bounds, parse_pattern, without_trailing_spaces

        lines = [without_trailing_spaces(line.removesuffix(b"\r")) for line in content.split(b"\n")]
        numbered = [(number, os.fsdecode(line)) for number, line in enumerate(lines, 1) if line and line[:1] != b"#"]
        check_bounds(_with_presets([pattern for _, pattern in numbered]))
        rules, sockets = [parse_pattern("/" + IGNORE_FILE)], self.sockets
        for number, pattern in numbered:
            try:
                rules += map(parse_pattern, _with_presets([pattern]))
            except UsageError as error:
                raise UsageError(f"line {number}: {error}") from error
            sockets |= pattern == RUNTIME
        return replace(self, rules=(*rules, *self.rules), sockets=sockets)


def _with_presets(patterns: Sequence[str]) -> list[str]:
    """Return the patterns with those that a preset stands for in its place.

    Raises:
        UsageError: There is no such preset.
    """
    for pattern in patterns:
        if pattern.startswith("@") and pattern != RUNTIME:
            raise UsageError(f"preset {pattern[:100]!r}: must be {RUNTIME}; for a file of that name write \\{pattern[:100]}")
    return [known for pattern in patterns for known in (_RUNTIME_PATTERNS if pattern == RUNTIME else (pattern,))]


def _read(path: str) -> bytes | None:
    """Return the content of an ignore file; None for the device that hides one of a lower layer."""
    if not _is_file(path):
        return None
    from ocidiff.layer.patterns import MAX_BYTES

    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UsageError(f"too large: must be at most {MAX_BYTES} bytes")
    if b"\0" in content:
        raise UsageError("not a list of patterns: it has a NUL byte")
    return content.removeprefix(codecs.BOM_UTF8)


def _is_file(path: str) -> bool:
    found = os.lstat(path)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise UsageError("not a regular file")
    return True
