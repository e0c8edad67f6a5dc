"""Expansion: `$NAME` in the words of an instruction, with its modifiers, quotes and escapes. Pure.

The rules are those of Docker's builder, which resemble a shell's: commit-semantics section 8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from ocidiff.errors import UsageError

ESCAPE: Final = "\\"

# A program gets at most 128 KiB in one variable; this only keeps `$A$A` from growing without end.
_MAX_LENGTH: Final = 1 << 20
_MAX_DEPTH: Final = 50
_SPECIAL_NAMES: Final = frozenset("@*#?-$!0")
# White space as Go has it; Python's own notion has four control characters more.
SPACES: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_BYTE_ORDER_MARK: Final = "\ufeff"

# Text, and if it was quoted: quoted white space does not end a word.
_Piece = tuple[str, bool]


def expand(word: str, env: Mapping[str, str], escape: str = ESCAPE) -> str:
    """Return the word with its variables replaced, its quotes and escapes taken away.

    Args:
        word: The text, which may have spaces.
        env: Values by name; other names expand to nothing.
        escape: The character that makes the next one literal.

    Raises:
        UsageError: A quote or a brace is not closed, a modifier is unknown, or `?` demands a value that is not there.
    """
    return _text(_Reader(word, env, escape).all())


def expand_words(word: str, env: Mapping[str, str], escape: str = ESCAPE) -> list[str]:
    """Return what the word expands to, split at white space that is not quoted; arguments and errors as in `expand`."""
    return _words(_Reader(word, env, escape).all())


def raw_words(line: str) -> list[str]:
    """Return the words of a line as they are written: quotes and escapes stay, nothing is expanded.

    Raises:
        UsageError: A quote or a brace is not closed.
    """
    return _words(_Reader(line, {}, ESCAPE, raw=True, raw_quotes=True, keep_unset=True).all())


def unquoted_words(line: str) -> list[str]:
    """Return the words of a line without their quotes and escapes; nothing is expanded. Errors as in `raw_words`."""
    return _words(_Reader(line, {}, ESCAPE, keep_unset=True).all())


def _text(pieces: list[_Piece]) -> str:
    return "".join([text for text, _ in pieces])


def _words(pieces: list[_Piece]) -> list[str]:
    words, current = [], ""
    for text, quoted in pieces:
        if quoted:
            current += text
            continue
        for char in text:
            if char not in SPACES:
                current += char
            elif current:
                words.append(current)
                current = ""
    return [*words, current] if current else words


class _Reader:
    """Reads one word from left to right."""

    def __init__(
        self,
        word: str,
        env: Mapping[str, str],
        escape: str,
        *,
        raw: bool = False,
        raw_quotes: bool = False,
        keep_unset: bool = False,
    ) -> None:
        self._left = word.removeprefix(_BYTE_ORDER_MARK)
        self._at = 0
        self._depth = 0
        self._length = 0
        self._env = env
        self._escape = escape
        self._raw = raw
        self._raw_quotes = raw_quotes
        self._keep_unset = keep_unset

    def all(self) -> list[_Piece]:
        return self._until("", raw=self._raw)

    def _peek(self) -> str:
        return self._left[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _until(self, stop: str, *, raw: bool) -> list[_Piece]:
        """Return what stands before the character `stop`, which is skipped; empty for the end of the word."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UsageError(f"variables nest more than {_MAX_DEPTH} deep")
        pieces: list[_Piece] = []
        while char := self._peek():
            if char == stop:
                self._next()
                self._depth -= 1
                return pieces
            if char == "$":
                self._add(pieces, self._variable(), quoted=False)
            elif char == "'":
                self._add(pieces, self._single_quoted(), quoted=True)
            elif char == '"':
                self._add(pieces, self._double_quoted(raw=raw), quoted=True)
            elif char == "<":
                self._add(pieces, self._angles(), quoted=True)
            elif self._next() != self._escape:
                self._add(pieces, char, quoted=False)
            else:
                escaped = self._next()
                self._add(pieces, char + escaped if raw else escaped, quoted=True)
        if stop:
            _fail(f"missing {stop!r}")
        return pieces

    def _add(self, pieces: list[_Piece], text: str, *, quoted: bool) -> None:
        self._length += len(text)
        if self._length > _MAX_LENGTH:
            raise UsageError(f"expands to more than {_MAX_LENGTH} characters")
        pieces.append((text, quoted))

    def _angles(self) -> str:
        """Return `<`, or `<<` with the white space behind it, which does not part a here-document from its name."""
        start = self._at
        self._next()
        if self._peek() == "<":
            self._next()
            while self._peek() and self._peek() in "\t\r ":
                self._next()
        return self._left[start : self._at]

    def _single_quoted(self) -> str:
        end = self._left.find("'", self._at + 1)
        if end < 0:
            _fail('missing "\'"')
        start, self._at = self._at, end + 1
        return self._left[start : end + 1] if self._raw_quotes else self._left[start + 1 : end]

    def _double_quoted(self, *, raw: bool) -> str:
        quote = self._next()
        parts = [quote] if self._raw_quotes else []
        while char := self._peek():
            if char == "$":
                parts.append(self._variable())
                continue
            self._next()
            if char == '"':
                return "".join(parts + [quote] * self._raw_quotes)
            if char == self._escape:
                if raw:
                    parts.append(char)
                if self._peek() and self._peek() in ('"', "$", self._escape):
                    char = self._next()
            parts.append(char)
        return _fail("missing '\"'")

    def _variable(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            return self._value(name, "$" + name) if name else "$"
        self._next()
        if self._peek() in ("", "{", "}", ":"):
            _fail("bad substitution: takes ${NAME}")
        return self._braced(self._name())

    def _name(self) -> str:
        start, first = self._at, self._peek()
        if first and first in _SPECIAL_NAMES and not first.isdecimal():
            self._next()
        elif first.isdecimal():
            while self._peek().isdecimal():
                self._next()
        else:
            while self._peek() == "_" or self._peek().isalpha() or self._peek().isdecimal():
                self._next()
        return self._left[start : self._at]

    def _value(self, name: str, unset: str) -> str:
        return self._env.get(name, unset if self._keep_unset else "")

    def _braced(self, name: str) -> str:
        modifier = self._next()
        if modifier == "}":
            return self._value(name, f"${{{name}}}")
        if modifier == "/":
            return self._replaced(name)
        colon = modifier if modifier == ":" else ""
        if colon:
            modifier = self._next()
        if not modifier or modifier not in ("+-?" if colon else "+-?#%"):
            _fail(f"modifier {colon + modifier!r}: must be one of - + ? :- :+ :? # ## % %% / //")
        word = _text(self._until("}", raw=modifier in "#%"))
        value = self._env.get(name)
        if self._keep_unset and value is None:
            return f"${{{name}{colon}{modifier}{word}}}"
        given = bool(value) if colon else value is not None
        if modifier == "-":
            return value if value is not None and given else word
        if modifier == "+":
            return word if given else ""
        if modifier == "?":
            if not given:
                _fail(f"{name}: {word or ('must not be empty' if colon else 'must be set')}")
            return value or ""
        longest = word.startswith(modifier)
        cut = _without_start if modifier == "#" else _without_end
        return cut(word[1:] if longest else word, value or "", longest=longest)

    def _replaced(self, name: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._next()
        pattern = _text(self._until("/", raw=True))
        replacement = _text(self._until("}", raw=True))
        value = self._env.get(name)
        if self._keep_unset and value is None:
            return f"${{{name}/{pattern}/{replacement}}}"
        return _replace(pattern, replacement, value or "", everywhere=everywhere)


def _without_start(pattern: str, value: str, *, longest: bool) -> str:
    match = _compiled(pattern, longest=longest).match(value)
    return value[match.end() :] if match else value


def _without_end(pattern: str, value: str, *, longest: bool) -> str:
    # Only at a start can the shortest match be found, so both are turned round; an escape stays before its character.
    turned = "".join(re.findall(r"\\.|.", pattern, re.DOTALL)[::-1])
    return _without_start(turned, value[::-1], longest=longest)[::-1]


def _replace(pattern: str, replacement: str, value: str, *, everywhere: bool) -> str:
    compiled = _compiled(pattern, longest=True)
    if not everywhere:
        match = compiled.search(value)
        return value[: match.start()] + replacement + value[match.end() :] if match else value
    parts: list[str] = []
    end = length = 0
    for match in compiled.finditer(value):
        # An empty match right behind another one is none.
        if not match[0] and parts and match.start() == end:
            continue
        inserted = re.sub(_REFERENCE, _referred(match[0]), replacement)
        length += len(inserted)
        if length > _MAX_LENGTH:
            raise UsageError(f"expands to more than {_MAX_LENGTH} characters")
        parts += [value[end : match.start()], inserted]
        end = match.end()
    return "".join(parts) + value[end:]


# Docker replaces with Go's templates, where `$0` stands for the match; there are no other groups.
_REFERENCE: Final = r"\$(?:(\$)|\{(\w+)\}|(\w+))"


def _referred(whole: str) -> Callable[[re.Match[str]], str]:
    return lambda found: "$" if found[1] else whole if (found[2] or found[3]) == "0" else ""


def _compiled(pattern: str, *, longest: bool) -> re.Pattern[str]:
    """Return the regular expression for a pattern with `*` and `?`.

    Each star is settled before the next one is tried: the first place for what follows it is as good as any, and time
    stays in proportion to the text.
    """
    segments = [""]
    chars = iter(pattern.removeprefix(_BYTE_ORDER_MARK))
    for char in chars:
        if char == "*":
            segments.append("")
        elif char == "?":
            segments[-1] += "."
        elif char != "\\":
            segments[-1] += re.escape(char)
        else:
            escaped = next(chars, "")
            if not escaped or escaped not in "*?\\}/":
                _fail(f"pattern {pattern!r}: only * ? \\ }} and / can be escaped")
            segments[-1] += re.escape(escaped)
    first, *rest = segments
    stars = [".*?"] * (len(rest) - 1) + [".*" if longest else ".*?"] * bool(rest)
    tail = "".join([f"(?>{star}{segment})" for star, segment in zip(stars, rest, strict=True)])
    return re.compile(first + tail)


def _fail(problem: str) -> NoReturn:
    raise UsageError(problem)
